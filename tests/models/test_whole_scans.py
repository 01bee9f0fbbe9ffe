"""Unlabeled CT in, at the site: a table, a SEG and an SR of each study, and a reason for each other one."""

import stat
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from pydicom import config, dcmread

from datamodules.ct_scans import CTScans
from datamodules.dicom import read_series
from datamodules.labels import read_labels
from models.body_composition import RESEARCH_USE, prado_2008, with_intermuscular
from models.body_composition.origin import Origin
from models.body_composition.whole_scans import CUT_LEVEL, CUT_MUSCLE, NO_FINDER, NO_LEVEL, Measuring
from models.level_finder import Level
from tests.datamodules.ct_files import SPACING, body, save, slices_of

SHAPE = (12, 24, 20)
ORIGIN = Origin(model="muscle", version="6842ee4a6f0f", errors={"muscle_area_cm2": 2.5})


def study(folder, accession, **headers):
    images = slices_of(body(*SHAPE))
    for image in images:
        image.AccessionNumber = accession
        image.StudyInstanceUID = f"1.2.3.{accession.encode().hex()[:8].translate(str.maketrans('abcdef', '123456'))}"
        for name, value in headers.items():
            setattr(image, name, value)
    return save(folder, images)


def segment(batch):
    mask = torch.zeros(batch["hu"].shape, dtype=torch.int64)
    mask[:, 6:12, 5:9], mask[:, 6:12, 10], mask[:, 14, 5:8] = 1, 2, 3
    return mask


def measuring(position=5.0, confidence=0.9, segment=segment, cut_off=prado_2008):
    def find(hu, spacing):
        return Level(position, confidence, 0.0 if position is not None else 0.9)

    return Measuring(segment, find, cut_off(), ORIGIN)


def rows(folder):
    return pd.read_csv(folder / "biomarkers.csv", dtype={"accession_id": str}).set_index("accession_id")


@pytest.fixture
def site(tmp_path):
    """Two studies in a folder of no particular layout."""
    study(tmp_path / "in" / "anything" / "a", "A-1", PatientSex="M", PatientSize="1.80")
    study(tmp_path / "in" / "b", "B/2")
    return tmp_path / "in"


def test_a_folder_becomes_a_table_with_what_is_known_of_the_model_beside(site, tmp_path):
    measuring().write(CTScans(str(site)), tmp_path / "out")
    found = rows(tmp_path / "out")
    area = SPACING[1] * SPACING[2] / 100
    one = found.loc["A-1"]
    assert one.muscle_area_cm2 == pytest.approx(24 * area, rel=1e-4)
    assert one.muscle_index == pytest.approx(24 * area / 1.8**2, rel=1e-4)
    assert (one.sarcopenia, one.sarcopenia_by) == (1, "Prado 2008")
    assert (one.level_slice, one.level_mm, one.level_confidence, one.level_by) == (5, 115.0, 0.9, "model")
    assert (one.subcutaneous_fat_cm2, one.visceral_fat_cm2) == pytest.approx((6 * area, 3 * area), rel=1e-4)
    assert one.muscle_area_cm2_error == 2.5 and np.isnan(one.visceral_fat_cm2_error)
    assert set(found.use) == {RESEARCH_USE} and set(found.model) == {"6842ee4a6f0f"}


def test_the_table_names_the_person_and_carries_the_follow_up_for_a_study_of_outcomes(site, tmp_path):
    lines = ["person_id,accession_id,sex,height_m,followup_days,event", "P7,a,M,1.80,400,1", "P7,b,M,1.80,30,0"]
    (site / "cohort.csv").write_text("\n".join(lines))
    (site / "anything").rename(site / "images")
    (site / "b").rename(site / "images" / "b")
    measuring().write(CTScans(str(site)), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert found[["person_id", "followup_days", "event"]].values.tolist() == [["P7", 400, 1], ["P7", 30, 0]]
    assert found.muscle_index.notna().all()


def test_without_a_height_there_is_an_area_and_neither_index_nor_sarcopenia(site, tmp_path):
    measuring().write(CTScans(str(site)), tmp_path / "out")
    one = rows(tmp_path / "out").loc["B/2"]
    assert one.muscle_area_cm2 > 0
    assert np.isnan([one.muscle_index, one.sarcopenia, one.height_m]).all()


def test_each_study_gets_a_segmentation_and_a_report_for_the_owner_alone(site, tmp_path):
    out = tmp_path / "out"
    measuring().write(CTScans(str(site)), out)
    assert sorted(path.name for path in (out / "seg").iterdir()) == ["A-1.dcm", "B%2F2.dcm"]
    volume = read_series(site / "b")
    back = read_labels(out / "seg" / "B%2F2.dcm", volume)
    expected = segment({"hu": torch.zeros(1, *SHAPE[1:])})[0].numpy() == 1
    assert back["skeletal_muscle"].any(axis=(1, 2)).nonzero()[0].tolist() == [5]
    np.testing.assert_array_equal(back["skeletal_muscle"][5], expected)
    report = dcmread(out / "sr" / "B%2F2.dcm")
    assert report.AccessionNumber == "B/2" and report.SeriesDescription == RESEARCH_USE
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*")} == {0o600, 0o700}


def test_the_page_shows_what_was_measured_and_says_what_it_is_for(site, tmp_path):
    measuring().write(CTScans(str(site)), tmp_path / "out")
    page = (tmp_path / "out" / "overlays.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and RESEARCH_USE in page and "://" not in page


def test_a_reader_corrects_the_level(site, tmp_path):
    (site / "levels.csv").write_text("accession,level_mm\nA-1,121\n")
    measuring().write(CTScans(str(site)), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert found.level_slice.to_dict() == {"A-1": 7, "B/2": 5}
    assert found.level_by.to_dict() == {"A-1": "reader", "B/2": "model"}
    assert np.isnan(found.level_confidence["A-1"])


@pytest.mark.parametrize(
    ("how", "reason"),
    [({"position": None}, NO_LEVEL), ({"position": 1.0}, CUT_LEVEL), ({"position": 10.9}, CUT_LEVEL),
     ({"segment": lambda batch: torch.ones(batch["hu"].shape, dtype=torch.int64)}, CUT_MUSCLE)],
)  # fmt: skip
def test_a_study_that_is_not_measured_has_a_reason_and_no_numbers(site, tmp_path, how, reason):
    out = tmp_path / "out"
    measuring(**how).write(CTScans(str(site)), out)
    found = rows(out)
    assert set(found.reason) == {reason}
    assert found.muscle_area_cm2.isna().all() and not (out / "seg").exists() and not (out / "sr").exists()
    assert reason in (out / "overlays.html").read_text()


def test_without_a_model_for_the_level_only_what_a_reader_says_is_measured(site, tmp_path):
    (site / "levels.csv").write_text("accession,level_mm\nA-1,121\n")
    Measuring(segment, None, prado_2008(), ORIGIN).write(CTScans(str(site)), tmp_path / "out")
    assert rows(tmp_path / "out").reason.fillna("").to_dict() == {"A-1": "", "B/2": NO_FINDER}


def test_fat_between_muscle_is_intermuscular_and_fat_around_it_is_not():
    mask, hu = np.zeros((20, 20), np.int64), np.full((20, 20), -100.0)
    mask[5:15, 5:9] = mask[5:15, 11:15] = 1
    hu[:, 10] = 40.0
    found = with_intermuscular(mask, hu, (1.0, 1.0))
    assert set(zip(*map(np.ndarray.tolist, np.nonzero(found == 4)), strict=True)) == {(row, 9) for row in range(5, 15)}


def test_the_outcomes_of_the_study_measure_with_its_modules(site, tmp_path):
    from models.body_composition.outcomes import BodyCompositionOutcomes

    module = SimpleNamespace(segment=segment, eval=lambda: None, parameters=lambda: iter([torch.zeros(1)]))
    BodyCompositionOutcomes(prado_2008()).predict(module, CTScans(str(site)), tmp_path / "out")
    assert set(rows(tmp_path / "out").reason) == {NO_FINDER}


def as_scanned(folder, accession, monkeypatch, **headers):
    """A study with header values that pydicom would not write."""
    with monkeypatch.context() as patch:
        patch.setattr(config.settings, "_writing_validation_mode", config.IGNORE)
        return study(folder, accession, **headers)


@pytest.mark.parametrize(
    ("accession", "headers", "named"),
    [("A" * 17, {}, "AccessionNumber"), ("A-3", {"PatientID": "P" * 65}, "PatientID"),
     ("A-3", {"StudyTime": "10:10:10"}, "StudyTime"), ("A-3", {"StudyDate": "20110230"}, "StudyDate"),
     ("A-3", {"PatientSex": "male"}, "PatientSex"),
     ("A-3", {"SpecificCharacterSet": "LATIN1"}, "SpecificCharacterSet")],
)  # fmt: skip
def test_a_study_that_no_dicom_object_can_name_is_left_out_and_the_others_are_measured(
    site, tmp_path, monkeypatch, accession, headers, named
):
    as_scanned(site / "c", accession, monkeypatch, **headers)
    measuring().write(CTScans(str(site)), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert f"the images' {named} is no valid value in DICOM" in found.reason[accession]
    assert found.muscle_area_cm2.notna().to_dict() == {"A-1": True, "B/2": True, accession: False}
    assert len([*(tmp_path / "out").rglob("*.dcm")]) == 4


@pytest.mark.parametrize("sets", ["", ["", "ISO 2022 IR 87"], "ISO_IR 192"])
def test_a_name_in_any_character_set_is_the_objects_name_too(tmp_path, sets):
    name = "Yamada^Tarou=山田^太郎" if sets else "Yamada^Tarou"
    study(tmp_path / "in", "A-1", SpecificCharacterSet=sets, PatientName=name)
    measuring().write(CTScans(str(tmp_path / "in")), tmp_path / "out")
    for kind in ("seg", "sr"):
        assert str(dcmread(tmp_path / "out" / kind / "A-1.dcm").PatientName) == name


def test_what_an_object_is_whole_without_is_left_out_of_it_where_it_is_not_valid(tmp_path, monkeypatch):
    source = as_scanned(tmp_path / "in", "A-1", monkeypatch, PatientAge="sixty", StudyDescription="D" * 65)
    measuring().write(CTScans(str(source)), tmp_path / "out")
    made = dcmread(tmp_path / "out" / "sr" / "A-1.dcm")
    assert "PatientAge" not in made and "StudyDescription" not in made


def test_an_accession_longer_than_a_files_name_may_be_has_its_files(site, tmp_path):
    long = "é" * 100  # 600 bytes once quoted
    (site / "images").mkdir()
    (site / "b").rename(site / "images" / long)
    (site / "cohort.csv").write_text(f"person_id,accession_id,sex,height_m\nP7,{long},M,1.80\n")
    measuring().write(CTScans(str(site)), tmp_path / "out")
    assert len([*(tmp_path / "out").rglob("*.dcm")]) == 2
