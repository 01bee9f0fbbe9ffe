"""How a DICOM file begins: with preamble and file meta information, as the standard asks, or without one or both.

Some scanners, planning systems and old archives write the data set alone, as it travels in a network. SimpleITK and
dcm2niix read such files too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import VR

_PREAMBLE, _MARKER = 128, b"DICM"
_META, _IDENTIFYING = 0x0002, 0x0008  # the groups with which a file and a data set begin
_LONGEST_FIRST = 2**10  # bytes of the first value of a data set: a length, a character set or an ImageType
_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)


@dataclass(frozen=True)
class Beginning:
    """`syntax`: the transfer syntax of the data set. `storage`: MediaStorageSOPClassUID, maybe empty. `bare`: whether
    the syntax was taken from the form of the first element, as no file meta information says it."""

    syntax: UID
    storage: str
    bare: bool


def read_beginning(file: BinaryIO) -> Beginning | None:
    """Read up to the data set; None for what is no DICOM. Raises as pydicom for a malformed file."""
    if file.read(_PREAMBLE + len(_MARKER))[_PREAMBLE:] != _MARKER:
        file.seek(0)
        if _first_group(file) is None:
            return None
    meta = Dataset()
    if _first_group(file) == (_META, "explicit"):
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != _META)
    storage = str(meta.get("MediaStorageSOPClassUID") or "")
    if syntax := meta.get("TransferSyntaxUID"):
        return Beginning(UID(syntax), storage, bare=False)
    form = _first_group(file)
    if form is None:
        raise ValueError("no data set follows")
    syntaxes = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian}
    return Beginning(syntaxes[form[1]], storage, bare=True)


def _first_group(file: BinaryIO) -> tuple[int, str] | None:
    """Group and form ("explicit", "implicit" or, big endian, "big") of the element at which a file stands; None where
    none with which a file or a data set begins is there."""
    start = file.tell()
    head = file.read(8)
    file.seek(start)
    if len(head) < 8:
        return None
    (little,), (big,) = struct.unpack("<H", head[:2]), struct.unpack(">H", head[:2])
    if little in (_META, _IDENTIFYING):
        if head[4:6] in _VRS:
            return little, "explicit"
        return (little, "implicit") if struct.unpack("<I", head[4:])[0] <= _LONGEST_FIRST else None
    return (big, "big") if big == _IDENTIFYING and head[4:6] in _VRS else None
