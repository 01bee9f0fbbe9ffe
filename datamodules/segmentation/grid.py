"""From a scan's own grid to the study's: axes are turned, then values and labels are resampled to the spacing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage

STANDARD = "SPL"  # where the axes of a `datamodules.dicom.Volume` lead: head, back, left
_SIDES = ("LR", "PA", "IS")
_GAUSSIAN = 4.0  # deviations at which scipy cuts its kernel off


def check_orientation(orientation: str) -> None:
    """Raise ValueError for what is not one letter of each of left/right, posterior/anterior, inferior/superior."""
    if len(orientation) != 3 or any(sum(letter in side for letter in orientation) != 1 for side in _SIDES):
        raise ValueError(
            f"dataset.image.orientation={orientation}: must be three letters, where each axis leads to, as RAS or LPS"
        )


def turned(array: NDArray[Any], spacing: Sequence[float], orientation: str) -> tuple[NDArray[Any], tuple[float, ...]]:
    """An array on the axes of `STANDARD` on those of `orientation`, by flips and transposes; and its spacing."""
    turn = ornt_transform(axcodes2ornt(tuple(STANDARD)), axcodes2ornt(tuple(orientation)))
    own = [0.0] * len(spacing)
    for axis, (target, _) in enumerate(turn):
        own[int(target)] = float(spacing[axis])
    return apply_orientation(array, turn), tuple(own)


def back(array: NDArray[Any], orientation: str) -> NDArray[Any]:
    """An array that was `turned` to `orientation`, on the axes of `STANDARD` again."""
    return apply_orientation(array, ornt_transform(axcodes2ornt(tuple(orientation)), axcodes2ornt(tuple(STANDARD))))


def mapping(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape of the grid of `target` spacing over the same extent, and [D, 2] scale and offset of each axis.

    Voxel of the new grid = scale * own voxel + offset; both grids have the same middle.
    """
    scale = np.array(spacing) / np.array(target)
    new = np.maximum(np.rint(np.array(shape) * scale), 1).astype(int)
    return tuple(new.tolist()), np.stack([scale, (new - 1) / 2 - scale * (np.array(shape) - 1) / 2], axis=1)


def resampled(image: NDArray[Any], places: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float32]:
    """Values on a grid of `mapping`: linear, after a Gaussian of (factor - 1) / 2 voxels where an axis gets coarser, so
    that fine structure is averaged and not aliased."""
    scale, offset = places.T
    smooth = image.astype(np.float32)
    for axis, deviation in enumerate(np.maximum((1 / scale - 1) / 2, 0)):
        if deviation > 0:
            ndimage.gaussian_filter1d(smooth, deviation, axis, output=smooth, mode="nearest", truncate=_GAUSSIAN)
    if tuple(shape) == image.shape and (scale == 1).all():
        return smooth
    moved = ndimage.affine_transform(
        smooth, 1 / scale, offset=-offset / scale, output_shape=tuple(shape), order=1, mode="nearest"
    )
    return np.asarray(moved, np.float32)


def resampled_label(label: NDArray[np.uint8], places: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Classes on a grid of `mapping`: of each new voxel the one with the largest share, shares as `resampled`.

    One structure at a time, within the box that it reaches: all shares of a scan would be many times its size.
    """
    if tuple(shape) == label.shape and (places[:, 0] == 1).all():
        return np.ascontiguousarray(label)
    best, total, found = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    scale, offset = places.T
    reach = np.ceil(_GAUSSIAN * np.maximum((1 / scale - 1) / 2, 0)).astype(int) + 2
    for number, box in enumerate(ndimage.find_objects(label), start=1):
        if box is None:
            continue
        first = np.maximum([side.start for side in box] - reach, 0)
        last = np.minimum([side.stop for side in box] + reach, label.shape)
        begin = np.clip(np.floor(scale * first + offset), 0, np.array(shape) - 1).astype(int)
        end = np.clip(np.ceil(scale * (last - 1) + offset) + 1, begin + 1, shape).astype(int)
        own = label[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] == number
        here = np.stack([scale, scale * first + offset - begin], axis=1)
        new = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        share = resampled(own, here, (end - begin).tolist())
        found[new][share > best[new]] = number
        np.maximum(best[new], share, out=best[new])
        total[new] += share
    found[best <= 1 - total] = 0
    return found
