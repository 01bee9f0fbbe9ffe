"""Labels on the grid of a volume, from files that highdicom and nibabel wrote, and the real CT of the shared data."""

import gzip
import os
import re
from contextlib import suppress
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from datamodules import nifti as nifti_module
from datamodules.dicom import Reason, Unreadable, read_series
from datamodules.labels import read_labels
from datamodules.nifti import read_nifti_volume
from tests.datamodules.ct_files import ORIGIN, SPACING, body, save, slices_of


def data_folder() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("FLIP_DATA_DIR", default)) / "ct_patient_a"


needs_real_ct = pytest.mark.skipif(not data_folder().is_dir(), reason="the real CT of FLIP_DATA_DIR is not here")


def drawn() -> dict[str, np.ndarray]:
    """Two masks (slice, row, column) in the patient's standard orientation; no symmetry in them."""
    hu = body()
    muscle, fat = (hu > -60) & (hu < 0), hu >= 10
    fat[0] = False
    return {"skeletal_muscle": muscle, "subcutaneous_fat": fat}


def segmentation(images, masks, kind=SegmentationTypeValues.BINARY, **options):
    """A SEG of `masks`, which are oriented as the images are stored."""
    descriptions = [
        SegmentDescription(
            number,
            label,
            codes.SCT.Tissue,
            codes.SCT.SkeletalMuscle,
            SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1)
    if kind is SegmentationTypeValues.FRACTIONAL:
        stacked = stacked.astype(np.float32)
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=stacked if kind is SegmentationTypeValues.FRACTIONAL else stacked.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="FLIP",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def as_stored(mask, transpose, flip_rows, flip_columns):
    mask = mask[:, :: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return mask.swapaxes(1, 2) if transpose else mask


def study(tmp_path, kind=SegmentationTypeValues.BINARY, turn=(False, False, False), **options):
    """A series and its SEG on disk -> (volume, path of the SEG)."""
    images = slices_of(body(), transpose=turn[0], flip_rows=turn[1], flip_columns=turn[2])
    volume = read_series(save(tmp_path / "ct", images))
    written = segmentation(images, {name: as_stored(m, *turn) for name, m in drawn().items()}, kind, **options)
    written.save_as(tmp_path / "seg.dcm")
    return volume, tmp_path / "seg.dcm"


def nifti(path, voxels, affine_lps, *, dtype=np.uint8):
    """Write (slice, row, column) on an LPS affine of (column, row, slice)."""
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0).astype(dtype), np.diag([-1, -1, 1, 1]) @ affine_lps)
    nib.save(image, path)
    return path


def reason_of(call, *arguments):
    with pytest.raises(Unreadable) as caught:
        call(*arguments)
    return caught.value.reason


def assert_masks(found, expected):
    assert list(found) == list(expected)
    for name, mask in expected.items():
        assert found[name].dtype == np.bool_
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


# DICOM SEG


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SegmentationTypeValues.BINARY, {}),
        (SegmentationTypeValues.BINARY, {"omit_empty_frames": False}),
        (SegmentationTypeValues.FRACTIONAL, {}),
        (SegmentationTypeValues.FRACTIONAL, {"transfer_syntax_uid": RLELossless}),
        (SegmentationTypeValues.FRACTIONAL, {"transfer_syntax_uid": JPEGLSLossless}),
    ],
    ids=["binary", "with empty frames", "fractional", "RLE", "JPEG-LS"],
)
def test_masks_are_named_by_segment_label(tmp_path, kind, options):
    volume, path = study(tmp_path, kind, **options)
    assert_masks(read_labels(path, volume), drawn())


def test_fractions_of_which_nothing_says_when_they_count_are_refused(tmp_path):
    images, masks = slices_of(body()), drawn()
    volume = read_series(save(tmp_path / "ct", images))
    made = segmentation(images, masks, SegmentationTypeValues.FRACTIONAL)
    made.PixelData = bytes(102 if each else 0 for each in made.PixelData)  # .4 of 255
    made.save_as(tmp_path / "seg.dcm")
    assert reason_of(read_labels, tmp_path / "seg.dcm", volume) is Reason.FRACTIONS


def test_a_label_map(tmp_path):
    masks = drawn()
    images = slices_of(body())
    volume = read_series(save(tmp_path / "ct", images))
    segmentation(images, masks, SegmentationTypeValues.LABELMAP).save_as(tmp_path / "seg.dcm")
    assert_masks(read_labels(tmp_path / "seg.dcm", volume), masks)


@pytest.mark.parametrize("turn", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)])
def test_masks_follow_the_volume_into_the_standard_orientation(tmp_path, turn):
    volume, path = study(tmp_path, turn=turn)
    assert_masks(read_labels(path, volume), drawn())


def test_two_segments_of_one_number_are_refused(tmp_path):
    volume, path = study(tmp_path)
    data = dcmread(path)
    data.SegmentSequence[1].SegmentNumber = data.SegmentSequence[0].SegmentNumber
    data.save_as(path)
    assert reason_of(read_labels, path, volume) is Reason.LABELS_UNREADABLE


def test_names_choose_among_the_segment_labels(tmp_path):
    volume, path = study(tmp_path)
    chosen = read_labels(path, volume, {7: "subcutaneous_fat", 8: "absent"})
    assert_masks(chosen, {"subcutaneous_fat": drawn()["subcutaneous_fat"]})


def test_a_segmentation_of_another_patient_is_refused(tmp_path):
    volume, path = study(tmp_path)
    other = dcmread(path)
    other.FrameOfReferenceUID = generate_uid()
    for group in other.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    other.save_as(path)
    assert reason_of(read_labels, path, volume) is Reason.LABELS_MISMATCH


def test_a_segmentation_without_references_is_placed_by_position(tmp_path):
    volume, path = study(tmp_path)
    other = dcmread(path)
    for group in other.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    other.save_as(path)
    assert_masks(read_labels(path, volume), drawn())


@pytest.mark.parametrize("shift", [(0, 0, 0.5), (0.4, 0, 0), (0, 0, 30)], ids=["half a slice", "half a pixel", "away"])
def test_frames_off_the_grid_are_refused(tmp_path, shift):
    volume, path = study(tmp_path)
    other = dcmread(path)
    for group in other.PerFrameFunctionalGroupsSequence:
        plane = group.PlanePositionSequence[0]
        plane.ImagePositionPatient = [float(a) + b for a, b in zip(plane.ImagePositionPatient, shift, strict=True)]
    other.save_as(path)
    assert reason_of(read_labels, path, volume) is Reason.LABELS_MISMATCH


def test_a_frame_that_refers_to_one_slice_and_lies_on_another_is_refused(tmp_path):
    volume, path = study(tmp_path)
    other = dcmread(path)
    for group in other.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        index = volume.sop_instance_uids.index(source.ReferencedSOPInstanceUID)
        source.ReferencedSOPInstanceUID = volume.sop_instance_uids[(index + 1) % 4]
    other.save_as(path)
    assert reason_of(read_labels, path, volume) is Reason.LABELS_MISMATCH


def test_a_truncated_segmentation_is_a_reason(tmp_path):
    volume, path = study(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    assert reason_of(read_labels, path, volume) is Reason.TRUNCATED


def test_an_image_is_no_segmentation(tmp_path):
    volume, _ = study(tmp_path)
    image = next((tmp_path / "ct").iterdir())
    assert reason_of(read_labels, image, volume) is Reason.LABELS_UNREADABLE


def test_a_text_file_is_no_segmentation(tmp_path):
    volume, path = study(tmp_path)
    path.write_text("nothing")
    assert reason_of(read_labels, path, volume) is Reason.CORRUPT


def test_a_missing_label_file_is_a_reason(tmp_path):
    volume, _ = study(tmp_path)
    assert reason_of(read_labels, tmp_path / "absent.dcm", volume) is Reason.FOLDER_MISSING


def test_a_label_file_that_links_elsewhere_is_refused(tmp_path):
    volume, path = study(tmp_path)
    (tmp_path / "labels").mkdir()
    os.symlink(path, tmp_path / "labels" / "seg.dcm")
    assert reason_of(read_labels, tmp_path / "labels" / "seg.dcm", volume) is Reason.OUTSIDE_FOLDER


def test_any_damage_to_a_segmentation_gives_masks_or_a_reason(tmp_path):
    rng = np.random.default_rng(3)
    volume, path = study(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(132, len(whole), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_labels(path, volume)
        except Unreadable:
            refused += 1
    assert refused > 10


@pytest.mark.slow
def test_an_element_of_an_unknown_kind_gives_masks_or_a_reason(tmp_path):
    volume, path = study(tmp_path)
    whole = path.read_bytes()
    kinds = re.compile(rb"(UI|CS|US|LO|SH|DA|TM|IS|DS|PN|SQ|OB|FD|UL)")
    places = [found.start() for found in kinds.finditer(whole)]
    assert len(places) > 60
    for place in places:
        for kind in (b"U'", b"FD", b"SQ"):
            path.write_bytes(whole[:place] + kind + whole[place + 2 :])
            with suppress(Unreadable):
                read_labels(path, volume)


# NIfTI


def ids_of(masks):
    return masks["skeletal_muscle"] * 5 + masks["subcutaneous_fat"] * 9


NAMES = {5: "skeletal_muscle", 9: "subcutaneous_fat"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_ids_are_named(tmp_path, suffix):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / f"labels{suffix}", ids_of(drawn()), volume.affine)
    assert_masks(read_labels(path, volume, NAMES), drawn())


def test_ids_of_one_name_are_united(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    assert_masks(read_labels(path, volume, {5: "all", 9: "all"}), {"all": np.logical_or(*drawn().values())})


def test_an_id_that_does_not_occur_is_an_empty_mask(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    assert not read_labels(path, volume, {77: "visceral_fat"})["visceral_fat"].any()


def test_without_names_the_ids_are_the_names(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine, dtype=np.float64)
    assert list(read_labels(path, volume)) == ["5", "9"]


def test_nifti_in_another_orientation_is_turned(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    turned = nib.as_closest_canonical(nib.load(path))
    assert turned.affine[0, 0] > 0
    nib.save(turned, tmp_path / "turned.nii")
    assert_masks(read_labels(tmp_path / "turned.nii", volume, NAMES), drawn())


@pytest.mark.parametrize("shift", [(0, 0, 3), (0.2, 0, 0)])
def test_nifti_on_another_grid_is_refused(tmp_path, shift):
    volume, _ = study(tmp_path)
    affine = volume.affine.copy()
    affine[:3, 3] += shift
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), affine)
    assert reason_of(read_labels, path, volume, NAMES) is Reason.LABELS_MISMATCH


def test_nifti_that_does_not_say_where_it_lies_is_refused(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    image = nib.load(path)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "lost.nii")
    assert reason_of(read_labels, tmp_path / "lost.nii", volume, NAMES) is Reason.MISSING_GEOMETRY


def test_nifti_with_an_axis_that_is_next_to_none_is_refused(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    whole = bytearray(path.read_bytes())
    whole[296:300] = np.float32(3e30).tobytes()  # the first number of the second row of the sform
    path.write_bytes(whole)
    assert reason_of(read_labels, path, volume, NAMES) is Reason.INVALID_GEOMETRY


@pytest.mark.parametrize("unit", [4, 3, 1], ids=["that nobody defined", "micrometer", "meter"])
def test_nifti_in_another_unit_is_refused(tmp_path, unit):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    whole = bytearray(path.read_bytes())
    whole[123] = unit  # xyzt_units, NIfTI-1: 1 meter, 2 mm, 3 micrometer
    path.write_bytes(whole)
    assert reason_of(read_labels, path, volume, NAMES) in (Reason.LABELS_UNREADABLE, Reason.INVALID_GEOMETRY)


@pytest.mark.parametrize("change", [(0, 3, 25.0), (0, 0, 0.7), (2, 2, 2.5)], ids=["shifted", "mirrored", "stretched"])
def test_nifti_that_gives_itself_two_places_is_refused(tmp_path, change):
    volume, _ = study(tmp_path)
    image = nib.load(nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine))
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "same.nii")
    assert_masks(read_labels(tmp_path / "same.nii", volume, NAMES), drawn())
    row, column, value = change
    other = image.affine.copy()
    other[row, column] = value
    image.set_qform(other, 1)
    nib.save(image, tmp_path / "two.nii")
    assert reason_of(read_labels, tmp_path / "two.nii", volume, NAMES) is Reason.CONFLICTING_GEOMETRY


def test_the_ct_itself_is_no_label(tmp_path):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", body(), volume.affine, dtype=np.int16)
    assert reason_of(read_labels, path, volume, NAMES) is Reason.LABELS_UNREADABLE


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_nifti_is_a_reason(tmp_path, suffix):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / f"labels{suffix}", ids_of(drawn()), volume.affine)
    path.write_bytes(path.read_bytes()[:-20])
    assert reason_of(read_labels, path, volume, NAMES) is Reason.LABELS_UNREADABLE


@pytest.mark.parametrize("content", [b"", b"no image at all" * 40, gzip.compress(b"x" * 400, mtime=0)])
def test_what_is_no_nifti_is_a_reason(tmp_path, content):
    volume, _ = study(tmp_path)
    (tmp_path / "labels.nii.gz").write_bytes(content)
    assert reason_of(read_labels, tmp_path / "labels.nii.gz", volume, NAMES) is Reason.LABELS_UNREADABLE


def test_nifti_of_absurd_size_is_not_allocated(tmp_path, monkeypatch):
    volume, _ = study(tmp_path)
    path = nifti(tmp_path / "labels.nii", ids_of(drawn()), volume.affine)
    monkeypatch.setattr(nifti_module, "MAX_VOXELS", 100)
    assert reason_of(read_labels, path, volume, NAMES) is Reason.TOO_LARGE


def test_ct_from_nifti_has_the_standard_orientation(tmp_path):
    volume = read_series(save(tmp_path / "ct", slices_of(body())))
    path = nifti(tmp_path / "ct.nii", body(), volume.affine, dtype=np.int16)
    nib.save(nib.as_closest_canonical(nib.load(path)), tmp_path / "canonical.nii")
    read = read_nifti_volume(tmp_path / "canonical.nii")
    np.testing.assert_array_equal(read.voxels, body())
    np.testing.assert_allclose(read.affine[:3, 3], ORIGIN, atol=1e-4)
    assert read.spacing == pytest.approx(SPACING)
    assert read.voxels.dtype == np.float32
    assert (read.series_instance_uid, read.sop_instance_uids) == ("", ())


def test_sheared_nifti_is_refused(tmp_path):
    affine = np.diag([0.7, 0.8, 3.0, 1.0])
    affine[1, 2] = 0.5
    assert (
        reason_of(read_nifti_volume, nifti(tmp_path / "ct.nii", body(), affine, dtype=np.int16)) is Reason.GANTRY_TILT
    )


# The real CT


@needs_real_ct
def test_muscle_areas_of_the_real_ct_at_the_middle_of_l3():
    volume = read_nifti_volume(data_folder() / "patientA_ct_3mm.nii.gz")
    names = {20: "L3", 100: "autochthon_left", 101: "autochthon_right", 102: "iliopsoas_left", 103: "iliopsoas_right"}
    masks = read_labels(data_folder() / "patientA_seg_v1_multilabel.nii.gz", volume, names)
    heights = np.flatnonzero(masks["L3"].any(axis=(1, 2)))
    assert (heights.min(), heights.max()) == (64, 79)
    middle = round(float(np.average(np.arange(len(masks["L3"])), weights=masks["L3"].sum(axis=(1, 2)))))
    assert middle == 73
    pixel_cm2 = volume.spacing[1] * volume.spacing[2] / 100
    areas = {name: masks[name][middle].sum() * pixel_cm2 for name in names.values() if name != "L3"}
    assert areas == pytest.approx(
        {"autochthon_left": 25.38, "autochthon_right": 23.67, "iliopsoas_left": 7.11, "iliopsoas_right": 7.02}, abs=0.05
    )


@needs_real_ct
def test_the_left_muscles_of_the_real_ct_are_on_the_left():
    volume = read_nifti_volume(data_folder() / "patientA_ct_3mm.nii.gz")
    masks = read_labels(
        data_folder() / "patientA_seg_v1_multilabel.nii.gz", volume, {102: "left", 103: "right", 20: "L3"}
    )
    column = {name: np.nonzero(mask)[2].mean() for name, mask in masks.items()}
    assert column["right"] < column["L3"] < column["left"]


@needs_real_ct
def test_the_tissue_masks_of_the_real_ct_that_were_not_shifted_are_refused():
    volume = read_nifti_volume(data_folder() / "patientA_ct_3mm.nii.gz")
    path = data_folder() / "patientA_sm_tissue" / "skeletal_muscle.nii.gz"
    assert reason_of(read_labels, path, volume, {1: "skeletal_muscle"}) is Reason.LABELS_MISMATCH
