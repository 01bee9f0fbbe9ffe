"""The DICOM SEG and SR of what was measured: read back, checked by an independent reader, and taken by a PACS."""

import dataclasses
import io
import json
import subprocess

import numpy as np
import pytest
from pydicom import dcmread

from datamodules.dicom import read_series
from datamodules.dicom.instances import headers_of
from datamodules.labels import read_labels
from datamodules.phantom import cohort as phantom
from models.body_composition import RESEARCH_USE
from models.body_composition.dicom_seg import SEGMENTS, segmentation
from models.body_composition.dicom_sr import structured_report
from models.body_composition.origin import Origin
from tests.datamodules.ct_files import body, save, slices_of
from tests.datamodules.test_enhanced_multiframe import enhanced
from tests.services.installed import program
from tests.services.orthanc import running

LABELS = [label for _, label, *_ in SEGMENTS]
ORIGIN = Origin(model="muscle", version="6842ee4a6f0f", errors={"muscle_area_cm2": 2.5})
ROW = {
    "level_mm": 103.0, "level_confidence": 0.9, "level_by": "model", "muscle_area_cm2": 150.25, "muscle_index": 52.0,
    "muscle_density_hu": 35.5, "subcutaneous_fat_cm2": 99.0, "visceral_fat_cm2": float("nan"),
    "intermuscular_fat_cm2": 4.0,
}  # fmt: skip


def drawn(shape, *slices):
    mask = np.zeros(shape, np.uint8)
    for index in slices:
        mask[index, 2, 3:6], mask[index, 3, 3], mask[index, 4:6, 4], mask[index, 1, 6] = 1, 2, 3, 4
    return mask


def written(folder, mask, volume, source):
    made = segmentation(headers_of(source, volume.sop_instance_uids), mask, volume.affine, ORIGIN)
    made.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize(
    "turn", [{}, {"transpose": True}, {"flip_rows": True}, {"flip_columns": True},
             {"transpose": True, "flip_rows": True}, {"transpose": True, "flip_columns": True}],
)  # fmt: skip
def test_the_segmentation_is_read_back_as_it_was_found_however_the_series_is_stored(tmp_path, turn):
    source = save(tmp_path / "ct", slices_of(body(), **turn))
    volume = read_series(source)
    mask = drawn(volume.voxels.shape, 1, 2)
    back = read_labels(written(tmp_path, mask, volume, source), volume)
    assert sorted(back) == sorted(LABELS)
    for number, label in enumerate(LABELS, start=1):
        np.testing.assert_array_equal(back[label], mask == number)


def test_of_an_enhanced_object_too(tmp_path):
    source = save(tmp_path / "ct", [enhanced(body())])
    volume = read_series(source)
    mask = drawn(volume.voxels.shape, 1, 3)
    back = read_labels(written(tmp_path, mask, volume, source), volume)
    for number, label in enumerate(LABELS, start=1):
        np.testing.assert_array_equal(back[label], mask == number)


def test_its_frames_have_the_rows_and_columns_of_the_images_and_name_them(tmp_path):
    source = save(tmp_path / "ct", slices_of(body(), transpose=True, flip_rows=True))
    volume = read_series(source)
    seg = dcmread(written(tmp_path, drawn(volume.voxels.shape, 2), volume, source))
    (image,) = headers_of(source, volume.sop_instance_uids[2:3])
    assert (seg.Rows, seg.Columns) == (image.Rows, image.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == image.ImageOrientationPatient
    named = {
        str(item.SourceImageSequence[0].ReferencedSOPInstanceUID)
        for frame in seg.PerFrameFunctionalGroupsSequence
        for item in frame.DerivationImageSequence
    }
    assert named == {image.SOPInstanceUID}
    assert seg.StudyInstanceUID == image.StudyInstanceUID
    assert seg.FrameOfReferenceUID == image.FrameOfReferenceUID


def test_it_says_who_found_what_and_what_it_may_be_used_for(tmp_path):
    source = save(tmp_path / "ct", slices_of(body()))
    volume = read_series(source)
    seg = dcmread(written(tmp_path, drawn(volume.voxels.shape, 2), volume, source))
    assert {seg.ContentDescription, seg.SeriesDescription} == {RESEARCH_USE}
    assert {segment.SegmentAlgorithmType for segment in seg.SegmentSequence} == {"AUTOMATIC"}
    identified = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (identified.AlgorithmName, identified.AlgorithmVersion) == ("muscle", "6842ee4a6f0f")
    types = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in seg.SegmentSequence]
    assert types == ["127954009", "55603005", "55603005", "55603005"]


@pytest.fixture(scope="module")
def phantom_scan(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "north"
    profile = dataclasses.replace(phantom.PROFILES["north"], pixels=96, slices=5, thickness=12.0)
    phantom.generate(root, profile=profile, patients=1)
    (scan,) = (root / "dicom").iterdir()
    return scan


@pytest.fixture
def both(phantom_scan):
    """An image, its segmentation and its report, of a phantom, whose headers are whole."""
    scan = phantom_scan
    volume = read_series(scan)
    (image,) = headers_of(scan, volume.sop_instance_uids[3:4])
    mask = drawn(volume.voxels.shape, 3)
    seg = segmentation([image], mask[3:4], level_affine(volume.affine, 3), ORIGIN)
    return image, seg, structured_report(image, seg, ROW, ORIGIN)


def test_the_report_says_what_was_measured_in_which_unit_and_where(both):
    *_, report = both
    found = {
        (str(item.ConceptNameCodeSequence[0].CodeMeaning), str(value.MeasurementUnitsCodeSequence[0].CodeValue)):
        float(value.NumericValue)
        for item in contents(report) if item.ValueType == "NUM" for value in item.MeasuredValueSequence
    }  # fmt: skip
    assert found[("Skeletal muscle index at L3", "cm2/m2")] == 52.0
    assert found[("Attenuation Coefficient", "[hnsf'U]")] == 35.5
    assert found[("Position of L3 along the body axis", "mm")] == 103.0
    areas = [float(item.MeasuredValueSequence[0].NumericValue) for item in contents(report)
             if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "42798000"]  # fmt: skip
    assert areas == [150.25, 99.0, 4.0]  # visceral fat was not measured


def test_the_report_refers_to_the_image_and_to_the_segmentation(both):
    image, seg, report = both
    named = {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
             for item in contents(report) if item.ValueType == "IMAGE"}  # fmt: skip
    assert named == {image.SOPInstanceUID, seg.SOPInstanceUID}
    assert report.VerificationFlag == "UNVERIFIED"


def test_the_report_says_what_it_may_be_used_for_and_how_far_off_the_model_is(both):
    *_, report = both
    texts = [str(item.TextValue) for item in contents(report) if item.ValueType == "TEXT"]
    assert RESEARCH_USE in texts
    assert "muscle_area_cm2: mean absolute error 2.5 in the model's own evaluation" in texts
    assert report.SeriesDescription == RESEARCH_USE


@pytest.mark.parametrize("which", [1, 2], ids=["SEG", "SR"])
def test_an_independent_reader_finds_no_error(both, tmp_path, which):
    both[which].save_as(tmp_path / "made.dcm")
    told = subprocess.run([program("dciodvfy"), tmp_path / "made.dcm"], capture_output=True, text=True, check=False)
    assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == []


def test_a_pacs_takes_both_and_gives_them_back(both):
    image, *made = both
    with running() as server:
        for each in made:
            server.store(each)
        for each in made:
            found = server.request("/tools/find", json.dumps(
                {"Level": "Instance", "Query": {"SOPInstanceUID": str(each.SOPInstanceUID)}}).encode())  # fmt: skip
            (identifier,) = json.loads(found)
            back = dcmread(io.BytesIO(server.request(f"/instances/{identifier}/file")))
            assert back.StudyInstanceUID == image.StudyInstanceUID
            assert back.to_json_dict() == dcmread(saved(each)).to_json_dict()


def saved(made):
    content = io.BytesIO()
    made.save_as(content)
    content.seek(0)
    return content


def contents(item):
    """All content items below one."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from contents(child)


def level_affine(affine, index):
    moved = affine.copy()
    moved[:3, 3] += index * affine[:3, 2]
    return moved
