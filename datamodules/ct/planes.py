"""Planes of a labeled CT at the third lumbar vertebra: which ones, on the scanner's grid and on a network's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TISSUES = ("skeletal_muscle", "subcutaneous_fat", "visceral_fat")  # classes 1, 2, 3; 0 is anything else
LEVEL = "vertebra_L3"
AIR = -1024
NO_LEVEL = "the labels show no L3, or no muscle at its center"
CUT_LEVEL = "L3 is cut by the edge of the scan"
CUT_MUSCLE = "muscle at L3 is cut by the edge of the picture"
AT_LEVEL = (NO_LEVEL, CUT_LEVEL, CUT_MUSCLE)


class Skip(Exception):
    """A study that is left out, for a reason without identifiers."""


@dataclass(frozen=True)
class Plane:
    """One axial plane on the scanner's own grid.

    `hu` int16 (row, column); `label` uint8 (row, column), the class of `TISSUES` + 1 or 0; `spacing` (row, column), mm.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float]

    @property
    def pixel_area_cm2(self) -> float:
        """Area of a pixel, cm2."""
        return self.spacing[0] * self.spacing[1] / 100

    def areas_cm2(self) -> NDArray[np.float64]:
        """Area of each tissue, cm2, in the order of `TISSUES`."""
        return np.array([(self.label == index + 1).sum() for index in range(len(TISSUES))]) * self.pixel_area_cm2

    def mapping(self, spacing_mm: float, size: int) -> NDArray[np.float64]:
        """[[scale, offset] of rows, [scale, offset] of columns]: network pixel = scale * own pixel + offset.

        Both grids have the same middle.
        """
        scale = np.array(self.spacing) / spacing_mm
        return np.stack([scale, (size - 1) / 2 - scale * (np.array(self.hu.shape) - 1) / 2], axis=1)

    def resampled(self, spacing_mm: float, size: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """HU and label on a square grid of `size` pixels of `spacing_mm`, with the same middle; air beyond the plane.

        Linear, after a Gaussian of (factor - 1) / 2 pixels where the grid gets coarser, so that fine structure is
        averaged and not aliased. A label is the class with the largest share of the new pixel.
        """
        scale, offset = self.mapping(spacing_mm, size).T
        blur = np.maximum((1 / scale - 1) / 2, 0)

        def move(image: NDArray[np.float32], outside: float) -> NDArray[np.float32]:
            smooth = ndimage.gaussian_filter(image, blur, mode="nearest")
            moved = ndimage.affine_transform(
                smooth,
                1 / scale,
                offset=-offset / scale,
                output_shape=(size, size),
                order=1,
                mode="constant",
                cval=outside,
            )
            return np.asarray(moved, dtype=np.float32)

        shares = [
            move((self.label == index).astype(np.float32), float(index == 0)) for index in range(len(TISSUES) + 1)
        ]
        hu = move(self.hu.astype(np.float32), AIR)
        return np.rint(hu).astype(np.int16), np.argmax(shares, axis=0).astype(np.uint8)

    def within(self, side: int) -> Plane:
        """The same plane with at most `side` rows and columns, every k-th of its own."""
        step = -(-max(self.hu.shape) // side)
        if step <= 1:
            return self
        return Plane(
            self.hu[::step, ::step], self.label[::step, ::step], (self.spacing[0] * step, self.spacing[1] * step)
        )


def packed(planes: Sequence[Plane]) -> dict[str, NDArray[Any]]:
    """Planes of one study as arrays, to be kept: `hu` and `label` (plane, row, column), `spacing` (row, column), mm."""
    stacked = {name: np.stack([getattr(plane, name) for plane in planes]) for name in ("hu", "label")}
    return {**stacked, "spacing": np.array(planes[0].spacing)}


def unpacked(arrays: Mapping[str, NDArray[Any]]) -> list[Plane]:
    """The inverse of `packed`."""
    row, column = arrays["spacing"].tolist()
    return [Plane(hu, label, (row, column)) for hu, label in zip(arrays["hu"], arrays["label"], strict=True)]


def level_slice(masks: Mapping[str, NDArray[np.bool_]]) -> int:
    """Index of the slice nearest to the center of L3. Raises `Skip` as `center_of`."""
    return round(center_of(masks.get(LEVEL, np.zeros((1, 1, 1), np.bool_))))


def center_of(marked: NDArray[np.bool_]) -> float:
    """Position among slices of the center of a vertebra: of its mask's largest part, since networks mark stray islands.

    Raises `Skip`: NO_LEVEL; CUT_LEVEL where that part touches the first or the last slice, so that the center of what
    is seen is not that of L3 (on a real CT, muscle at the center of a third of L3 was up to 7 % off). The only slice of
    a scan was chosen for its level by those who made it.
    """
    if not marked.any():
        raise Skip(NO_LEVEL)
    (box,) = ndimage.find_objects(marked.astype(np.uint8))
    parts, _ = ndimage.label(marked[box], structure=np.ones((3, 3, 3)))
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    sizes = np.zeros(len(marked))
    sizes[box[0]] = (parts == largest).sum(axis=(1, 2))
    if len(sizes) > 1 and (sizes[0] or sizes[-1]):
        raise Skip(CUT_LEVEL)
    return float(np.average(np.arange(len(sizes)), weights=sizes))


def planes_at_level(
    voxels: NDArray[np.float32],
    spacing: tuple[float, float, float],
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    count: int,
    step_mm: float,
) -> list[Plane]:
    """Planes at the center of L3 (the first of the list) and around it, `step_mm` apart, `count` at most.

    Left out: planes beyond the volume, and those in which no muscle is marked, which were not labeled (there is no
    abdominal plane without muscle). `voxels` (slice, row, column), HU; `spacing` likewise, mm; `masks` by the names of
    `TISSUES` and `LEVEL`. Where masks overlap, muscle goes before subcutaneous before visceral fat.

    Raises `Skip`: NO_LEVEL (no L3, or not labeled at its center), CUT_LEVEL, CUT_MUSCLE (at its center, where its area
    would be that of a part; fat of large patients often reaches out of the field).
    """
    middle = level_slice(masks)
    muscle = masks[TISSUES[0]][middle]
    if muscle[[0, -1]].any() or muscle[:, [0, -1]].any():
        raise Skip(CUT_MUSCLE)
    steps = sorted((k - (count - 1) // 2 for k in range(count)), key=abs)
    wanted = list(dict.fromkeys(middle + round(k * step_mm / spacing[0]) for k in steps))
    planes = []
    for index in wanted:
        if not 0 <= index < len(voxels) or not masks[TISSUES[0]][index].any():
            if index == middle:
                raise Skip(NO_LEVEL)
            continue
        label = np.zeros(voxels.shape[1:], np.uint8)
        for tissue in reversed(range(len(TISSUES))):
            label[masks[TISSUES[tissue]][index]] = tissue + 1
        hu = np.clip(np.rint(voxels[index]), AIR, 3071).astype(np.int16)
        planes.append(Plane(hu, label, (spacing[1], spacing[2])))
    return planes
