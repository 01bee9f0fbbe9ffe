"""Choose the diagnostic series of a folder, and read it.

The rule, in this order:
1. Considered: files with the DICOM marker, of the wanted modality, with one image each. Left out: other modalities
   (SEG, SR, plans), screenshots without a position (dose reports), and by the value of ImageType localizers and
   projections. A file that cannot be parsed is left out: where it belonged to the series, the hole shows.
2. Images of one series that differ in size, spacing, orientation or frame of reference are stacks of their own.
3. Axial stacks first; then original before derived images; then the most distinct positions (so the many images of
   bolus tracking at one position count as one); then the lowest series number, then the lowest UID.
4. The first stack that can be read is the answer. When none can, the reason is that of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import regular_files
from datamodules.dicom.geometry import affine_of, in_plane, is_axial, slots
from datamodules.dicom.headers import Header, read_header
from datamodules.dicom.pixels import read_planes, settle
from datamodules.dicom.volume import MAX_VOXELS, Reason, Unreadable, Volume


def read_series(folder: Path, *, modality: str = "CT", decoder: Decoder | None = None) -> Volume:
    """The diagnostic axial series below `folder`, in HU, in the standard orientation (see `Volume`).

    Headers of all files are parsed once, without pixels; pixels are decoded of the chosen series alone. Subfolders are
    searched, links are not followed. The same SOP instance or position twice with the same pixels counts once.
    Sagittal and coronal acquisitions and tilted gantries are refused: an area measured on their planes is not the area
    of an axial cut. A single slice is read if it has a thickness. The package's `Reason` lists all that is refused.

    `decoder` is one that is open already: its child process takes most of a second to start, which over a cohort of
    compressed series would be most of the reading.

    Raises `Unreadable`; never anything else for what a file may contain.
    """
    candidates = sorted(_stacks(_images(folder, modality)), key=_rank)
    first: Unreadable | None = None
    with nullcontext(decoder) if decoder else Decoder() as opened:
        for stack in candidates:
            try:
                return _read_stack(stack, opened)
            except Unreadable as refusal:
                first = first or refusal
    raise first or Unreadable(Reason.ONLY_LOCALIZERS)


def _images(folder: Path, modality: str) -> list[Header]:
    """Headers of all images of the modality. Raises `Unreadable` where there is none."""
    images: list[Header] = []
    faults: list[Reason] = []
    others = False  # a DICOM file of another modality, or no image
    for path in regular_files(folder):
        try:
            header = read_header(path, modality)
        except Unreadable as refusal:
            faults.append(refusal.reason)
            continue
        if header is None:
            others = True
        else:
            images.append(header)
    damaged = [reason for reason in faults if reason is not Reason.NO_DICOM]
    if not images:
        raise Unreadable(damaged[0] if damaged else Reason.NO_SUCH_MODALITY if others else Reason.NO_DICOM)
    return images


def _stacks(images: Sequence[Header]) -> list[list[Header]]:
    """The slices by series and geometry. An image without usable geometry spoils its series: it is in its own stack
    and in all others of the series, whose reason it then gives."""
    stacks: list[list[Header]] = []
    for image in images:
        if image.slice_like and image.problem is None:
            for stack in stacks:
                if _same_stack(stack[0], image):
                    stack.append(image)
                    break
            else:
                stacks.append([image])
    for image in images:
        if image.slice_like and image.problem is not None:
            of_series = [stack for stack in stacks if stack[0].series == image.series]
            for stack in of_series:
                stack.append(image)
            if not of_series:
                stacks.append([image])
    return stacks


def _same_stack(one: Header, other: Header) -> bool:
    """Whether two images with valid geometry can be slices of one volume."""
    return (
        (one.series, one.frame_of_reference, one.rows, one.columns)
        == (other.series, other.frame_of_reference, other.rows, other.columns)
        and all(abs(a - b) <= 1e-3 * abs(b) for a, b in zip(one.spacing, other.spacing, strict=True))
        and bool(np.abs(one.orientation - other.orientation).max() <= 1e-2)
    )


def _rank(stack: list[Header]) -> tuple[bool, bool, int, int, str]:
    """Sort key of a stack, the best first."""
    first = stack[0]
    placed = [image for image in stack if image.problem is None]
    positions = len(slots(placed)) if placed and is_axial(first) else len(stack)
    return (bool(placed) and not is_axial(first), not first.original, -positions, first.series_number, first.series)


def _read_stack(stack: list[Header], decoder: Decoder) -> Volume:
    """Order, decode and orient. Raises `Unreadable`."""
    for image in stack:
        if image.problem is not None:
            raise Unreadable(image.problem)
    if not is_axial(stack[0]):
        raise Unreadable(Reason.NOT_AXIAL)
    by_slice = slots(stack)
    ordered = [copies[0] for copies in by_slice]
    first = ordered[0]
    affine = affine_of(ordered)
    if len(ordered) * first.rows * first.columns > MAX_VOXELS:
        raise Unreadable(Reason.TOO_LARGE)
    instances = tuple(image.sop_instance for image in ordered)
    named = [instance for instance in instances if instance]
    if len(set(named)) < len(named):
        raise Unreadable(Reason.CONFLICTING_DUPLICATES)
    turn = in_plane(first)
    shape = (first.columns, first.rows) if turn.transpose else (first.rows, first.columns)
    voxels = np.empty((len(ordered), *shape), np.float32)
    rescales = []
    planes = read_planes([image for copies in by_slice for image in copies], decoder)
    for index, copies in enumerate(by_slice):
        plane = next(planes)
        for _ in copies[1:]:
            if not plane.same(next(planes)):
                raise Unreadable(Reason.CONFLICTING_DUPLICATES)
        plane.into(voxels[index], turn)
        rescales.append(plane.rescale)
    settle(voxels, rescales)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return Volume(
        voxels=voxels,
        affine=affine,
        spacing=(float(lengths[2]), float(lengths[1]), float(lengths[0])),
        series_instance_uid=first.series,
        frame_of_reference_uid=first.frame_of_reference,
        sop_instance_uids=instances,
    )
