"""Encoders of text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KEY = "text"


class HashedNGrams(nn.Module):
    """The weighted sum of one vector an n-gram, as fastText's bag of n-grams; nothing is downloaded.

    Reads `text` int64 [n, L], numbers of buckets from 1, 0 where there are fewer; and `text_weight` float32 [n, L]
    where the batch has it (tf-idf), else every n-gram counts alike. Source: Joulin et al., Bag of tricks for efficient
    text classification, EACL 2017.

    Args:
        buckets: number of buckets, as in `dataset.text.buckets`.
        width: size of the embedding.
    """

    key, also = KEY, ("text_weight",)

    def __init__(self, buckets: int = 4096, width: int = 64) -> None:
        super().__init__()
        self.width = width
        # Not EmbeddingBag: Opacus cannot clip by example what it is told as weighted bags.
        self.vectors = nn.Embedding(buckets + 1, width, padding_idx=0)
        # As small as this, an n-gram that no training text has says nearly nothing; torch's own deviation, 1, is noise.
        nn.init.normal_(self.vectors.weight, std=0.01)
        with torch.no_grad():
            self.vectors.weight[0] = 0.0

    def forward(self, text: Tensor, text_weight: Tensor | None = None) -> Tensor:
        """Embedding [n, width]."""
        if text_weight is None:
            known = (text > 0).to(self.vectors.weight)
            text_weight = known / known.sum(1, keepdim=True).clamp(min=1)
        out: Tensor = (self.vectors(text) * text_weight[..., None]).sum(1)
        return out


class Projection(nn.Module):
    """A normalized embedding of a note, made smaller: what a site's transformer gives (datamodules.text).

    Reads `text` float32 [n, features].

    Args:
        features: size of the transformer's embedding, as in `dataset.text.width`.
        width: size of the embedding.
    """

    key = KEY

    def __init__(self, features: int, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.ReLU())

    def forward(self, text: Tensor) -> Tensor:
        """Embedding [n, width]."""
        out: Tensor = self.layers(text)
        return out
