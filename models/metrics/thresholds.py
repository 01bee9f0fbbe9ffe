"""Where a decision is yes: from the threshold on, the threshold itself included."""

import torch
from torch import Tensor


def just_below(threshold: float) -> float:
    """What torchmetrics, whose yes lies above its threshold, takes so that the threshold itself is a yes."""
    return float(torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)))


def yes(probability: Tensor, threshold: float) -> Tensor:
    """1 where a probability is the threshold or above it, int64."""
    return (probability > just_below(threshold)).long()
