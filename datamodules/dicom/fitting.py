"""Which series of a study labels were drawn on that name none: the only one whose grid is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from datamodules.dicom.geometry import affine_of, check_axial, in_plane, slots
from datamodules.dicom.headers import Floats, Header
from datamodules.dicom.stacks import Stack
from datamodules.dicom.volume import Reason, Unreadable, Volume

Fits = Callable[[Volume], bool]
"""Whether labels lie on the grid of a volume, of which there are no voxels but their number."""


def fitting(stacks: Sequence[Stack], fits: Fits) -> list[Stack]:
    """The stack whose grid labels have; all stacks where none has it, as the labels then match none of them.

    Raises `Unreadable`: LABELS_FIT_SEVERAL, and as `fits`.
    """
    found = [stack for stack in stacks if (volume := _without_voxels(stack)) is not None and fits(volume)]
    if len(found) > 1:
        raise Unreadable(Reason.LABELS_FIT_SEVERAL)
    return found or list(stacks)


def shape_of(ordered: Sequence[Header]) -> tuple[int, int, int]:
    """Slices, rows and columns in the standard orientation."""
    first = ordered[0]
    shape = (first.columns, first.rows) if in_plane(first).transpose else (first.rows, first.columns)
    return (len(ordered), *shape)


def volume_of(ordered: Sequence[Header], voxels: np.ndarray, affine: Floats) -> Volume:
    """What the headers of slices, ordered, one a position, say of their volume. Its series number is left open."""
    first = ordered[0]
    framed = {image.frame_of_reference for image in ordered}
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return Volume(
        voxels=voxels,
        affine=affine,
        spacing=(float(lengths[2]), float(lengths[1]), float(lengths[0])),
        series_instance_uid=first.series,
        # Where there are several, they were made anew for files or acquisitions and mean nothing.
        frame_of_reference_uid=first.frame_of_reference if len(framed) == 1 else "",
        sop_instance_uids=tuple(image.sop_instance for image in ordered),
    )


def _without_voxels(stack: Stack) -> Volume | None:
    """The volume of a stack from its headers alone; None where they make none that can be read."""
    if stack.problem is not None or not stack.placed:
        return None
    ordered = [copies[0] for copies in slots(stack.slices)]
    try:
        check_axial(ordered)
        affine = affine_of(ordered)
    except Unreadable:
        return None
    return volume_of(ordered, np.broadcast_to(np.float32(0), shape_of(ordered)), affine)
