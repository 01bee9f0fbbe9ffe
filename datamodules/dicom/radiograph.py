"""Radiographs in DICOM (DX, CR) as pictures: upright, never mirrored, bones bright, whatever the file's own form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DigitalXRayImageStorageForProcessing

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import is_dicom, malformed_is, read_dicom, regular_files
from datamodules.dicom.gray import gray_levels
from datamodules.dicom.volume import MAX_SIDE, Reason, Unreadable

MODALITIES = ("DX", "CR")
# By view, where the column index grows to in the standard orientation (left, back), and all that it may grow to in a
# file; the row index grows to the feet.
SIDEWARD = {"frontal": ("L", "LR"), "lateral": ("P", "AP")}
VIEWS = tuple(SIDEWARD)
DOWNWARD = "F"
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "F": "H", "H": "F"}
# Words of ViewPosition: the standard's terms and what consoles write. Of a patient on the side (LLD, RLD) the view is
# frontal.
WORDS = {
    "frontal": ("PA", "AP", "LLD", "RLD", "FRONTAL"),  # the preferred first
    "lateral": ("LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "ML", "LM"),
    "other": ("RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL", "OBLIQUE", "XC", "CC", "MLO", "AXIAL", "TANGENTIAL"),
}
TAGS = (
    "SpecificCharacterSet", "SOPClassUID", "Modality", "ImageType", "PresentationIntentType", "ViewPosition",
    "ViewCodeSequence", "PatientOrientation", "InstanceNumber", "PatientID",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Film:
    """A film of a study; of two the lower one is preferred."""

    processing: bool  # raw, as the detector gives it: not made to be looked at
    secondary: bool  # made from another picture
    rank: int  # of its view: PA, AP, those of a patient on the side, one that does not say
    number: int
    name: str
    path: Path
    view: str = ""  # frontal, lateral, other; empty where the file does not say
    patient: str = ""

    @classmethod
    def of(cls, path: Path) -> Film | None:
        """From the header; None for another modality. Raises `Unreadable`: CORRUPT and those of reading a file."""
        head = read_dicom(path, TAGS)
        with malformed_is(Reason.CORRUPT):
            if str(head.get("Modality") or "").strip().upper() not in MODALITIES:
                return None
            words, view = _words(head), _view(head)
            ranks = [rank for rank, word in enumerate(WORDS["frontal"]) if word in words]
            rank = min(ranks, default=len(WORDS["frontal"]) + (not view))
            kinds = [str(each).strip().upper() for each in head.get("ImageType") or ()]
            number = int(head.get("InstanceNumber") or 0)
            secondary, patient = kinds[1:2] == ["SECONDARY"], str(head.get("PatientID") or "").strip()
            return cls(_processing(head), secondary, rank, number, path.name, path, view, patient)


def read_radiograph(
    path: Path, decoder: Decoder, *, unmarked_upright: bool = False, view: str = "frontal"
) -> NDArray[np.float32]:
    """A radiograph as float32 [rows, columns], 0 dark (air) to 1 bright (bone), in the standard orientation.

    `path` is a file, or a folder of which a film of the `view` ("frontal", PA before AP, or "lateral") is taken, which
    ViewPosition, the code of the view or PatientOrientation tells. Without PatientOrientation the picture is taken as
    it is if `unmarked_upright`, else it is not read: a network trained on sideways films learns where the film lay.
    Raises `Unreadable`: NO_DICOM, NO_SUCH_MODALITY, SEVERAL_PATIENTS, NO_SUCH_VIEW, FOR_PROCESSING, MULTIFRAME,
    NOT_GRAYSCALE, MISSING_GEOMETRY, INVALID_GEOMETRY, TOO_LARGE and those of `gray_levels`, of reading and of decoding.
    """
    file = _chosen(path, view)
    data = read_dicom(file)
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
    axes = _axes(data, view, unmarked_upright)
    (stored,) = decoder.frames(data, file, [0])
    return upright(gray_levels(stored, data), *axes)


def _chosen(path: Path, view: str) -> Path:
    """The file to read."""
    files = [path] if path.is_file() else [each for each in regular_files(path) if is_dicom(each)]
    if not files:
        raise Unreadable(Reason.NO_DICOM)
    films = [film for file in files if (film := Film.of(file))]
    if not films:
        raise Unreadable(Reason.NO_SUCH_MODALITY)
    if len({film.patient for film in films if film.patient}) > 1:
        raise Unreadable(Reason.SEVERAL_PATIENTS)
    films = [film for film in films if film.view in (view, "")]
    if not films:
        raise Unreadable(Reason.NO_SUCH_VIEW)
    film = min(films)
    if film.processing:
        raise Unreadable(Reason.FOR_PROCESSING)
    return film.path


def _processing(head: Dataset) -> bool:
    """Whether the film is raw; CR does not say."""
    intent = str(head.get("PresentationIntentType") or "").strip().upper()
    return intent == "FOR PROCESSING" or head.get("SOPClassUID") == DigitalXRayImageStorageForProcessing


def _words(head: Dataset) -> set[str]:
    return set(re.split(r"[^A-Z]+", str(head.get("ViewPosition") or "").upper())) - {""}


def _view(head: Dataset) -> str:
    """The view by all that says it, of which one word is enough that a film is no frontal one."""
    words = _words(head)
    said = {view for view, known in WORDS.items() if words.intersection(known)} | _coded(head)
    side = next((each for each in _letters(head) if each in "LRAP"), "")
    said |= {view for view, (_, letters) in SIDEWARD.items() if side and side in letters}
    return next((view for view in ("lateral", "other", "frontal") if view in said), "")


def _coded(head: Dataset) -> set[str]:
    """The view by its code (CID 4010), where the file has one of these."""
    if not head.get("ViewCodeSequence"):
        return set()
    from pydicom.sr.codedict import Code, codes

    item, known = head.ViewCodeSequence[0], codes.cid4010
    code = Code(str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or ""), "")
    if code in (known.PosteroAnterior, known.AnteroPosterior, known.Frontal):
        return {"frontal"}
    if code in (known.LeftLateral, known.RightLateral, known.LateralProjection, known.Sagittal):
        return {"lateral"}
    return {"other"} if any(code == getattr(known, name) for name in known.dir()) else set()


def _letters(data: Dataset) -> list[str]:
    """The main directions of PatientOrientation, a letter each; empty where it says nothing."""
    value = data.get("PatientOrientation")
    letters = [str(each).strip().upper()[:1] for each in value] if value and not isinstance(value, str) else []
    return letters if any(letters) else []


def _axes(data: FileDataset, view: str, unmarked_upright: bool) -> tuple[str, str]:
    """Where the column index and the row index grow to: a letter each, of the main direction."""
    with malformed_is(Reason.CORRUPT):
        letters = _letters(data)
    standard, sides = SIDEWARD[view]
    if not letters:
        if unmarked_upright:
            return standard, DOWNWARD
        raise Unreadable(Reason.MISSING_GEOMETRY)
    if len(letters) != 2 or sorted(each in "FH" for each in letters) != [False, True]:
        raise Unreadable(Reason.INVALID_GEOMETRY)
    if not any(each in sides for each in letters if each):
        raise Unreadable(Reason.INVALID_GEOMETRY)
    return letters[0], letters[1]


def upright(picture: NDArray[np.float32], columns_to: str, rows_to: str) -> NDArray[np.float32]:
    """The picture in the standard orientation, from where its column and its row index grow to (L, R, A, P, F, H)."""
    if columns_to in "FH":
        picture, columns_to, rows_to = picture.T, rows_to, columns_to
    if rows_to != DOWNWARD:
        picture = picture[::-1]
    if columns_to not in [standard for standard, _ in SIDEWARD.values()]:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
