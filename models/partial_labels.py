"""Training on labels that do not name every structure: what a site leaves out is not background there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def marginal(logits: Tensor, label: Tensor, labeled: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Examples by what is labeled in them: their share of the batch, and logits and labels of these classes alone.

    In a voxel that is labeled background there may be any structure that its site does not label. The softmax of the
    logits given here has for background the sum of the probabilities of background and of all those structures, and
    has none of them as a class: a loss of it neither asks for them nor pushes them away, and Dice is over labeled
    structures only. Where everything is labeled, logits and labels are the given ones. Examples without a labeled
    structure are left out, since they teach nothing. Source: Shi G et al., Marginal loss and exclusion loss for
    partially supervised multi-organ segmentation, Med Image Anal 2021;70:101979 (the marginal loss).

    Args:
        logits: float [B, 1 + K, *S], background first.
        label: int64 [B, *S], 0 to K; 0 where nothing that is labeled lies.
        labeled: bool [B, K].

    Yields a share in (0, 1], float [b, 1 + L, *S] and int64 [b, 1, *S] from 0 to L, of the L labeled structures.
    """
    for pattern in labeled.int().unique(dim=0).bool():
        if not pattern.any():
            continue
        rows = (labeled == pattern).all(1)
        if pattern.all():
            kept, number = logits[rows], torch.arange(len(pattern) + 1, device=label.device)
        else:
            known = pattern.nonzero()[:, 0] + 1
            background = torch.cat([pattern.new_ones(1), ~pattern]).nonzero()[:, 0]
            merged = logits[rows][:, background].logsumexp(1, keepdim=True)
            kept = torch.cat([merged, logits[rows][:, known]], 1)
            number = label.new_zeros(len(pattern) + 1)
            number[known] = torch.arange(1, len(known) + 1, device=label.device)
        yield float(rows.sum()) / len(rows), kept, number[label[rows]][:, None]
