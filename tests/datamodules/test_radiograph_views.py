"""Which film of a study: made to be looked at before raw, and of the wanted view by all that tells it."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForProcessing

from datamodules.dicom import Reason, Unreadable
from tests.datamodules.test_radiograph import FILM, read, write_radiograph

NEGATIVE = FILM.max() - FILM
RAW = {"PresentationIntentType": "FOR PROCESSING"}


def code(value: str, scheme: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, "a view"
    return made


@pytest.mark.parametrize(
    "raw",
    [RAW, {"SOPClassUID": DigitalXRayImageStorageForProcessing}, RAW | {"InstanceNumber": 1}],
    ids=["intent", "class", "first"],
)
def test_a_film_to_be_looked_at_goes_before_a_raw_one(raw, tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, **raw)
    write_radiograph(tmp_path / "b.dcm", FILM, ViewPosition="AP", InstanceNumber=2)
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())


def test_raw_films_alone_are_refused(tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, **RAW)
    write_radiograph(tmp_path / "b.dcm", FILM, ViewPosition="LL", PatientOrientation=["P", "F"])
    with pytest.raises(Unreadable) as refused:
        read(tmp_path)
    assert refused.value.reason is Reason.FOR_PROCESSING


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "", "PatientOrientation": ["P", "F"]},
        {"ViewPosition": None, "PatientOrientation": ["F", "A"]},
        {"ViewPosition": "RL"},
        {"ViewPosition": "THORAX LAT"},
        {"ViewPosition": "PA", "PatientOrientation": ["A", "F"]},
        {"ViewPosition": "", "ViewCodeSequence": [code("R-10236", "SRT")]},
        {"ViewPosition": "", "ViewCodeSequence": [code("399198007", "SCT")]},
        {"ViewPosition": "LLO"},
    ],
    ids=["orientation", "turned", "position", "words", "contradicted", "code", "SNOMED", "oblique"],
)
def test_a_film_of_another_view_is_no_frontal_one(tags, tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, **tags)
    with pytest.raises(Unreadable) as refused:
        read(tmp_path)
    assert refused.value.reason is Reason.NO_SUCH_VIEW
    write_radiograph(tmp_path / "b.dcm", FILM, ViewPosition="", InstanceNumber=9)
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "THORAX PA"},
        {"ViewPosition": "LLD"},
        {"ViewPosition": "", "ViewCodeSequence": [code("272479007", "SCT")]},
        {"ViewPosition": "ERECT", "ViewCodeSequence": [code("1", "99OWN")]},
    ],
)
def test_a_frontal_film_is_read_however_it_is_said(tags, tmp_path):
    assert read(write_radiograph(tmp_path / "film.dcm", FILM, **tags)) == pytest.approx(FILM / FILM.max())


def test_films_of_two_patients_are_no_study(tmp_path):
    for name, patient in (("a", "P1"), ("b", "P1"), ("c", "")):
        write_radiograph(tmp_path / f"{name}.dcm", FILM, PatientID=patient)
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())
    write_radiograph(tmp_path / "d.dcm", FILM, PatientID="P2", ViewPosition="LL")
    with pytest.raises(Unreadable) as refused:
        read(tmp_path)
    assert refused.value.reason is Reason.SEVERAL_PATIENTS


def test_a_film_without_preamble_is_read(tmp_path):
    path = write_radiograph(tmp_path / "a.dcm", FILM)
    path.write_bytes(path.read_bytes()[132:])
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())


def test_a_picture_made_from_another_goes_last(tmp_path):
    write_radiograph(tmp_path / "a.dcm", NEGATIVE, ImageType=["DERIVED", "SECONDARY"])
    write_radiograph(tmp_path / "b.dcm", FILM, ImageType=["DERIVED", "PRIMARY"], InstanceNumber=2)
    assert read(tmp_path) == pytest.approx(FILM / FILM.max())


@pytest.mark.parametrize("orientation", [["P", "F"], ["F", "P"], ["A", "H"]])
def test_a_study_of_lateral_films_takes_those(orientation, tmp_path):
    lying = {"PF": FILM, "FP": FILM.T, "AH": FILM[::-1, ::-1]}["".join(orientation)]
    write_radiograph(tmp_path / "a.dcm", np.ascontiguousarray(lying), PatientOrientation=orientation, ViewPosition="")
    write_radiograph(tmp_path / "b.dcm", NEGATIVE)
    assert read(tmp_path, view="lateral") == pytest.approx(FILM / FILM.max())


def test_a_lateral_view_of_which_the_axes_are_frontal_contradicts_itself(tmp_path):
    write_radiograph(tmp_path / "a.dcm", FILM, ViewPosition="LL")
    with pytest.raises(Unreadable) as refused:
        read(tmp_path, view="lateral")
    assert refused.value.reason is Reason.INVALID_GEOMETRY
