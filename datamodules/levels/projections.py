"""Whole CT scans as two pictures along the body axis, small enough for any scanner's resolution to look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.segmentation.grid import mapping, resampled

Floats = NDArray[np.float32]
BODY_HU = -300.0  # above it is body: skin, fat and all else, but not lung, air or clothes
SLICES = 32  # brought to the coarse pixels at a time, so that no second copy of a scan is made


class Projections:
    """Frontal and sagittal maximum-intensity projection of a scan on a coarse grid.

    The scan is averaged to the coarse grid first and projected then: the maximum of raw voxels grows with noise and
    with thin slices. The sagittal one is that of a band about the middle of the body, in which the spine lies, since
    ribs and pelvis hide it elsewhere. Sources: Belharbi S et al., Comput Biol Med 2017;87:95-103 (level of L3 in
    frontal projections); Kanavati F et al., arXiv:1811.09244, 2018 (projections of bone, a map along the axis).

    Args:
        step_mm: height of a row along the body axis, mm.
        pixel_mm: width of a pixel in both pictures, mm.
        width: pixels of both pictures across, about the middle of the body.
        band_mm: width of the band that the sagittal picture is of, mm.
        window: the HU that become 0 and 1.
    """

    channels = 2

    def __init__(
        self,
        step_mm: float = 3.0,
        pixel_mm: float = 4.0,
        width: int = 80,
        *,
        band_mm: float = 90.0,
        window: Sequence[float] = (50.0, 700.0),
    ) -> None:
        if min(step_mm, pixel_mm, band_mm) <= 0 or width < 8:
            raise ValueError("projections: step_mm, pixel_mm and band_mm must be above 0, and width 8 or more")
        if len(window) != 2 or not window[0] < window[1]:
            raise ValueError("projections.window: must be two numbers in HU, the lower one first")
        self.step_mm, self.pixel_mm, self.width = float(step_mm), float(pixel_mm), int(width)
        self.band_mm, self.window = float(band_mm), (float(window[0]), float(window[1]))

    def settings(self) -> dict[str, Any]:
        """What decides on the pictures of a scan, as plain values."""
        return dict(vars(self))

    def __call__(self, hu: Floats, spacing: Sequence[float]) -> tuple[Floats, NDArray[np.float64]]:
        """The pictures float32 [2, rows, width], 0 to 1, frontal and sagittal, and [2], the scale and offset of rows.

        `hu` (slice, row, column), slices from inferior to superior, rows to the back, columns to the left; `spacing`
        likewise, mm. Row of the pictures = scale * slice + offset; the first row is the lowest, too.
        """
        places, shape = self._places(hu.shape, spacing)
        along = places[:1]
        coarse = np.concatenate(
            [self._across(hu[first : first + SLICES], spacing) for first in range(0, len(hu), SLICES)]
        )
        whole = np.concatenate([along, np.tile([1.0, 0.0], (2, 1))])
        coarse = resampled(coarse, whole, (shape[0], *coarse.shape[1:]))
        body = coarse > BODY_HU
        row, column = (_median(body.any(axis=0).sum(axis=axis)) for axis in (1, 0))
        reach = max(round(self.band_mm / self.pixel_mm / 2), 1)
        band = coarse[:, :, max(column - reach, 0) : column + reach + 1]
        views = [self._cut(coarse.max(axis=1), column), self._cut(band.max(axis=2), row)]
        return np.stack(views), along[0]

    def _places(self, shape: Sequence[int], spacing: Sequence[float]) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        new, places = mapping(shape, spacing, (self.step_mm, self.pixel_mm, self.pixel_mm))
        return places, new

    def _across(self, slab: Floats, spacing: Sequence[float]) -> Floats:
        """Some slices on the coarse pixels, each slice by itself."""
        places, shape = self._places(slab.shape, spacing)
        places[0] = (1.0, 0.0)
        return resampled(slab, places, (len(slab), *shape[1:]))

    def _cut(self, view: Floats, middle: int) -> Floats:
        """A picture [rows, width] about a column, within the window; 0 beyond the scan."""
        low, high = self.window
        scaled = np.clip((view - low) / (high - low), 0, 1).astype(np.float32)
        padded = np.pad(scaled, ((0, 0), (self.width, self.width)))
        first = self.width + middle - self.width // 2
        return padded[:, first : first + self.width]


def _median(counts: NDArray[np.int64]) -> int:
    """The place that halves the sum of counts; the middle where there are none."""
    total = counts.cumsum()
    return int(np.searchsorted(total, total[-1] / 2)) if total[-1] else len(counts) // 2
