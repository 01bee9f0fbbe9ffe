"""Where a decision is yes: from the threshold on, the threshold itself included."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryStatScores

from models.metrics.bins import Counted, on_grid


def just_below(threshold: float) -> float:
    """What torchmetrics, whose yes lies above its threshold, takes so that the threshold itself is a yes."""
    return float(torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)))


def yes(probability: Tensor, threshold: float) -> Tensor:
    """1 where a probability is the threshold or above it, int64."""
    return (probability > just_below(threshold)).long()


def decide_at(metrics: Iterable[Metric], threshold: float) -> float:
    """Score decisions at the edge of the grid nearest to a probability, and have curves on the same rows know it.

    Returns that edge. A threshold between two edges, whoever chose it, would tell how many rows lie between. Raises
    ValueError for what is no probability.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold}: write a number in (0, 1), as 0.5")
    at = on_grid(threshold)
    for metric in metrics:
        if isinstance(metric, BinaryStatScores):
            metric.threshold = just_below(at)
        elif isinstance(metric, Counted):
            metric.threshold = at
    return at
