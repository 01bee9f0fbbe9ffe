"""What a DICOM SEG says of the images that it was drawn on: the series and the SOP instances that it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from datamodules.dicom.files import check_file, malformed_is, read_dicom
from datamodules.dicom.headers import Header
from datamodules.dicom.volume import Reason, Unreadable

_AT_TOP = ("SOPClassUID", "ReferencedSeriesSequence", "SourceImageSequence")
_BY_FRAME = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_NAMES_INSTANCE = frozenset(
    int(tag_for_keyword(name) or 0)
    for name in ("SourceImageSequence", "ReferencedInstanceSequence", "ReferencedImageSequence")
)


@dataclass(frozen=True)
class References:
    """SeriesInstanceUIDs and SOPInstanceUIDs that labels name; neither where they name nothing."""

    series: frozenset[str]
    instances: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.series or self.instances)

    def named(self, images: Iterable[Header]) -> int:
        """How many of the images are named: by their own UID, or where labels name none, by that of their series."""
        if self.instances:
            return sum(image.sop_instance in self.instances for image in images)
        return sum(image.series in self.series for image in images)


NONE = References(frozenset(), frozenset())


def read_references(path: Path) -> References:
    """The references of a SEG; `NONE` for labels of another form (NIfTI names no image).

    ReferencedSeriesSequence lists all images that an object refers to. Only where it is absent are the frames gone
    through, of which a large SEG has a hundred thousand. Raises `Unreadable`: FOLDER_MISSING, OUTSIDE_FOLDER,
    TOO_LARGE, LABELS_UNREADABLE.
    """
    if path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz")):
        return NONE
    check_file(path)
    try:
        found = _named(read_dicom(path, _AT_TOP))
        return found or _named(read_dicom(path, _BY_FRAME))
    except Unreadable as refusal:
        raise Unreadable(Reason.LABELS_UNREADABLE) if refusal.reason is Reason.CORRUPT else refusal from None


def _named(data: Dataset) -> References:
    with malformed_is(Reason.LABELS_UNREADABLE):
        listed = data.get("ReferencedSeriesSequence") or ()
        series = {str(item.SeriesInstanceUID) for item in listed if item.get("SeriesInstanceUID")}
        return References(frozenset(series), frozenset(_instances(data)))


def _instances(data: Dataset) -> Iterator[str]:
    """The SOP instances that are named in a data set and in all that lies in it."""
    for element in data:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if int(element.tag) in _NAMES_INSTANCE and item.get("ReferencedSOPInstanceUID"):
                yield str(item.ReferencedSOPInstanceUID)
            yield from _instances(item)
