"""CT that nobody has labeled: which studies a folder, a table or a source holds, and why some are not read."""

import shutil

import numpy as np
import pytest

from datamodules.ct.cohort import NO_PERSON
from datamodules.ct.scan_folder import MIXED
from datamodules.ct.scans import ABSENT, CONTRAST, NO_CONTRAST, NO_SECONDS, OF_READER, OTHER_SECONDS, TOO_THICK
from datamodules.ct_scans import OTHER_VALUES, CTScans
from datamodules.dicom import Reason
from datamodules.levels.positions import NOT_A_NUMBER, OUTSIDE
from tests.datamodules.ct_files import body, save, slices_of
from tests.datamodules.ct_sites import SHAPE, nifti, site


def study(folder, number, **headers):
    images = slices_of(body(6, 24, 20))
    for image in images:
        image.AccessionNumber, image.StudyInstanceUID, image.PatientID = f"A-{number}", f"1.2.{number}", f"P{number}"
        for name, value in headers.items():
            setattr(image, name, value)
    return save(folder, images)


def given(start, image):
    return {"ContrastBolusAgent": "OMNIPAQUE", "ContrastBolusStartTime": start, "AcquisitionTime": image}


def reasons(data):
    return {scan.accession: scan.reason for scan in data.scans()}


def test_a_study_may_lie_in_folders_of_any_name_and_depth(tmp_path):
    study(tmp_path / "x" / "y" / "1", 1)
    study(tmp_path / "z", 2)
    data = CTScans(str(tmp_path))
    assert reasons(data) == {"A-1": "", "A-2": ""}
    assert data.persons() == 2


def test_a_study_without_an_accession_number_goes_by_its_uid(tmp_path):
    study(tmp_path / "1", 1, AccessionNumber="")
    assert reasons(CTScans(str(tmp_path))) == {"1.2.1": ""}


def test_studies_of_one_accession_number_go_by_their_uids(tmp_path):
    study(tmp_path / "1", 1)
    study(tmp_path / "2", 2, AccessionNumber="A-1")
    assert reasons(CTScans(str(tmp_path))) == {"1.2.1": "", "1.2.2": ""}


def test_studies_that_share_a_folder_are_not_told_apart_by_guessing(tmp_path):
    study(tmp_path / "1", 1)
    save(tmp_path / "1" / "within", slices_of(body(6, 24, 20)))
    assert MIXED in reasons(CTScans(str(tmp_path))).values()


@pytest.mark.parametrize("kept", [0, 140, 200, 400], ids="the first {} bytes".format)
def test_studies_whose_files_were_all_cut_are_counted(tmp_path, kept):
    study(tmp_path / "x" / "1", 1)
    for number in (2, 3):
        for path in study(tmp_path / "x" / str(number), number).iterdir():
            path.write_bytes(path.read_bytes()[:kept])
    (tmp_path / "x" / "2" / "notes.txt").write_text("sent twice")
    data = CTScans(str(tmp_path))
    damaged = Reason.CORRUPT.value
    assert reasons(data) == {"A-1": "", "x_2": damaged, "x_3": damaged}
    assert data.skipped == {damaged: 2}


@pytest.mark.parametrize(
    ("headers", "options", "reason"),
    [({"Modality": "MR"}, {}, Reason.NO_SUCH_MODALITY.value),
     ({"SliceThickness": 12.0}, {}, TOO_THICK),
     ({"SliceThickness": 12.0}, {"thickest_mm": 12.0}, ""),
     ({"ContrastBolusAgent": "OMNIPAQUE"}, {"contrast": False}, CONTRAST),
     ({"ContrastBolusAgent": "OMNIPAQUE"}, {"contrast": True}, ""),
     ({"ContrastBolusAgent": "None"}, {"contrast": True}, NO_CONTRAST),
     (given("100000", "100110.5"), {"contrast_seconds": [55, 90]}, ""),
     (given("235930", "000030"), {"contrast_seconds": [55, 90]}, ""),
     (given("100000", "100130.1"), {"contrast_seconds": [55, 90]}, OTHER_SECONDS),
     (given("100000", "100025"), {"contrast_seconds": [55, 90]}, OTHER_SECONDS),
     (given("100100", "100000"), {"contrast_seconds": [0, 90]}, OTHER_SECONDS),
     (given("", "100110"), {"contrast_seconds": [55, 90]}, NO_SECONDS),
     (given("100000", "100110"), {"contrast_seconds": None}, ""),
     (given("1000", "100110"), {"contrast_seconds": [55, 90]}, NO_SECONDS),
     (given("100000", "106110"), {"contrast_seconds": [55, 90]}, NO_SECONDS),
     ({}, {"contrast_seconds": [55, 90]}, NO_CONTRAST),
     (given("100000", "100110") | {"ContrastBolusAgent": "NONE"}, {"contrast_seconds": [55, 90]}, NO_CONTRAST),
     ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, {}, Reason.NOT_AXIAL.value)],
)  # fmt: skip
def test_what_the_study_is_not_for_has_a_reason(tmp_path, headers, options, reason):
    study(tmp_path / "1", 1, **headers)
    data = CTScans(str(tmp_path), **options)
    assert reasons(data) == {"A-1": reason}
    assert data.skipped == ({reason: 1} if reason else {}) and set(data.skipped) <= data.REASONS


@pytest.mark.parametrize(
    "seconds", [[55], [90, 55], [-5, 90], [55, 60, 90], 60, "59", ["55", "90"], [55, None], [float("nan"), 90]]
)
def test_a_range_of_seconds_is_two_numbers(tmp_path, seconds):
    with pytest.raises(ValueError, match=r"contrast_seconds: must be the shortest and the longest, as \[55, 90\]"):
        CTScans(str(tmp_path), contrast_seconds=seconds)


def test_scans_without_contrast_have_no_range_of_seconds(tmp_path):
    with pytest.raises(ValueError, match="contrast_seconds: is for scans with a contrast agent, and contrast is false"):
        CTScans(str(tmp_path), contrast=False, contrast_seconds=[55, 90])


@pytest.mark.parametrize(
    ("level", "position", "reason"),
    [
        ("106", 2.0, ""),
        ("none", None, ABSENT),
        ("None", None, ABSENT),
        ("900", None, OF_READER[OUTSIDE]),
        ("L3", None, OF_READER[NOT_A_NUMBER]),
    ],
)
def test_a_readers_level_is_a_place_in_this_scan(tmp_path, level, position, reason):
    study(tmp_path / "1", 1)
    (tmp_path / "levels.csv").write_text(f"accession,level_mm\nA-1,{level}\n")
    data = CTScans(str(tmp_path))
    (scan,) = data.scans()
    assert (scan.reason, scan.reader_level) == (reason, pytest.approx(position) if position else None)
    assert data.skipped == ({reason: 1} if reason else {}) and set(data.skipped) <= data.REASONS


@pytest.mark.parametrize(
    ("text", "mistake"),
    [("accession,mm\nA-1,106\n", "has no column level_mm"),
     ("accession,level_mm\nA-1,106\nA-1,107\n", "1 accessions twice"),
     ("accession,level_mm\nA-9,106\n", "1 accessions that the site does not have"),
     ("accession,level_mm\nA-1,\n", "levels.csv, row 1 below the header: level_mm is empty; give .* `none` where L3")],
)  # fmt: skip
def test_a_correction_of_nothing_is_a_mistake(tmp_path, text, mistake):
    study(tmp_path / "1", 1)
    (tmp_path / "levels.csv").write_text(text)
    with pytest.raises(ValueError, match=mistake):
        list(CTScans(str(tmp_path)).scans())


def test_a_table_says_more_of_a_person_than_the_header_and_may_leave_it_out(tmp_path):
    root = site(tmp_path, ["A", "B"])
    (root / "cohort.csv").write_text("person_id,accession_id,sex,height_m\nP1,A,M,1.81\nP2,B,,\n,C,F,1.6\n")
    one, two, three = CTScans(str(root)).scans()
    assert (one.reason, one.person["sex"], one.person["height_m"]) == ("", 1, 1.81)
    assert two.reason == "" and np.isnan([two.person["sex"], two.person["height_m"]]).all()
    assert three.reason == NO_PERSON


def test_of_follow_up_the_table_alone_tells_by_the_sites_own_columns(tmp_path):
    root, columns = site(tmp_path, ["A", "B"]), {"followup_days": "DAYS", "event": "DIED"}
    (root / "cohort.csv").write_text(
        "person_id,accession_id,sex,height_m,DAYS,DIED\nP1,A,M,1.81,400,1\nP1,B,M,1.81,,\n"
    )
    one, two = CTScans(str(root), columns).scans()
    assert (one.person_id, one.person["followup_days"], one.person["event"], two.person_id) == ("P1", 400, 1, "P1")
    assert np.isnan([two.person["followup_days"], two.person["event"]]).all()


def test_without_dicom_the_folder_images_is_read_but_for_nifti_which_no_report_can_be_of(tmp_path):
    root = site(tmp_path, ["A", "B"])
    (root / "dicom").rename(root / "images")
    shutil.rmtree(root / "images" / "B")
    nifti(root / "images" / "B.nii.gz", body(*SHAPE))
    assert reasons(CTScans(str(root))) == {"A": "", "B": Reason.NO_DICOM.value}


@pytest.mark.parametrize(("size", "height"), [("1.80", 1.8), ("180", np.nan), ("", np.nan)])
def test_a_height_in_the_header_is_in_meters_or_none(tmp_path, size, height):
    study(tmp_path / "1", 1, PatientSize=size, PatientSex="F", PatientAge="061Y")
    (scan,) = CTScans(str(tmp_path)).scans()
    assert scan.person["height_m"] == pytest.approx(height, nan_ok=True)
    assert (scan.person["sex"], scan.person["age"]) == (0, 61)


def test_a_source_is_asked_for_one_study_after_the_other(tmp_path):
    import pandas as pd

    opened = []

    class Source:
        def accessions(self):
            return pd.DataFrame({"person": ["P1", None], "accession": ["A-1", "A-2"]}, dtype=object)

        def open(self, accession):
            opened.append(accession)
            if accession == "A-2":
                raise FileNotFoundError
            return tmp_path / "1"

    study(tmp_path / "1", 1)
    scans = CTScans(str(tmp_path / "empty"), sources={"images": Source()}).scans()
    assert next(scans).reason == "" and opened == ["A-1"]
    assert next(scans).reason == Reason.NO_IMAGE.value


def test_a_plane_is_shown_to_the_network_as_in_training_and_measured_on_all_its_pixels(tmp_path):
    study(tmp_path / "1", 1)
    data = CTScans(str(tmp_path))
    (scan,) = data.scans()
    batch, reason = data.plane(scan, 3)
    assert reason == "" and batch["image"].shape == (1, 1, 176, 176)
    np.testing.assert_array_equal(batch["hu"][0], body(6, 24, 20)[3])


@pytest.mark.parametrize(
    ("usual", "reason"), [([0, 100, 150, 200, 280], ""), ([-190, -180, -170, -160, -150], OTHER_VALUES)]
)
def test_a_plane_of_other_values_than_the_trainings_is_not_measured(tmp_path, usual, reason):
    study(tmp_path / "1", 1)
    data = CTScans(str(tmp_path), usual_hu=usual, farthest_hu=60.0)
    (scan,) = data.scans()
    assert data.plane(scan, 3)[1] == reason


def test_percentiles_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="usual_hu: must be the percentiles 5, 25, 50, 75, 95"):
        CTScans(str(tmp_path), usual_hu=[3, 2, 1, 0, 5])


def test_a_folder_without_dicom_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="holds no DICOM file"):
        CTScans(str(tmp_path)).persons()
