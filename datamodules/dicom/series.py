"""Choose the series of a study, and read it.

1. Considered: images of the wanted modality (`listing`). Left out: other modalities (SEG, SR, plans), screenshots
   without a position (dose reports), and by the value of ImageType localizers and projections.
2. Images of one series are parted by size, spacing, orientation, frame of reference and phase (`stacks`, `phases`).
3. The stack that the labels name is read and no other; where they name none, the only one whose grid they have
   (`fitting`); without labels, the first by rank, unless another acquisition of the study fits as well (`choice`).
4. Nothing is left out of a scan without a word. Where the rest of it lies in another stack or in a file that cannot
   be parsed, it is refused. Where the first stack cannot be read, only a scan of the same kind and extent stands in.
   What else lay in the study is counted in `Volume.remarks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.dicom.choice import check_whole, ranked, refuse_other_acquisitions, remarks_on, stands_in
from datamodules.dicom.decoder import Decoder
from datamodules.dicom.fitting import Fits, fitting, shape_of, volume_of
from datamodules.dicom.geometry import affine_of, check_axial, in_plane, slots
from datamodules.dicom.headers import NO_NUMBER, Header
from datamodules.dicom.listing import list_images
from datamodules.dicom.pixels import read_planes, settle
from datamodules.dicom.references import NONE, References
from datamodules.dicom.remarks import Remark
from datamodules.dicom.stacks import Stack, stacks_of
from datamodules.dicom.volume import MAX_VOXELS, Reason, Unreadable, Volume

# A picture of so many mm may lie within the trunk, as those of the spine and of the heart do, or as one that was cut
# out of a larger field: no air has to be in view. It may be wider than its field by rounding.
_ZOOMED, _ROUNDING = 250.0, 1.05


def read_series(
    folder: Path,
    *,
    modality: str = "CT",
    decoder: Decoder | None = None,
    references: References = NONE,
    fits: Fits | None = None,
) -> Volume:
    """The diagnostic axial series below `folder`, in HU, in the standard orientation (see `Volume`).

    Headers of all files are parsed once, without pixels; pixels are decoded of the chosen series alone. Subfolders are
    searched, links are not followed. The same SOP instance or position twice with the same pixels counts once.
    Sagittal and coronal acquisitions and tilted gantries are refused: an area measured on their planes is not the area
    of an axial cut. A single slice is read if it has a thickness. The package's `Reason` lists all that is refused.
    `references` are those of the study's labels (`references.read_references`): the series that they name is read.
    Where they name none, it is the only one whose grid the labels fit; without labels (no `fits`) the first by rank, of
    one acquisition. `decoder` is one that is open already: its child process takes most of a second to start.

    Raises `Unreadable`; never anything else for what a file may contain.
    """
    listing = list_images(folder, modality)
    stacks = stacks_of(listing.images)
    candidates, chosen = _candidates(stacks, references, fits)
    refusal: Unreadable | None = None
    with nullcontext(decoder) if decoder else Decoder() as opened:
        for stack in candidates:
            if refusal is not None and not stands_in(stack, candidates[0]):
                continue
            try:
                foreign = listing.lost_beside(stack.slices)
                check_whole(stack, stacks)
                volume = _read_stack(stack, opened)
            except Unreadable as why:
                refusal = refusal or why
                continue
            if not references and fits is None:
                refuse_other_acquisitions(candidates)
            beside = {Remark.STOOD_IN: int(refusal is not None), Remark.FOREIGN: foreign}
            return _remarked(volume, remarks_on(stack, stacks, chosen) | beside)
    raise refusal or Unreadable(Reason.ONLY_LOCALIZERS)


def _remarked(volume: Volume, found: Mapping[Remark, int]) -> Volume:
    every = {**volume.remarks, **found}
    return replace(volume, remarks={remark: number for remark, number in every.items() if number})


def _candidates(stacks: list[Stack], references: References, fits: Fits | None) -> tuple[list[Stack], Remark]:
    """The stacks that may be read, the best first, and what tells which it is."""
    found = ranked(stacks, references)
    if references or fits is None or len(found) == 1:
        return found, Remark.NAMED_SERIES if references else Remark.FIRST_SERIES
    found = fitting(found, fits)
    return found, Remark.FITTING_SERIES if len(found) == 1 else Remark.FIRST_SERIES


def _read_stack(stack: Stack, decoder: Decoder) -> Volume:
    """Order, decode and orient. Raises `Unreadable`."""
    if stack.problem is not None:
        raise Unreadable(stack.problem)
    by_slice = slots(stack.slices) if stack.placed else [list(stack.slices)]
    ordered = [copies[0] for copies in by_slice]
    check_axial(ordered)
    affine, shape = affine_of(ordered), shape_of(ordered)
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise Unreadable(Reason.TOO_LARGE)
    named = [(image.sop_instance, image.frame) for image in ordered if image.sop_instance]
    if len(set(named)) < len(named):
        raise Unreadable(Reason.CONFLICTING_DUPLICATES)
    first, turn = ordered[0], in_plane(ordered[0])
    voxels = np.empty(shape, np.float32)
    rescales = []
    planes = read_planes([image for copies in by_slice for image in copies], decoder)
    for index, copies in enumerate(by_slice):
        plane = next(planes)
        for _ in copies[1:]:
            if not plane.same(next(planes)):
                raise Unreadable(Reason.CONFLICTING_DUPLICATES)
        plane.into(voxels[index], turn)
        rescales.append(plane.rescale)
    confirmed = settle(voxels, rescales, whole_picture=not _is_zoomed(first))
    return replace(
        volume_of(ordered, voxels, affine),
        series_number=first.series_number if first.series_number < NO_NUMBER else None,
        remarks={Remark.NO_AIR: int(not confirmed)},
    )


def _is_zoomed(image: Header) -> bool:
    """Whether a picture is small enough to lie within the body, and its header knows the field that it is of."""
    side = max(image.rows * image.spacing[0], image.columns * image.spacing[1])
    return image.field is not None and side <= min(image.field * _ROUNDING, _ZOOMED)
