"""Masks from a DICOM SEG on the grid of a volume.

Frames are unpacked one at a time with pydicom: a segmentation of a hundred structures is many gigabytes once unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, SegmentationStorage

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import malformed_is, read_dicom
from datamodules.dicom.headers import Floats
from datamodules.dicom.volume import MAX_MASK_BYTES, MAX_SIDE, Reason, Unreadable, Volume

# Newer than the dictionary of pydicom 3.0.
_LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")

# A frame may lie off the grid by this share of a voxel, at each of its corners.
GRID_TOLERANCE = 0.1

Code = tuple[str, str]  # coding scheme and value, as ("SCT", "78961009")


@dataclass(frozen=True)
class _Frame:
    """Where one frame lies: `segment` number (0 for a label map, which holds all), `affine` of its pixels (column, row,
    0, 1) -> LPS mm, and the SOP instances that it was drawn on (maybe none)."""

    segment: int
    affine: Floats
    sources: frozenset[str]


def read_segmentation(
    path: Path, volume: Volume, wanted: Set[str] | None, codes: Mapping[Code, str]
) -> dict[str, NDArray[np.bool_]]:
    """Masks by segment label or by name of `codes`, those in `wanted` or all. See `datamodules.labels.read_labels`."""
    data = read_dicom(path)
    with malformed_is(Reason.LABELS_UNREADABLE):
        if data.get("SOPClassUID") not in (SegmentationStorage, _LABEL_MAP_STORAGE):
            raise Unreadable(Reason.LABELS_UNREADABLE)
        segments = {int(item.SegmentNumber): item for item in data.SegmentSequence}
        if len(segments) < len(data.SegmentSequence):  # two of one number: whose a frame is cannot be told
            raise Unreadable(Reason.LABELS_UNREADABLE)
        labels = {n: codes.get(_type_of(item)) or str(item.SegmentLabel).strip() for n, item in segments.items()}
        labels.pop(0, None)  # the background, which label maps may describe
        kind = str(data.SegmentationType).upper()
        full = int(data.MaximumFractionalValue) if kind == "FRACTIONAL" else 1
        rows, columns = int(data.Rows), int(data.Columns)
        frames = _frames(data, label_map=kind == "LABELMAP")
    labels = {number: label for number, label in labels.items() if wanted is None or label in wanted}
    if max(rows, columns) > MAX_SIDE or len(set(labels.values())) * volume.voxels.size > MAX_MASK_BYTES:
        raise Unreadable(Reason.TOO_LARGE)
    masks = {label: np.zeros(volume.voxels.shape, np.bool_) for label in labels.values()}
    kept = [index for index, frame in enumerate(frames) if frame.segment in labels or kind == "LABELMAP"]
    if not kept:
        return masks
    sources = frozenset[str]().union(*(frames[index].sources for index in kept))
    if sources and volume.sop_instance_uids and sources.isdisjoint(volume.sop_instance_uids):
        raise Unreadable(Reason.LABELS_MISMATCH)
    views = _views([frames[index] for index in kept], data, volume)
    with Decoder() as decoder:
        for index, view, pixels in zip(kept, views, decoder.frames(data, path, kept), strict=True):
            for number, label in labels.items():
                if kind == "LABELMAP":
                    view.of(masks[label])[...] |= pixels == number
                elif number == frames[index].segment:
                    if full < 1 or not np.isin(pixels, (0, full)).all():
                        raise Unreadable(Reason.FRACTIONS)
                    view.of(masks[label])[...] |= pixels == full
    return masks


def _type_of(segment: Dataset) -> Code:
    """The coded type of a segment, such as the liver; nothing of it where it has none."""
    item = (segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    return str(item.get("CodingSchemeDesignator") or ""), str(item.get("CodeValue") or "")


def lies_on(path: Path, volume: Volume) -> bool:
    """Whether all frames lie on slices of a volume, whose voxels are not looked at. Raises as `read_segmentation`."""
    data = read_dicom(path)
    with malformed_is(Reason.LABELS_UNREADABLE):
        frames = _frames(data, label_map=str(data.SegmentationType).upper() == "LABELMAP")
    try:
        _views(frames, data, volume)
    except Unreadable as refusal:
        if refusal.reason is not Reason.LABELS_MISMATCH:
            raise
        return False
    return True


@dataclass(frozen=True)
class _View:
    """Where the pixels of a frame lie in an array (slice, row, column)."""

    index: int
    first: tuple[int, int]
    size: tuple[int, int]
    transpose: bool
    flip: tuple[bool, bool]

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A writable view of `mask` with the rows and columns of the frame."""
        row, column = self.first
        part = mask[self.index, row : row + self.size[0], column : column + self.size[1]]
        part = part[:: -1 if self.flip[0] else 1, :: -1 if self.flip[1] else 1]
        return part.T if self.transpose else part


def _views(frames: Sequence[_Frame], data: Dataset, volume: Volume) -> list[_View]:
    """Find the frames in the volume. Raises `Unreadable`: LABELS_MISMATCH, LABELS_UNREADABLE.

    Frames that name no image and leave out every second slice were drawn on a series of thicker slices.
    """
    with malformed_is(Reason.LABELS_UNREADABLE):
        shape, frame_of_reference = (int(data.Rows), int(data.Columns)), str(data.get("FrameOfReferenceUID") or "")
    views = [_view(frame, shape, volume, frame_of_reference) for frame in frames]
    slices = np.unique([view.index for view in views])
    if len(slices) > 1 and np.diff(slices).min() > 1 and not any(frame.sources for frame in frames):
        raise Unreadable(Reason.LABELS_MISMATCH)
    return views


def _view(frame: _Frame, shape: tuple[int, int], volume: Volume, frame_of_reference: str) -> _View:
    """Find the frame in the volume. Raises `Unreadable`: LABELS_MISMATCH."""
    to_voxel = np.linalg.inv(volume.affine) @ frame.affine
    turn = np.round(to_voxel[:2, :2]).astype(int)
    ends = np.array([(c, r, 0, 1) for c in (0, shape[1] - 1) for r in (0, shape[0] - 1)], float)
    exact = (to_voxel @ ends.T)[:3]
    if not (np.isfinite(exact).all() and np.abs(exact).max() < 2**31):
        raise Unreadable(Reason.LABELS_MISMATCH)
    start = np.round(to_voxel[:3, 3])
    on_grid = np.concatenate([turn @ ends.T[:2] + start[:2, None], np.full((1, 4), start[2])])
    transpose = turn[0, 0] == 0
    right_angles = np.abs(turn).tolist() in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    low, high = on_grid.min(axis=1).astype(int), on_grid.max(axis=1).astype(int)
    inside = (low >= 0).all() and (high < np.array(volume.voxels.shape)[::-1]).all()
    if not (right_angles and inside) or np.abs(exact - on_grid).max() > GRID_TOLERANCE:
        raise Unreadable(Reason.LABELS_MISMATCH)
    _check_source(frame, int(low[2]), volume, frame_of_reference)
    size = (shape[1], shape[0]) if transpose else shape
    return _View(
        index=int(low[2]),
        first=(int(low[1]), int(low[0])),
        size=size,
        transpose=bool(transpose),
        flip=(bool(turn[1].sum() < 0), bool(turn[0].sum() < 0)),
    )


def _check_source(frame: _Frame, index: int, volume: Volume, frame_of_reference: str) -> None:
    """A frame belongs to a slice that it refers to, or else at least to the same frame of reference."""
    referred = frame.sources.intersection(volume.sop_instance_uids)
    if referred:
        if volume.sop_instance_uids[index] not in referred:
            raise Unreadable(Reason.LABELS_MISMATCH)
    elif volume.frame_of_reference_uid and frame_of_reference != volume.frame_of_reference_uid:
        raise Unreadable(Reason.LABELS_MISMATCH)


def _frames(data: FileDataset, label_map: bool) -> list[_Frame]:
    """All frames, from the functional groups of each and, where it has none, from the shared ones."""
    shared = data.SharedFunctionalGroupsSequence[0] if data.get("SharedFunctionalGroupsSequence") else Dataset()
    groups = data.PerFrameFunctionalGroupsSequence
    if len(groups) != int(data.get("NumberOfFrames") or 1):
        raise Unreadable(Reason.LABELS_UNREADABLE)

    def item(group: Dataset, name: str) -> Dataset:
        sequence = group.get(name) or shared.get(name)
        if not sequence:
            raise Unreadable(Reason.LABELS_UNREADABLE)
        return sequence[0]  # type: ignore[no-any-return]

    found = []
    for group in groups:
        axes = np.array(item(group, "PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        spacing = np.array(item(group, "PixelMeasuresSequence").PixelSpacing, float).reshape(2)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1], affine[:3, 2] = axes[0] * spacing[1], axes[1] * spacing[0], np.cross(*axes)
        affine[:3, 3] = np.array(item(group, "PlanePositionSequence").ImagePositionPatient, float).reshape(3)
        sources = [
            str(source.ReferencedSOPInstanceUID)
            for derivation in group.get("DerivationImageSequence") or ()
            for source in derivation.get("SourceImageSequence") or ()
        ]
        number = 0 if label_map else int(item(group, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        found.append(_Frame(number, affine, frozenset(sources)))
    return found
