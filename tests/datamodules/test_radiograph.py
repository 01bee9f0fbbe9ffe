"""Radiographs: whichever way a film was stored, the same picture comes back."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from datamodules.dicom import Decoder, Reason, Unreadable
from datamodules.dicom.radiograph import read_radiograph

FILM = np.arange(6 * 4, dtype=np.uint16).reshape(6, 4) * 10  # no symmetry: every orientation looks different
# Each stored form of a film whose columns grow to the patient's left and rows to the feet: what it says, how it lies.
ORIENTATIONS = {
    ("L", "F"): lambda film: film,
    ("R", "F"): lambda film: film[:, ::-1],
    ("L", "H"): lambda film: film[::-1],
    ("R", "H"): lambda film: film[::-1, ::-1],
    ("F", "L"): lambda film: film.T,
    ("H", "L"): lambda film: film.T[:, ::-1],
    ("F", "R"): lambda film: film.T[::-1],
    ("H", "R"): lambda film: film.T[::-1, ::-1],
}


def write_radiograph(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    """A digital radiograph as DICOM; `tags` add to or replace what a chest film has, None leaves one out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    data = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": meta.MediaStorageSOPClassUID, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "DX", "PatientOrientation": ["L", "F"], "ViewPosition": "PA",
        "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 12,
        "HighBit": 11, "PixelRepresentation": 0, "Rows": pixels.shape[0], "Columns": pixels.shape[1],
        "PixelData": np.ascontiguousarray(pixels, np.uint16).tobytes(), **tags,
    }  # fmt: skip
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def read(path: Path, **options: object) -> np.ndarray:
    with Decoder() as decoder:
        return read_radiograph(path, decoder, **options)


@pytest.mark.parametrize("says", ORIENTATIONS)
def test_each_of_the_eight_orientations_gives_the_same_picture(says, tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", ORIENTATIONS[says](FILM), PatientOrientation=list(says))
    assert read(path) == pytest.approx(FILM / FILM.max())


def test_bones_are_bright_whatever_the_file_calls_white(tmp_path):
    inverted = write_radiograph(tmp_path / "film.dcm", 4095 - FILM, PhotometricInterpretation="MONOCHROME1")
    assert read(inverted) == pytest.approx(FILM / FILM.max(), abs=1e-3)


def test_the_files_window_is_used(tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", FILM, WindowCenter=100, WindowWidth=100)
    picture = read(path)
    assert (picture[FILM < 45] == 0).all() and (picture[FILM > 155] == 1).all()


def test_a_lateral_film_has_its_back_on_the_right(tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", FILM[:, ::-1], PatientOrientation=["A", "F"], ViewPosition="LL")
    assert read(path, view="lateral") == pytest.approx(FILM / FILM.max())


def test_of_a_study_the_frontal_film_is_taken(tmp_path):
    write_radiograph(tmp_path / "a.dcm", FILM[::-1], ViewPosition="LL")
    write_radiograph(tmp_path / "b.dcm", FILM, ViewPosition="AP")
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())


def test_a_film_that_does_not_say_how_it_lies_is_read_only_on_request(tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", FILM, PatientOrientation=None)
    with pytest.raises(Unreadable) as refused:
        read(path)
    assert refused.value.reason is Reason.MISSING_GEOMETRY
    assert read(path, unmarked_upright=True) == pytest.approx(FILM / FILM.max())


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PatientOrientation": ["L", "R"]}, Reason.INVALID_GEOMETRY),
        ({"PatientOrientation": ["L", "Q"]}, Reason.INVALID_GEOMETRY),
        ({"Modality": "CT"}, Reason.NO_SUCH_MODALITY),
        ({"NumberOfFrames": 2}, Reason.MULTIFRAME),
        ({"PhotometricInterpretation": "RGB"}, Reason.NOT_GRAYSCALE),
        ({"PixelData": b"\0\0"}, Reason.TRUNCATED),
        ({"Rows": None}, Reason.CORRUPT),
    ],
)
def test_what_cannot_be_read_has_a_reason(tags, reason, tmp_path):
    with pytest.raises(Unreadable) as refused:
        read(write_radiograph(tmp_path / "film.dcm", FILM, **tags))
    assert refused.value.reason is reason
