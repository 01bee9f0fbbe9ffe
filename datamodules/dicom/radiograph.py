"""Radiographs in DICOM (DX, CR) as pictures: upright, never mirrored, bones bright, whatever the file's own form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DigitalXRayImageStorageForProcessing

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import is_dicom, malformed_is, read_dicom, regular_files
from datamodules.dicom.gray import gray_levels
from datamodules.dicom.remarks import Remark
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
    "ViewCodeSequence", "PatientOrientation", "InstanceNumber", "PatientID", "SOPInstanceUID", "BodyPartExamined",
    "AnatomicRegionSequence",
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
    uid: str = ""
    part: frozenset[str] = frozenset()  # words of the body part; none where the file does not say

    @classmethod
    def of(cls, path: Path) -> Film | None:
        """From the header; None for another modality. Raises `Unreadable`: CORRUPT and those of reading a file."""
        head = read_dicom(path, TAGS)
        with malformed_is(Reason.CORRUPT):
            if str(head.get("Modality") or "").strip().upper() not in MODALITIES:
                return None
            words, view = _words(head.get("ViewPosition")), _view(head)
            ranks = [rank for rank, word in enumerate(WORDS["frontal"]) if word in words]
            rank = min(ranks, default=len(WORDS["frontal"]) + (not view))
            kinds = [str(each).strip().upper() for each in head.get("ImageType") or ()]
            number = int(head.get("InstanceNumber") or 0)
            secondary, patient = kinds[1:2] == ["SECONDARY"], str(head.get("PatientID") or "").strip()
            uid, part = str(head.get("SOPInstanceUID") or path), frozenset(_words(_part(head)))
            return cls(_processing(head), secondary, rank, number, path.name, path, view, patient, uid, part)

    @property
    def alike(self) -> tuple[bool, bool, int]:
        """What films have in common of which only their numbers say which is read."""
        return self.processing, self.secondary, self.rank


def read_radiograph(
    path: Path,
    decoder: Decoder,
    *,
    unmarked_upright: bool = False,
    view: str = "frontal",
    body_part: Sequence[str] | None = None,
) -> NDArray[np.float32]:
    """A radiograph as float32 [rows, columns], 0 dark (air) to 1 bright (bone), in the standard orientation.

    `path` is a file, or a folder of which `chosen_film` is taken. Without PatientOrientation the picture is taken as it
    is if `unmarked_upright`, else it is not read: a network trained on sideways films learns where the film lay. Raises
    `Unreadable`: MULTIFRAME, NOT_GRAYSCALE, MISSING_GEOMETRY, INVALID_GEOMETRY, TOO_LARGE and those of `chosen_film`,
    of `gray_levels`, of reading and of decoding.
    """
    file, _ = chosen_film(path, view=view, body_part=body_part)
    return read_film(file, decoder, view=view, unmarked_upright=unmarked_upright)


def read_film(file: Path, decoder: Decoder, *, view: str, unmarked_upright: bool) -> NDArray[np.float32]:
    """The film of a file that was chosen: see `read_radiograph`."""
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


def chosen_film(
    path: Path, *, view: str = "frontal", body_part: Sequence[str] | None = None
) -> tuple[Path, dict[Remark, int]]:
    """The film of a study that is read, or the one in a file, and what is to know of the choice.

    It is of the `view` ("frontal", PA before AP, or "lateral"), which ViewPosition, the code of the view or
    PatientOrientation tells, and of the `body_part`: one of these words is in BodyPartExamined, else in the meaning of
    the code of the anatomic region. A film that says no body part is taken if no other one is. Of films that are alike
    the lowest InstanceNumber is, and it is remarked. Raises `Unreadable`: NO_DICOM, NO_SUCH_MODALITY, SEVERAL_PATIENTS,
    NO_SUCH_VIEW, NO_SUCH_PART, SEVERAL_PARTS (where the study does not declare which), FOR_PROCESSING.
    """
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
    films = _of_part(films, body_part)
    film = min(films, key=lambda each: (each.alike, each.number, each.name, each.path))
    if film.processing:
        raise Unreadable(Reason.FOR_PROCESSING)
    alike = {each.uid for each in films if each.alike == film.alike}
    return film.path, {Remark.FIRST_FILM: 1} if len(alike) > 1 else {}


def _of_part(films: list[Film], body_part: Sequence[str] | None) -> list[Film]:
    """The films of a body part; of one that none says, those that say nothing."""
    if body_part is None:
        if len({film.part for film in films if film.part}) > 1:
            raise Unreadable(Reason.SEVERAL_PARTS)
        return films
    wanted = {word for each in body_part for word in _words(each)}
    found = [film for film in films if film.part & wanted] or [film for film in films if not film.part]
    if not found:
        raise Unreadable(Reason.NO_SUCH_PART)
    return found


def _processing(head: Dataset) -> bool:
    """Whether the film is raw; CR does not say."""
    intent = str(head.get("PresentationIntentType") or "").strip().upper()
    return intent == "FOR PROCESSING" or head.get("SOPClassUID") == DigitalXRayImageStorageForProcessing


def _words(value: object) -> set[str]:
    return set(re.split(r"[^A-Z]+", str(value or "").upper())) - {""}


def _part(head: Dataset) -> str:
    """What the file says of the body part; its code may stand in a list, as of chest and abdomen."""
    said = str(head.get("BodyPartExamined") or "").strip()
    return said or " ".join(str(each.get("CodeMeaning") or "") for each in head.get("AnatomicRegionSequence") or ())


def _view(head: Dataset) -> str:
    """The view by all that says it, of which one word is enough that a film is no frontal one."""
    words = _words(head.get("ViewPosition"))
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
