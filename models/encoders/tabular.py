"""Encoders of structured data: scaled numbers and one-hot categories, float32 [n, f]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

KEY = "tabular"


def columns(tabular: Tensor, features: int) -> Tensor:
    """The batch [n, f] as it is. Raises ValueError where f is not the number of features that was declared."""
    if tabular.shape[1] != features:
        found = tabular.shape[1]
        raise ValueError(
            f"model.encoders.tabular.features={features}: the data have {found} columns, scaled and one-hot; "
            f"set it to {found}"
        )
    return tabular


class Identity(nn.Module):
    """The features as they are, so that the head is a linear (logistic, Cox) regression of them.

    Args:
        features: number of features f.
    """

    key = KEY

    def __init__(self, features: int) -> None:
        super().__init__()
        self.width = features

    def forward(self, tabular: Tensor) -> Tensor:
        """The features [n, f]."""
        return columns(tabular, self.width)


class MLP(nn.Module):
    """Fully connected layers with ReLU between them.

    Args:
        features: number of features f.
        width: size of the embedding.
        hidden: sizes of the layers before it; none: one linear layer and a ReLU.
        dropout: part of a hidden layer that is left out in training, in [0, 1).
    """

    key = KEY

    def __init__(self, features: int, width: int = 32, hidden: Sequence[int] = (32,), dropout: float = 0.0) -> None:
        super().__init__()
        self.features, self.width = features, width
        sizes, layers = [features, *hidden, width], list[nn.Module]()
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, tabular: Tensor) -> Tensor:
        """Embedding [n, width]."""
        out: Tensor = self.layers(columns(tabular, self.features))
        return out


class Embedding(nn.Module):
    """An embedding of each feature, linear in its value, and their mean after a ReLU.

    The feature tokenizer of Gorishniy et al., Revisiting deep learning models for tabular data, NeurIPS 2021.

    Args:
        features: number of features f.
        width: size of the embedding.
    """

    key = KEY

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.features, self.width = features, width
        # One weight and bias a feature: a grouped convolution, which DP-SGD can clip by example.
        self.tokens = nn.Conv1d(features, features * width, 1, groups=features)
        self.out = nn.Linear(width, width)

    def forward(self, tabular: Tensor) -> Tensor:
        """Embedding [n, width]."""
        tokens = self.tokens(columns(tabular, self.features)[:, :, None]).view(len(tabular), self.features, self.width)
        out: Tensor = self.out(tokens.relu().mean(1))
        return out
