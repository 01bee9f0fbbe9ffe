"""A whole scan by a network of patches: classes on the scan's own grid, slab by slab, in bounded memory.

Probabilities of every class over a whole scan do not fit: 105 classes of 512 x 512 x 1,000 voxels are 110 GB. Windows
slide along the first axis; what they have passed for good is brought to the own grid and decided, and only the decision
is kept. Memory is about three slabs as high as a window, of all classes, and `PART_BYTES`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import Tensor

WINDOWS = 2  # at a time: less memory than a training step of as many patches
PART_BYTES = 256 * 2**20  # of probabilities on the own grid at a time

Predict = Callable[[Tensor], Tensor]


def classes_on_own_grid(
    image: Tensor, predict: Predict, *, roi: Sequence[int], overlap: float, mapping: Tensor, shape: Sequence[int]
) -> Tensor:
    """The most probable class of each voxel of the scan's own grid, int16 [*P] on the CPU.

    Probabilities are the mean over overlapping windows, with MONAI's Gaussian weights, and are read linearly at the
    places of the own voxels; beyond the image there is background. Windows that are larger than the image are filled
    with its lowest value.

    Args:
        image: float [1, C, *S], preprocessed.
        predict: [b, C, *roi] to probabilities [b, classes, *roi].
        roi: size of a window, by axis.
        overlap: share of a window that the next one covers again, in [0, 1).
        mapping: float [D, 2]: voxel of `image` = scale * own voxel + offset, an axis each.
        shape: of the own grid, P.
    """
    places = [
        scale * torch.arange(length, dtype=torch.float64) + offset
        for (scale, offset), length in zip(mapping.double().cpu().tolist(), shape, strict=True)
    ]
    size, decided = image.shape[2], torch.zeros(tuple(shape), dtype=torch.int16)
    turn = places[0].ceil().clamp(0, size - 1)  # the last slice that an own slice is read from
    before = image.new_zeros(0, device="cpu")
    for start, slab in _slabs(image, predict, roi, overlap):
        block = torch.cat([before, slab], 1) if len(before) else slab
        first, before = start - (block.shape[1] - slab.shape[1]), slab[:, -1:].clone()
        due = ((turn >= start) & (turn < start + slab.shape[1])).nonzero()[:, 0]
        for part in due.split(max(1, PART_BYTES // (4 * len(slab) * math.prod(shape[1:])))):
            shares = _read(block, places[0][part] - first, 1)
            for axis, where in enumerate(places[1:], start=2):
                shares = _read(shares, where, axis)
            highest, which = shares.max(0)
            decided[part] = which.masked_fill_(highest == 0, 0).to(torch.int16)
    return decided


def outputs_of(made: Tensor | Sequence[Tensor], dimensions: int) -> list[Tensor]:
    """Every output of a network, the finest first, as float32: one, a list, or stacked [B, N, 1 + K, *S] (DynUNet)."""
    several = made.unbind(1) if isinstance(made, Tensor) and made.ndim == dimensions + 3 else made
    found = [several] if isinstance(several, Tensor) else list(several)
    return [each.float() for each in found]


def _slabs(image: Tensor, predict: Predict, roi: Sequence[int], overlap: float) -> Iterator[tuple[int, Tensor]]:
    """From the first axis' start to its end, where a slab begins and its probabilities [classes, n, ...] on the CPU."""
    size, height = image.shape[2], min(roi[0], image.shape[2])
    step = max(1, int(roi[0] * (1 - overlap)))
    starts = [*range(0, size - height, step), size - height]
    ramps = [compute_importance_map((side,), mode="gaussian") for side in roi]
    weights = functools.reduce(lambda grown, ramp: grown[..., None] * ramp, ramps)
    ramp = ramps[0][:height].reshape(-1, *[1] * (len(roi) - 1))
    kept: tuple[Tensor, Tensor] | None = None
    for start, end in itertools.pairwise([*starts, size]):
        windows = image[:, :, start : start + height]
        made = sliding_window_inference(
            windows, tuple(roi), WINDOWS, predict, overlap, mode="gaussian", roi_weight_map=weights,
            cval=float(image.min()), sw_device=image.device, device="cpu",
        )  # fmt: skip
        total, weight = torch.as_tensor(made)[0] * ramp, ramp.clone()
        if kept is not None:
            total[:, : kept[0].shape[1]] += kept[0]
            weight[: len(kept[1])] += kept[1]
        done = end - start
        kept = total[:, done:].clone(), weight[done:]
        yield start, total[:, :done] / weight[:done]


def _read(shares: Tensor, places: Tensor, axis: int) -> Tensor:
    """Values at places along an axis, linearly between neighbors; 0 beyond both ends."""
    size, lower = shares.shape[axis], places.floor()
    found: Tensor | None = None
    for neighbor, weight in ((lower, 1 - (places - lower)), (lower + 1, places - lower)):
        weight = torch.where((neighbor >= 0) & (neighbor < size), weight, 0.0).to(shares)
        weight = weight.reshape(-1, *[1] * (shares.ndim - 1 - axis))
        read = shares.index_select(axis, neighbor.clamp(0, size - 1).long()).mul_(weight)
        found = read if found is None else found.add_(read)
    return torch.as_tensor(found)
