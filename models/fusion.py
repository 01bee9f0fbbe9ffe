"""Fusion: embeddings of the parts of a batch become one. A part that is absent is masked, the row is kept.

What an absent part holds cannot change the output: its embedding is not read. Absence has no weight of its own either,
unless `missingness` is declared: the output is a mean over the parts that are there, which tells neither their number
nor which they are. It cannot undo that a part is present in other patients than it is absent in: whether that is so is
for the data's report to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

Parts = Mapping[str, Tensor]


class Single(nn.Module):
    """One part as it is, so that the head is a regression of its embedding; 0 where the part is absent.

    Args:
        widths: the name of the one part, and the size of its embedding.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        if len(widths) != 1:
            raise ValueError(f"model.fusion: Single takes one part, not {', '.join(widths)}; take models.fusion.Late")
        ((self.part, self.width),) = widths.items()

    def forward(self, embeddings: Parts, present: Parts) -> Tensor:
        """The embedding [n, width]."""
        return embeddings[self.part].masked_fill(present[self.part][:, None] == 0, 0.0)


class Late(nn.Module):
    """The mean of the projections of those parts that are present.

    Args:
        widths: size of each part's embedding.
        width: size of the output.
        missingness: learn a vector for each part's absence; then that a part is missing may decide.
    """

    def __init__(self, widths: Mapping[str, int], width: int = 64, missingness: bool = False) -> None:
        super().__init__()
        self.width = width
        self.project = nn.ModuleDict({name: nn.Linear(size, width) for name, size in widths.items()})
        self.absent = nn.Embedding(len(widths), width) if missingness else None

    def tokens(self, embeddings: Parts, present: Parts) -> tuple[Tensor, Tensor]:
        """Projections [n, parts, width] and which of them count [n, parts]; those of absent parts are not read."""
        names = list(self.project)
        mask = torch.stack([present[name] > 0 for name in names], dim=1)
        projected = torch.stack([self.project[name](embeddings[name]) for name in names], dim=1)
        if self.absent is None:
            return projected.masked_fill(~mask[..., None], 0.0), mask
        instead = self.absent(torch.arange(len(names), device=mask.device).expand(mask.shape))
        return torch.where(mask[..., None], projected, instead), torch.ones_like(mask)

    def forward(self, embeddings: Parts, present: Parts) -> Tensor:
        """Fused embedding [n, width]; 0 for a row without any part."""
        tokens, mask = self.tokens(embeddings, present)
        return tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class Attention(Late):
    """As `Late`, with weights that depend on what the parts hold: one query attends over those that are present.

    Args:
        widths, width, missingness: as of `Late`.
    """

    def __init__(self, widths: Mapping[str, int], width: int = 64, missingness: bool = False) -> None:
        super().__init__(widths, width, missingness)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, embeddings: Parts, present: Parts) -> Tensor:
        """Fused embedding [n, width]; 0 for a row without any part."""
        tokens, mask = self.tokens(embeddings, present)
        scores = self.score(tokens.tanh()).squeeze(-1) / math.sqrt(self.width)
        # A row without any part would be a softmax over nothing: its tokens are 0, whatever the weights.
        weights = scores.masked_fill(~mask & mask.any(1, keepdim=True), -math.inf).softmax(1)
        return (tokens * weights[..., None]).sum(1)
