"""Radiographs in DICOM (DX, CR) as pictures: upright, never mirrored, bones bright, whatever the file's own form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import is_dicom, malformed_is, read_dicom, regular_files
from datamodules.dicom.volume import MAX_SIDE, Reason, Unreadable

MODALITIES = ("DX", "CR")
FRONTAL = ("PA", "AP", "")  # ViewPosition, the preferred first; an empty one is not known to be lateral
# The standard: the column index grows to the patient's left (frontal) or back (lateral), the row index to the feet.
RIGHTWARD, DOWNWARD = ("L", "P"), "F"
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "F": "H", "H": "F"}


def read_radiograph(path: Path, decoder: Decoder, *, unmarked_upright: bool = False) -> NDArray[np.float32]:
    """A radiograph as float32 [rows, columns], 0 dark (air) to 1 bright (bone), in the standard orientation.

    `path` is a file, or a folder of which the frontal view is taken (PA before AP). Without PatientOrientation the
    picture is taken as it is if `unmarked_upright`, else it is not read: a network trained on sideways films learns
    where the film lay. Raises `Unreadable`: NO_DICOM, NO_SUCH_MODALITY, MULTIFRAME, NOT_GRAYSCALE, MISSING_GEOMETRY,
    INVALID_GEOMETRY, TOO_LARGE and those of reading and decoding a file.
    """
    data, file = _frontal(path)
    with malformed_is(Reason.CORRUPT):
        photometric = str(data.get("PhotometricInterpretation", "")).strip()
        frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
        largest = max(int(data.Rows), int(data.Columns))
    if frames > 1:
        raise Unreadable(Reason.MULTIFRAME)
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(Reason.NOT_GRAYSCALE)
    if largest > 2 * MAX_SIDE:
        raise Unreadable(Reason.TOO_LARGE)
    axes = _axes(data, unmarked_upright)
    (stored,) = decoder.frames(data, file, [0])
    with malformed_is(Reason.CORRUPT):
        values = np.asarray(apply_voi_lut(apply_modality_lut(stored, data), data), np.float32)
    low, high = float(values.min()), float(values.max())
    gray = (values - low) / (high - low) if high > low else np.zeros_like(values)
    if photometric == "MONOCHROME1":  # the lowest value is displayed white
        gray = 1 - gray
    return upright(gray, *axes)


def _frontal(path: Path) -> tuple[FileDataset, Path]:
    """The data set to read, and its file."""
    files = [path] if path.is_file() else [each for each in regular_files(path) if is_dicom(each)]
    if not files:
        raise Unreadable(Reason.NO_DICOM)
    ranked = []
    for file in files:
        head = read_dicom(file, ("Modality", "ViewPosition", "InstanceNumber"))
        with malformed_is(Reason.CORRUPT):
            view = str(head.get("ViewPosition") or "").strip().upper()
            if str(head.get("Modality") or "").strip().upper() in MODALITIES:
                rank = FRONTAL.index(view) if view in FRONTAL else len(FRONTAL)
                ranked.append((rank, int(head.get("InstanceNumber") or 0), file.name, file))
    if not ranked:
        raise Unreadable(Reason.NO_SUCH_MODALITY)
    file = min(ranked)[-1]
    return read_dicom(file), file


def _axes(data: FileDataset, unmarked_upright: bool) -> tuple[str, str]:
    """Where the column index and the row index grow to: a letter each, of the main direction."""
    with malformed_is(Reason.CORRUPT):
        value = data.get("PatientOrientation")
        letters = [str(each).strip().upper()[:1] for each in value] if value and not isinstance(value, str) else []
    if not any(letters):
        if unmarked_upright:
            return RIGHTWARD[0], DOWNWARD
        raise Unreadable(Reason.MISSING_GEOMETRY)
    if len(letters) != 2 or set(letters) - set(OPPOSITE) or sum(each in "FH" for each in letters) != 1:
        raise Unreadable(Reason.INVALID_GEOMETRY)
    return letters[0], letters[1]


def upright(picture: NDArray[np.float32], columns_to: str, rows_to: str) -> NDArray[np.float32]:
    """The picture in the standard orientation, from where its column and its row index grow to (L, R, A, P, F, H)."""
    if columns_to in "FH":
        picture, columns_to, rows_to = picture.T, rows_to, columns_to
    if rows_to != DOWNWARD:
        picture = picture[::-1]
    if columns_to not in RIGHTWARD:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
