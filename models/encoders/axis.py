"""A map along the body axis from pictures of a scan: each row sees its neighborhood up to the whole trunk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class RowNorm(nn.Module):
    """Layer norm over the channels of each place by itself: neither length nor padding of a scan moves it, nor do other
    patients."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, ...] to the same."""
        normed: Tensor = self.norm(features.movedim(1, -1))
        return normed.movedim(-1, 1)


class Tower(nn.Module):
    """One picture [B, 1, Z, W] to features of its rows [B, 2 C, Z]: their largest and their mean across."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [1, *channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=(1, 2), padding=1) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(RowNorm(channel) for channel in channels)

    def forward(self, picture: Tensor, inside: Tensor) -> Tensor:
        """`inside` float [B, 1, Z, 1]."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            picture = functional.leaky_relu(norm(layer(picture)), 0.1) * inside
        return torch.cat([picture.amax(3), picture.mean(3)], 1)


class AxisNetwork(nn.Module):
    """Pictures [B, V, Z, W] to a map along Z and a logit that the level is in none of the rows: [B, Z + 1].

    Each picture goes through layers of its own, which halve its width; the largest and the mean across make it a
    sequence of rows, as the reduction of Kanavati et al. (arXiv:1811.09244, 2018). Convolutions with gaps of 1, 2, 4,
    ... rows then see the trunk up to ribs and pelvis, by which a vertebra is counted. What is not inside the scan is 0
    in every layer, so that a scan gives the same alone and filled up to others' length.

    Args:
        pictures: V.
        channels: features of the layers on each picture.
        width: features of a row.
        gaps: of the convolutions along the axis, rows.
        dropout: share of the rows' features that are left out in training.
    """

    def __init__(
        self,
        pictures: int = 2,
        channels: Sequence[int] = (8, 16, 32),
        *,
        width: int = 48,
        gaps: Sequence[int] = (1, 2, 4, 8, 16, 32),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList(Tower(channels) for _ in range(pictures))
        self.joined = nn.Conv1d(2 * channels[-1] * pictures, width, 1)
        self.along = nn.ModuleList(nn.Conv1d(width, width, 3, padding=gap, dilation=gap) for gap in gaps)
        self.norms = nn.ModuleList(RowNorm(width) for _ in gaps)
        self.dropout = nn.Dropout1d(dropout)
        self.map, self.none = nn.Conv1d(width, 1, 1), nn.Linear(2 * width + 1, 1)

    def forward(self, image: Tensor, inside: Tensor) -> Tensor:
        """`image` [B, V, Z, W], `inside` bool [B, Z]; logits [B, Z + 1], the last for none, -inf beyond the scan."""
        here = inside[:, None].to(image)
        parts = [tower(image[:, k : k + 1], here[..., None]) for k, tower in enumerate(self.towers)]
        rows = self.joined(torch.cat(parts, 1)) * here
        for layer, norm in zip(self.along, self.norms, strict=True):
            rows = (rows + self.dropout(layer(functional.leaky_relu(norm(rows), 0.1) * here))) * here
        logits = self.map(rows)[:, 0].masked_fill(~inside, -torch.inf)
        mean = rows.sum(2) / here.sum(2).clamp(min=1)
        # A level in view is a row that stands out; the map's own sum says whether one does.
        whole = torch.cat([rows.masked_fill(~inside[:, None], -1e4).amax(2), mean], 1)
        none = self.none(torch.cat([whole, logits.logsumexp(1, keepdim=True)], 1))
        return torch.cat([logits, none], 1)
