"""What a loss of a segmentation must be, tried on made-up logits."""

from __future__ import annotations

import torch
from torch import nn


def compares(name: str, loss: nn.Module, structures: int, dimensions: int) -> bool:
    """Whether a loss is other than the mean over its examples, as Dice of a whole batch is.

    Raises ValueError for a loss that does not take logits [b, classes, *S] by their softmax and labels [b, 1, *S].
    """
    shape, classes = (2, 1, *[4] * dimensions), structures + 1
    label = (torch.arange(2 * 4**dimensions) % (classes + 1)).clamp(max=structures).reshape(shape)
    logits = torch.linspace(-2, 2, 2 * classes * 4**dimensions).reshape(2, classes, *shape[2:]).cos()
    try:
        whole, moved = loss(logits, label), loss(logits + 1, label)
        apart = torch.stack([loss(logits[each : each + 1], label[each : each + 1]) for each in (0, 1)])
    except (AssertionError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"model.loss.{name}: {error}; it may lack softmax: true and to_onehot_y: true") from error
    if whole.ndim or not torch.allclose(whole, moved, rtol=1e-4, atol=1e-5):
        raise ValueError(f"model.loss.{name}: needs softmax: true, and gives one number (reduction: mean)")
    return not torch.allclose(whole, apart.mean(), rtol=1e-4, atol=1e-5)
