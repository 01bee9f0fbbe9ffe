"""Where a level is: a coordinate of the patient, or the center of a mask, as a position among the slices of a scan.

`level_mm` is the coordinate along the body axis, in the patient's system of DICOM (z, mm, growing to the head), of the
center of the vertebra; for a scan without tilt it is the third number of ImagePositionPatient, and what viewers show as
slice location, of the slice through that center. In NIfTI it is the third coordinate of the affine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from datamodules.ct.planes import Skip, center_of
from datamodules.dicom import Volume
from datamodules.dicom.geometry import MAX_TILT_DEGREES

ABSENT = math.nan
NOT_A_NUMBER = "the table's level_mm is neither empty nor a number in mm"
OUTSIDE = "the table's level_mm lies outside the scan, as that of another series does; a scan without it has none"
TILTED = "the scan is tilted, so that the table's level_mm names no slice; a mask of the vertebra would"
UNFIT = (NOT_A_NUMBER, OUTSIDE, TILTED)


def axis_of(volume: Volume) -> NDArray[np.float64]:
    """What tells `level_mm` of a scan's slices, [4]: z of the first one's middle, z from one to the next, the number of
    slices, and the tilt of the planes in degrees."""
    slices, rows, columns = volume.voxels.shape
    first, last = (volume.affine @ ((columns - 1) / 2, (rows - 1) / 2, index, 1) for index in (0, slices - 1))
    step = (last[2] - first[2]) / (slices - 1) if slices > 1 else volume.spacing[0]
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    tilt = math.degrees(math.acos(min(abs(normal[2]) / float(np.linalg.norm(normal)), 1.0)))
    return np.array([first[2], step, slices, tilt])


def position_on(axis: NDArray[np.float64], level_mm: float) -> float:
    """The position among slices, 0 the lowest, of a coordinate on an axis of `axis_of`.

    Raises `Skip`: OUTSIDE (by more than half a slice), TILTED.
    """
    first, step, slices, tilt = axis.tolist()
    if tilt > MAX_TILT_DEGREES:
        raise Skip(TILTED)
    position = (level_mm - first) / step
    if not -0.5 <= position <= slices - 0.5:
        raise Skip(OUTSIDE)
    return float(position)


def position_of(level_mm: float, volume: Volume) -> float:
    """The position of a coordinate among the slices of a volume. Raises as `position_on`."""
    return position_on(axis_of(volume), level_mm)


def level_mm_of(position: float, volume: Volume) -> float:
    """The coordinate of a position among slices, of the middle of that plane, mm."""
    first, step, *_ = axis_of(volume).tolist()
    return float(first + position * step)


def position_in(mask: NDArray[np.bool_], *, labeled: bool) -> float:
    """The position of a vertebra's center by its mask; ABSENT where it has no voxel although others are labeled.

    Raises `Skip` as `center_of`: cut by the end of the scan, or not labeled.
    """
    return ABSENT if labeled and not mask.any() else center_of(mask)
