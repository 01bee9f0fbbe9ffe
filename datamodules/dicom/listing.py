"""The images of a folder, and the files in it that may be images but cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.dicom.files import regular_files
from datamodules.dicom.headers import Header, read_headers
from datamodules.dicom.volume import Reason, Unreadable

_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_HEAD = 512  # bytes of a file that tell text from a binary file


@dataclass(frozen=True)
class Listing:
    """`images` of the modality, one each. `damaged`: why and where a file could not be read that may be an image."""

    images: list[Header]
    damaged: list[tuple[Path, Reason]]

    def lost_beside(self, slices: Sequence[Header]) -> int:
        """How many files lie beside the slices that are no DICOM and none of them, for all that their names say.

        A damaged file may be one of the slices where it lies in a folder with one, or in a folder in which nothing can
        be read; and without a DICOM header only if it is named as they are, but for its numbers. Raises `Unreadable`
        for such a file: DAMAGED_BESIDE, TOO_LARGE.
        """
        own = {image.path.parent for image in slices}
        read = {image.path.parent for image in self.images}
        names = {_pattern(image.path) for image in slices}
        foreign = 0
        for path, reason in self.damaged:
            if path.parent not in own and path.parent in read:
                continue
            if reason is Reason.NO_DICOM and _pattern(path) not in names:
                foreign += 1
            else:
                raise Unreadable(Reason.TOO_LARGE if reason is Reason.TOO_LARGE else Reason.DAMAGED_BESIDE)
        return foreign


def _pattern(path: Path) -> str:
    """The name of a file without its numbers."""
    return re.sub(r"[\d.]+", "#", path.stem) + path.suffix.lower()


def list_images(folder: Path, modality: str) -> Listing:
    """Headers of all images of the modality below `folder`.

    Raises `Unreadable`: those of `regular_files`; where there is no image NO_DICOM, NO_SUCH_MODALITY or what is wrong
    with the first file; SEVERAL_PATIENTS.
    """
    images: list[Header] = []
    damaged: list[tuple[Path, Reason]] = []
    others = False  # a DICOM file of another modality, or no image
    for path in regular_files(folder):
        try:
            headers = read_headers(path, modality)
        except Unreadable as refusal:
            if refusal.reason is not Reason.NO_DICOM or named_as_image(path):
                damaged.append((path, refusal.reason))
            continue
        images += headers
        others = others or not headers
    if not images:
        faults = [reason for _, reason in damaged if reason is not Reason.NO_DICOM]
        raise Unreadable(faults[0] if faults else Reason.NO_SUCH_MODALITY if others else Reason.NO_DICOM)
    if len({image.patient for image in images if image.patient}) > 1:
        raise Unreadable(Reason.SEVERAL_PATIENTS)
    return Listing(images, damaged)


def named_as_image(path: Path) -> bool:
    """Whether a file that is no DICOM file has the name of one: an ending of DICOM's, or none (or a UID's last number)
    where it is no text. Hidden files are the file system's: macOS lays a `._x.dcm` beside each file that it copies.
    """
    ending = path.suffix.lower()
    if path.name.startswith("."):
        return False
    if ending in _DICOM_ENDINGS:
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return (not ending or ending[1:].isdecimal()) and (not head or b"\0" in head)
