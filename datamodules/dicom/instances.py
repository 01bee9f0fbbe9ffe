"""The whole headers of some images of a study, as an object that refers to them needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from datamodules.dicom.files import is_dicom, malformed_is, read_head, regular_files
from datamodules.dicom.volume import Reason, Unreadable

_SOP_INSTANCE = 0x00080018


def headers_of(folder: Path, instances: Sequence[str]) -> list[Dataset]:
    """The header without pixels of each of `instances` (SOPInstanceUID), in their order, from the files below a folder.

    Raises `Unreadable`: FOLDER_MISSING, TOO_LARGE, CORRUPT where the file of one is no longer there.
    """
    found: dict[str, Dataset] = {}
    wanted = set(instances)
    for path in regular_files(folder):
        if len(found) == len(wanted):
            break
        if (uid := _instance(path)) in wanted and uid not in found:
            with malformed_is(Reason.CORRUPT):
                found[uid] = dcmread(path, stop_before_pixels=True, force=True)
    if len(found) < len(wanted):
        raise Unreadable(Reason.CORRUPT)
    return [found[uid] for uid in instances]


def _instance(path: Path) -> str:
    """The SOPInstanceUID of a file; nothing of one that is no DICOM or is damaged."""
    if not is_dicom(path):
        return ""
    try:
        head = read_head(path, [_SOP_INSTANCE])
    except Unreadable:
        return ""
    return "" if head is None else str(head[0].get("SOPInstanceUID") or "")
