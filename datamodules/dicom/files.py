"""From a folder, or one file, to parsed DICOM headers; nothing here decodes pixels.

A file is written by whoever sent it, so: links are never followed, what is not a regular file is never opened, sizes
are bounded before anything is read, a file is parsed only if it has the DICOM marker or begins as a data set does, and
whatever pydicom raises for a malformed file becomes a `Reason`.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, PrivateTransferSyntaxes
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from datamodules.dicom.beginning import read_beginning
from datamodules.dicom.volume import MAX_FILE_BYTES, MAX_FILES, Reason, Unreadable

# What pydicom 3 and its decoders raise for malformed files, found by fuzzing them. RuntimeError is what its decoders
# raise when a plug-in fails, and holds RecursionError (sequences nested without end) and NotImplementedError;
# ValueError holds UnicodeDecodeError. Only calls into pydicom stand under it.
PYDICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_PIXEL_DATA = 0x7FE00010
UNDEFINED = 2**32 - 1  # the length of a value that says itself where it ends
# Where a header ends: pixels as doubles, as floats, as integers. A set, since two tags compare slowly.
_AT_PIXELS = frozenset((0x7FE00008, 0x7FE00009, _PIXEL_DATA))


@dataclass(frozen=True)
class PixelValue:
    """Where the value of PixelData lies in a file: byte `offset`, `length` (2^32 - 1 where undefined), and its form."""

    offset: int
    length: int
    vr: str
    syntax: UID


def is_compressed(syntax: UID) -> bool:
    """Whether pixels are in frames of their own. A transfer syntax that pydicom does not know is newer: they are."""
    return not syntax.is_transfer_syntax or bool(syntax.is_encapsulated)


@contextmanager
def malformed_is(reason: Reason) -> Iterator[None]:
    """Turn what pydicom raises for a malformed file into `Unreadable(reason)`; keep the calls inside to pydicom's own.

    The original message may quote a path or a patient's name, so it is not shown in the traceback; for the same reason
    pydicom's warnings are dropped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except PYDICOM_ERRORS:
            raise Unreadable(reason) from None


def regular_files(folder: Path) -> list[Path]:
    """All regular files below `folder`, sorted, without following links.

    Raises `Unreadable`: FOLDER_MISSING, TOO_LARGE (more than MAX_FILES).
    """
    if not folder.is_dir():
        raise Unreadable(Reason.FOLDER_MISSING)
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        found += [Path(parent, name) for name in names if stat.S_ISREG(os.lstat(os.path.join(parent, name)).st_mode)]
        if len(found) > MAX_FILES:
            raise Unreadable(Reason.TOO_LARGE)
    return sorted(found)


def check_file(path: Path) -> None:
    """Refuse what must not be opened. Raises `Unreadable`: FOLDER_MISSING, OUTSIDE_FOLDER, TOO_LARGE."""
    if not path.is_file():
        raise Unreadable(Reason.FOLDER_MISSING)
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise Unreadable(Reason.OUTSIDE_FOLDER)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Unreadable(Reason.TOO_LARGE)


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, with its marker or without."""
    try:
        with malformed_is(Reason.CORRUPT), path.open("rb") as file:
            return read_beginning(file) is not None
    except Unreadable:
        return False


def read_dicom(path: Path, tags: Sequence[str | int] | None = None) -> FileDataset:
    """Parse one file: the header's `tags` alone, without pixels, or all of it if None.

    Raises `Unreadable`: CORRUPT, TOO_LARGE, and those of `check_file`.
    """
    check_file(path)
    with malformed_is(Reason.CORRUPT):
        with path.open("rb") as file:
            found = read_beginning(file)
            if found is None:
                raise Unreadable(Reason.CORRUPT)
            if found.syntax == DeflatedExplicitVRLittleEndian:
                _check_inflated_size(file)
        only: dict[str, Any] = {} if tags is None else {"stop_before_pixels": True, "specific_tags": list(tags)}
        data = dcmread(path, force=True, **only)  # it is DICOM, if without preamble
        if found.bare:  # pydicom guesses the same from the first element, and does not say so
            data.file_meta.TransferSyntaxUID = found.syntax
        return data


def read_head(path: Path, tags: Sequence[int]) -> tuple[Dataset, PixelValue | None] | None:
    """The header's `tags` of a file of `regular_files`, and where its pixels lie; None if it is no DICOM.

    As `read_dicom`, but the file is opened once and its header is gone through once, which is most of what a slice
    costs. None for the pixels where there are none, or where their place in the file says nothing (deflated files).
    Raises `Unreadable`: CORRUPT, TOO_LARGE, UNKNOWN_SYNTAX, UNSUPPORTED_COMPRESSION (a vendor's own transfer syntax).
    """
    with malformed_is(Reason.CORRUPT), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
            raise Unreadable(Reason.TOO_LARGE)
        begins = read_beginning(file)
        if begins is None:
            return None
        syntax = begins.syntax
        if syntax == DeflatedExplicitVRLittleEndian or syntax in PrivateTransferSyntaxes:
            return read_dicom(path, tags), None
        form = _header_form(syntax)
        found: list[tuple[int, str, int]] = []

        def stop(tag: Any, vr: str | None, length: int) -> bool:
            if tag in _AT_PIXELS:
                found.append((int(tag), vr or "OW", length))
            return tag in _AT_PIXELS

        data: Dataset = read_dataset(
            file, form.is_implicit_VR, form.is_little_endian, stop_when=stop, specific_tags=list(tags)
        )
        start = file.tell()
        if not found and begins.storage:  # a file that was cut may have lost it
            data.SOPClassUID = begins.storage
    if not found or found[0][0] != _PIXEL_DATA:
        return data, None
    _, vr, length = found[0]
    if begins.bare and length == UNDEFINED:
        raise Unreadable(Reason.UNKNOWN_SYNTAX)
    head = 12 if not form.is_implicit_VR and vr in EXPLICIT_VR_LENGTH_32 else 8
    return data, PixelValue(start + head, length, vr, syntax)


def _header_form(syntax: UID) -> UID:
    """The transfer syntax of the header alone: of one that is newer than pydicom it is explicit, as of all since 2003.

    Raises `Unreadable`: CORRUPT, UNSUPPORTED_COMPRESSION for a vendor's own, whose header may have any form.
    """
    if syntax.is_transfer_syntax:
        return syntax
    if not syntax.is_valid:
        raise Unreadable(Reason.CORRUPT)
    if syntax.is_private:
        raise Unreadable(Reason.UNSUPPORTED_COMPRESSION)
    return ExplicitVRLittleEndian


def _check_inflated_size(file: BinaryIO) -> None:
    """A deflated file may hold a thousand times its size, and pydicom inflates it at once: measure it first.

    `file` is where its data set begins.
    """
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    block = file.read(2**16)
    while block and not inflater.eof:
        total += len(inflater.decompress(block, 2**20))
        if total > MAX_FILE_BYTES:
            raise Unreadable(Reason.TOO_LARGE)
        block = inflater.unconsumed_tail or file.read(2**16)
