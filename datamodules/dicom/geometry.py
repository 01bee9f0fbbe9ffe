"""Order and orientation of the slices of one series, from the values in its headers alone.

Axes: the patient's LPS coordinates, mm: x to the left, y to the back, z to the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom.headers import Floats, Header
from datamodules.dicom.volume import Reason, Unreadable

# An area on a plane that is tilted by a is larger by 1 / cos(a): 3.5 % at this angle. CT of the trunk is written at 0.
MAX_OBLIQUE_DEGREES = 15.0
# No gantry tilts by more than 30 degrees; from here on, planes are nearer to coronal or sagittal ones.
_NEAR_AXIAL_DEGREES = 45.0
# The slices of a tilted gantry move along the table and not along their normal. Below this it is rounding.
MAX_TILT_DEGREES = 1.0
# Two slices nearer than this are one. Scanners write positions to a tenth or a thousandth of a millimeter.
SAME_POSITION_MM = 0.02
# A distance between slices may differ from the others by this much: two positions rounded to a tenth, or 5 %.
SPACING_TOLERANCE_MM = 0.101
SPACING_TOLERANCE = 0.05


@dataclass(frozen=True)
class InPlane:
    """How to turn a stored image into rows to the back and columns to the left: transpose, then flip."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., row, column) as stored -> (..., row, column) in the standard orientation; a view."""
        if self.transpose:
            image = image.swapaxes(-1, -2)
        return image[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def is_axial(header: Header) -> bool:
    """Whether the slice normal is within MAX_OBLIQUE_DEGREES of the axis from feet to head."""
    return abs(float(header.normal[2])) >= math.cos(math.radians(MAX_OBLIQUE_DEGREES))


def is_near_axial(header: Header) -> bool:
    """Whether the planes are nearer to axial than to sagittal or coronal ones, as those of a tilted gantry are."""
    return abs(float(header.normal[2])) >= math.cos(math.radians(_NEAR_AXIAL_DEGREES))


def in_plane(header: Header) -> InPlane:
    """The turn that brings an axial image to the standard orientation, from the larger components of its axes."""
    along_column_index, along_row_index = header.orientation
    transpose = abs(along_column_index[0]) < abs(along_column_index[1])
    to_left, to_back = (along_row_index, along_column_index) if transpose else (along_column_index, along_row_index)
    return InPlane(bool(transpose), flip_rows=bool(to_back[1] < 0), flip_columns=bool(to_left[0] < 0))


def heights(headers: Sequence[Header]) -> Floats:
    """Position of each slice along the normal, mm, growing to the head: the order of the file names means nothing."""
    normal = headers[0].normal * np.sign(headers[0].normal[2])
    return np.array([header.position @ normal for header in headers])


def slots(headers: Sequence[Header]) -> list[list[Header]]:
    """The headers by slice, from inferior to superior; a slice that is stored more than once has several."""
    along = heights(headers)
    found: list[list[Header]] = []
    last = -np.inf
    for index in np.argsort(along, kind="stable"):
        if along[index] - last > SAME_POSITION_MM:
            found.append([])
            last = along[index]
        found[-1].append(headers[index])
    return found


def check_axial(ordered: Sequence[Header]) -> None:
    """Refuse planes that are not axial. Raises `Unreadable`: GANTRY_TILT where the gantry made them so, OBLIQUE,
    NOT_AXIAL.

    The file says a tilt in GantryDetectorTilt, and a stack shows it: its slices move along the table. A single slice
    shows none.
    """
    first = ordered[0]
    off_axis = abs(float(first.normal[2])) < math.cos(math.radians(MAX_TILT_DEGREES))
    said = off_axis and is_near_axial(first) and abs(first.tilt) > MAX_TILT_DEGREES
    if said and (len(ordered) == 1 or not is_axial(first)):
        raise Unreadable(Reason.GANTRY_TILT)
    if is_axial(first):
        return
    if is_near_axial(first) and len(ordered) > 1:
        _check_sheared(np.stack([header.position for header in ordered]), first.normal * np.sign(first.normal[2]))
    raise Unreadable(Reason.OBLIQUE if is_near_axial(first) else Reason.NOT_AXIAL)


def affine_of(ordered: Sequence[Header]) -> Floats:
    """Affine of the slices, ordered, one a position, after `in_plane`: (column, row, slice, 1) -> LPS mm.

    Raises `Unreadable`: GANTRY_TILT, MISSING_SLICES, UNEVEN_SPACING, MISSING_THICKNESS (of a single slice).
    """
    first = ordered[0]
    step = _step(ordered)
    turn = in_plane(first)
    across, down = first.orientation[0] * first.spacing[1], first.orientation[1] * first.spacing[0]
    counts = [first.columns, first.rows]
    origin = first.position.copy()
    if turn.transpose:
        across, down, counts = down, across, counts[::-1]
    if turn.flip_columns:
        origin, across = origin + across * (counts[0] - 1), -across
    if turn.flip_rows:
        origin, down = origin + down * (counts[1] - 1), -down
    affine = np.eye(4)
    affine[:3] = np.stack([across, down, step, origin], axis=1)
    return affine


def _step(ordered: Sequence[Header]) -> Floats:
    """Vector from a slice to the next, mm."""
    first, last = ordered[0], ordered[-1]
    normal: Floats = first.normal * np.sign(first.normal[2])
    if len(ordered) == 1:
        if first.thickness is None:
            raise Unreadable(Reason.MISSING_THICKNESS)
        return normal * first.thickness
    positions = np.stack([header.position for header in ordered])
    _check_sheared(positions, normal)
    _check_even(np.diff(positions, axis=0) @ normal)
    return np.asarray((last.position - first.position) / (len(ordered) - 1))


def _check_sheared(positions: Floats, normal: Floats) -> None:
    """Refuse slices that do not move along their normal. Raises `Unreadable`: GANTRY_TILT, INVALID_GEOMETRY."""
    steps = np.diff(positions, axis=0)
    sideways = steps - np.outer(steps @ normal, normal)
    # Of the whole stack: over one step of a thin slice, rounding alone looks like a tilt. A table that jumped sideways
    # and came back shows in a single step.
    travel = positions[-1] - positions[0]
    drift = travel - (travel @ normal) * normal
    slant = np.tan(np.radians(MAX_TILT_DEGREES))
    if np.linalg.norm(drift) > slant * (travel @ normal) + SPACING_TOLERANCE_MM:
        raise Unreadable(Reason.GANTRY_TILT)
    if (np.linalg.norm(sideways, axis=1) > slant * (steps @ normal) + SPACING_TOLERANCE_MM).any():
        raise Unreadable(Reason.INVALID_GEOMETRY)


def is_even(distances: Floats) -> bool:
    """Whether distances from slice to slice, mm, are alike; of none they are."""
    if not distances.size:
        return True
    usual, tolerance = _usual(distances)
    return bool(np.abs(distances - usual).max() <= tolerance)


def _usual(distances: Floats) -> tuple[float, float]:
    """The usual distance, and by how much another may differ from it."""
    usual = float(np.median(distances))
    return usual, max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * usual)


def _check_even(distances: Floats) -> None:
    """Refuse a stack with a hole, or one whose distances vary."""
    if is_even(distances):
        return
    usual, tolerance = _usual(distances)
    # The commonest hole is one lost slice: all distances are whole multiples of the shortest.
    shortest = float(distances.min())
    multiples = np.round(distances / shortest)
    if np.abs(distances - multiples * shortest).max() <= tolerance and usual <= shortest + tolerance:
        raise Unreadable(Reason.MISSING_SLICES)
    raise Unreadable(Reason.UNEVEN_SPACING)
