"""The DICOM reader, on files as scanners, archives and attackers leave them."""

import copy
import itertools
import os
import shutil
import signal
import traceback
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from datamodules.dicom import Decoder, Reason, Remark, Unreadable, read_series
from datamodules.dicom import files as dicom_files
from datamodules.dicom import series as dicom_series
from tests.datamodules.ct_files import AIR, ORIGIN, SPACING, body, outcomes_of_damage, save, slices_of, store, transcode


def reason_of(folder, **options):
    with pytest.raises(Unreadable) as caught:
        read_series(folder, **options)
    return caught.value.reason


def assert_is(volume, hu):
    np.testing.assert_array_equal(volume.voxels, hu)
    assert volume.voxels.dtype == np.float32


# What a volume is


def test_hounsfield_units_in_the_order_slice_row_column(tmp_path):
    assert_is(read_series(save(tmp_path, slices_of(body()))), body())


def test_affine_maps_column_row_slice_to_patient_millimeters(tmp_path):
    volume = read_series(save(tmp_path, slices_of(body())))
    np.testing.assert_allclose(volume.affine @ (2, 3, 1, 1), (ORIGIN[0] + 1.4, ORIGIN[1] + 2.4, ORIGIN[2] + 3, 1))
    assert volume.affine.dtype == np.float64
    assert volume.spacing == pytest.approx(SPACING)


def test_identifiers_of_the_slices_from_inferior_to_superior(tmp_path):
    images = slices_of(body())
    volume = read_series(save(tmp_path, images[::-1]))
    assert volume.sop_instance_uids == tuple(image.SOPInstanceUID for image in images)
    assert volume.series_instance_uid == images[0].SeriesInstanceUID
    assert volume.frame_of_reference_uid == images[0].FrameOfReferenceUID


# Order and orientation


@pytest.mark.parametrize(("transpose", "flip_rows", "flip_columns"), list(itertools.product((False, True), repeat=3)))
def test_all_eight_in_plane_orientations_give_the_same_patient(tmp_path, transpose, flip_rows, flip_columns):
    images = slices_of(body(), transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns)
    volume = read_series(save(tmp_path, images))
    assert_is(volume, body())
    np.testing.assert_allclose(volume.affine[:3, 3], ORIGIN, atol=1e-9)
    assert volume.spacing == pytest.approx(SPACING)


def test_slices_stored_from_the_head_down_are_turned_over(tmp_path):
    images = slices_of(body(), step=(0, 0, -SPACING[0]))
    assert_is(read_series(save(tmp_path, images)), body()[::-1])


def test_the_order_is_by_position_and_not_by_instance_number(tmp_path):
    images = slices_of(body())
    for image, number in zip(images, (3, 1, 4, 2), strict=True):
        image.InstanceNumber = number
    assert_is(read_series(save(tmp_path, images)), body())


@pytest.mark.parametrize("axes", [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)], ids=["sagittal", "coronal"])
def test_sagittal_and_coronal_series_are_refused(tmp_path, axes):
    images = slices_of(body(), step=(3, 3, 0))
    for image in images:
        image.ImageOrientationPatient = list(axes)
    assert reason_of(save(tmp_path, images)) is Reason.NOT_AXIAL


def test_a_slight_in_plane_rotation_is_kept_in_the_affine(tmp_path):
    images = slices_of(body())
    cosine, sine = np.cos(0.05), np.sin(0.05)
    for image in images:
        image.ImageOrientationPatient = [round(v, 6) for v in (cosine, sine, 0, -sine, cosine, 0)]
    volume = read_series(save(tmp_path, images))
    assert_is(volume, body())
    np.testing.assert_allclose(volume.affine[:3, 0], [0.7 * cosine, 0.7 * sine, 0], atol=1e-6)


@pytest.mark.parametrize("degrees", [4, -20])
def test_a_tilted_gantry_is_refused(tmp_path, degrees):
    tilt = np.radians(degrees) if abs(degrees) < 15 else np.radians(degrees) / 2
    images = slices_of(body())
    for image in images:
        image.ImageOrientationPatient = [1, 0, 0, 0, round(float(np.cos(tilt)), 8), round(float(np.sin(tilt)), 8)]
    assert reason_of(save(tmp_path, images)) is Reason.GANTRY_TILT


def test_an_oblique_stack_that_is_not_sheared_is_read(tmp_path):
    tilt = np.radians(5)
    step = SPACING[0] * np.array([0, -np.sin(tilt), np.cos(tilt)])
    images = slices_of(body(), step=[round(float(v), 6) for v in step])
    for image in images:
        image.ImageOrientationPatient = [1, 0, 0, 0, round(float(np.cos(tilt)), 8), round(float(np.sin(tilt)), 8)]
    volume = read_series(save(tmp_path, images))
    assert volume.spacing == pytest.approx(SPACING, abs=1e-4)


# Gaps and duplicates


def test_a_missing_slice_is_refused(tmp_path):
    images = slices_of(body(6))
    del images[3]
    assert reason_of(save(tmp_path, images)) is Reason.MISSING_SLICES


def test_uneven_spacing_is_refused(tmp_path):
    images = slices_of(body(5))
    images[4].ImagePositionPatient[2] += 1.3
    assert reason_of(save(tmp_path, images)) is Reason.UNEVEN_SPACING


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    images = slices_of(body(6), step=(0, 0, 0.625))
    for image in images:
        image.ImagePositionPatient[2] = round(float(image.ImagePositionPatient[2]), 1)
    assert read_series(save(tmp_path, images)).spacing[0] == pytest.approx(0.625, abs=0.03)


def test_a_slice_sent_twice_counts_once(tmp_path):
    images = slices_of(body())
    assert_is(read_series(save(tmp_path, [*images, images[1]])), body())


def test_a_slice_stored_under_two_identifiers_counts_once(tmp_path):
    images, again = slices_of(body()), slices_of(body())
    again[2].SeriesInstanceUID = images[0].SeriesInstanceUID
    assert_is(read_series(save(tmp_path, [*images, again[2]])), body())


def test_two_different_slices_at_one_position_are_refused(tmp_path):
    images, other = slices_of(body()), slices_of(body() + 1)
    other[2].SeriesInstanceUID = images[0].SeriesInstanceUID
    assert reason_of(save(tmp_path, [*images, other[2]])) is Reason.CONFLICTING_DUPLICATES


def test_one_identifier_at_two_positions_is_refused(tmp_path):
    images = slices_of(body())
    images[1].SOPInstanceUID = images[0].SOPInstanceUID
    assert reason_of(save(tmp_path, images)) is Reason.CONFLICTING_DUPLICATES


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    volume = read_series(save(tmp_path, slices_of(body(1))))
    assert volume.voxels.shape == (1, 10, 8)
    assert volume.spacing == pytest.approx(SPACING)


def test_a_single_slice_without_thickness_is_refused(tmp_path):
    images = slices_of(body(1))
    del images[0].SliceThickness
    assert reason_of(save(tmp_path, images)) is Reason.MISSING_THICKNESS


# Which series


def test_other_files_in_the_folder_are_ignored(tmp_path):
    folder = save(tmp_path, slices_of(body()))
    (folder / "README").write_text("not an image")
    (folder / "empty.dcm").touch()
    FileSet().write(folder)  # a DICOMDIR
    assert_is(read_series(folder), body())


def test_subfolders_are_searched(tmp_path):
    images = slices_of(body())
    save(tmp_path / "a", images[:2])
    save(tmp_path / "b" / "c", images[2:])
    assert_is(read_series(tmp_path), body())


def test_a_localizer_in_the_same_series_is_left_out(tmp_path):
    images, localizer = slices_of(body()), slices_of(body(1) + 5)
    localizer[0].SeriesInstanceUID = images[0].SeriesInstanceUID
    localizer[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert_is(read_series(save(tmp_path, [*images, *localizer])), body())


def test_a_localizer_that_does_not_say_so_is_told_by_its_orientation(tmp_path):
    images, localizer = slices_of(body()), slices_of(body(9), step=(0, 3, 0))
    for image in localizer:
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    assert_is(read_series(save(tmp_path, [*localizer, *images])), body())


def test_localizers_alone_are_no_study(tmp_path):
    images = slices_of(body())
    for image in images:
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert reason_of(save(tmp_path, images)) is Reason.ONLY_LOCALIZERS


def test_the_series_with_most_slices_is_chosen(tmp_path):
    assert_is(read_series(save(tmp_path, [*slices_of(body(3)), *slices_of(body(5) + 9)])), body(5) + 9)


def test_bolus_tracking_at_one_position_counts_as_one_slice(tmp_path):
    tracking = [image for level in range(9) for image in slices_of(body(1) + level, series="1.2.3.9")]
    assert_is(read_series(save(tmp_path, [*tracking, *slices_of(body())])), body())


def test_an_original_series_is_chosen_before_a_longer_reformat(tmp_path):
    reformat = slices_of(body(6) + 9)
    for image in reformat:
        image.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    assert_is(read_series(save(tmp_path, [*reformat, *slices_of(body())])), body())


def test_equal_series_are_told_apart_by_their_number(tmp_path):
    second = slices_of(body() + 9, series="1.2.3.1")
    for image in second:
        image.SeriesNumber = 3
    assert_is(read_series(save(tmp_path, [*second, *slices_of(body(), series="1.2.3.2")])), body())


def test_a_spoiled_series_gives_way_to_the_next_best(tmp_path):
    spoiled = slices_of(body(6) + 9)
    del spoiled[2]
    next_best = slices_of(body(5), step=(0, 0, 3.75))
    for image in next_best:
        image.SeriesNumber = 3
    volume = read_series(save(tmp_path, [*spoiled, *next_best]))
    assert_is(volume, body(5))
    assert volume.remarks[Remark.STOOD_IN] == 1


def test_a_dose_report_and_a_segmentation_are_ignored(tmp_path):
    dose, segmentation = slices_of(body(2))
    dose.SOPClassUID = dose.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    del dose.ImagePositionPatient, dose.ImageOrientationPatient, dose.PixelSpacing
    segmentation.SOPClassUID = segmentation.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    segmentation.Modality = "SEG"
    assert_is(read_series(save(tmp_path, [dose, segmentation, *slices_of(body())])), body())


def test_a_study_without_the_modality_says_so(tmp_path):
    assert reason_of(save(tmp_path, slices_of(body())), modality="MR") is Reason.NO_SUCH_MODALITY


# From stored values to HU


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    hu = body() // 2 * 2
    images = slices_of(hu)
    images[1:3] = slices_of(hu, series=images[0].SeriesInstanceUID, slope=2, intercept=-1000)[1:3]
    assert_is(read_series(save(tmp_path, images)), hu)


def test_signed_pixels(tmp_path):
    images = slices_of(body())
    for image, plane in zip(images, body(), strict=True):
        store(image, plane)
        image.RescaleIntercept = 0
    assert_is(read_series(save(tmp_path, images)), body())


def test_twelve_signed_bits_with_something_else_in_the_rest(tmp_path):
    images = slices_of(body())
    for image, plane in zip(images, body(), strict=True):
        store(image, (plane & 0x0FFF).astype(np.int16), bits=12)  # the sign is in bit 11
        image.RescaleIntercept = 0
    assert_is(read_series(save(tmp_path, images)), body())


@pytest.mark.parametrize("written", [-2000, 63536], ids=["as signed", "as unsigned"])
def test_padding_becomes_air(tmp_path, written):
    images = slices_of(body())
    for image, plane in zip(images, body(), strict=True):
        stored = plane.copy()
        stored[plane == AIR] = -2000
        stored[-1] = AIR  # without any air it could be a lost intercept
        store(image, stored)
        image.RescaleIntercept = 0
        image.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    assert_is(read_series(save(tmp_path, images)), body())


def test_a_range_of_padding_becomes_air(tmp_path):
    images = slices_of(body())
    for image in images:
        image.PixelPaddingValue, image.PixelPaddingRangeLimit = 0, 1024 - 50  # HU -1024..-50
    expected = np.where(body() <= -50, AIR, body())
    assert_is(read_series(save(tmp_path, images)), expected)


def test_monochrome1_with_true_values_is_not_inverted(tmp_path):
    images = slices_of(body())
    for image in images:
        image.PhotometricInterpretation = "MONOCHROME1"
    assert_is(read_series(save(tmp_path, images)), body())


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 12), (np.uint16, 16), (np.int16, 16)])
def test_monochrome1_with_inverted_values_is_inverted(tmp_path, dtype, bits):
    images = slices_of(body())
    intercept = 0 if dtype == np.int16 else -1024
    for image, plane in zip(images, body().astype(np.int32), strict=True):
        ends = -1 if dtype == np.int16 else 2**bits - 1
        store(image, (ends - (plane - intercept)).astype(dtype), bits=bits, photometric="MONOCHROME1")
        image.RescaleIntercept = intercept
    assert_is(read_series(save(tmp_path, images)), body())


def test_monochrome1_that_could_be_either_is_refused(tmp_path):
    images = slices_of(body())
    for image in images:
        store(image, np.full((10, 8), 50, np.int16), photometric="MONOCHROME1")
        image.RescaleIntercept = 0
    assert reason_of(save(tmp_path, images)) is Reason.AMBIGUOUS_POLARITY


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: delattr(image, "RescaleSlope"),
        lambda image: setattr(image, "RescaleSlope", 0),
        lambda image: setattr(image, "RescaleType", "Z_EFF"),
    ],
    ids=["no slope", "slope 0", "a map of atomic numbers"],
)
def test_values_that_are_not_hounsfield_units_are_refused(tmp_path, spoil):
    images = slices_of(body())
    spoil(images[1])
    assert reason_of(save(tmp_path, images)) is Reason.NOT_HOUNSFIELD


def test_color_is_refused(tmp_path):
    images = slices_of(body())
    for image in images:
        image.SamplesPerPixel = 3
    assert reason_of(save(tmp_path, images)) is Reason.NOT_GRAYSCALE


# Transfer syntaxes


@pytest.mark.parametrize(
    "syntax",
    [
        gdcm.TransferSyntax.JPEGLosslessProcess14,
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        gdcm.TransferSyntax.JPEGLSLossless,
        gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.RLELossless,
        gdcm.TransferSyntax.ExplicitVRBigEndian,
    ],
    ids=["JPEG lossless", "JPEG lossless SV1", "JPEG-LS", "JPEG 2000", "RLE", "big endian"],
)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_compressed_slices_are_read_to_the_bit(tmp_path, syntax, signed):
    images = slices_of(body())
    if signed:
        for image, plane in zip(images, body(), strict=True):
            store(image, plane)
            image.RescaleIntercept = 0
    transcode(save(tmp_path, images), syntax)
    assert_is(read_series(tmp_path), body())


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_other_uncompressed_encodings(tmp_path, syntax):
    images = slices_of(body())
    for image in images:
        image.file_meta.TransferSyntaxUID = syntax
    assert_is(read_series(save(tmp_path, images)), body())


def test_one_series_may_mix_transfer_syntaxes(tmp_path):
    images = slices_of(body())
    images[1].compress(RLELossless)
    assert_is(read_series(save(tmp_path, images)), body())


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
    ],
)
def test_files_compressed_by_others(tmp_path, name, reference):
    for folder, file in (("one", name), ("two", reference)):
        (tmp_path / folder).mkdir()
        image = dcmread(get_testdata_file(file))
        image.ImageOrientationPatient, image.SliceThickness = [1, 0, 0, 0, 1, 0], 1
        image.save_as(tmp_path / folder / file, enforce_file_format=True)
    one, two = (read_series(tmp_path / folder, modality="MR") for folder in ("one", "two"))
    np.testing.assert_array_equal(one.voxels, two.voxels)


def test_a_codestream_that_contradicts_the_header_about_its_sign(tmp_path):
    image = dcmread(get_testdata_file("J2K_pixelrep_mismatch.dcm"))
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]  # a head, scanned with a tilted gantry
    image.add_new("PixelPaddingValue", "SS", -2000)  # which the file does not declare
    volume = read_series(save(tmp_path, [image]))
    assert (volume.voxels.min(), volume.voxels.max()) == (-1047, 1896)


def test_a_scanner_file_has_the_pixels_that_pydicom_gives(tmp_path):
    path = get_testdata_file("CT_small.dcm")
    shutil.copy(path, tmp_path)
    image = dcmread(path)
    expected = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    expected[image.pixel_array == image.PixelPaddingValue] = AIR
    assert_is(read_series(tmp_path), expected[None])


@pytest.mark.parametrize(
    "syntax", [MPEG2MPML, "1.2.840.10008.1.2.4.110", "1.2.840.113619.5.2"], ids=["video", "JPEG XL", "a vendor's own"]
)
def test_a_compression_without_a_decoder_is_named(tmp_path, syntax):
    images = slices_of(body())
    for image in images:
        image.compress(RLELossless)
    folder = save(tmp_path, images)
    for path in folder.iterdir():
        whole = path.read_bytes()
        before, after = RLELossless.encode(), syntax.encode()
        padded = [len(uid) + len(uid) % 2 for uid in (before, after)]
        old = b"UI" + padded[0].to_bytes(2, "little") + before.ljust(padded[0], b"\0")
        new = b"UI" + padded[1].to_bytes(2, "little") + after.ljust(padded[1], b"\0")
        length = int.from_bytes(whole[140:144], "little") + padded[1] - padded[0]
        assert whole.count(old) == 1
        path.write_bytes((whole[:140] + length.to_bytes(4, "little") + whole[144:]).replace(old, new))
    assert reason_of(folder) is Reason.UNSUPPORTED_COMPRESSION


# What cannot be read


def test_a_missing_folder_is_a_reason(tmp_path):
    assert reason_of(tmp_path / "absent") is Reason.FOLDER_MISSING


def test_an_empty_folder_is_a_reason(tmp_path):
    assert reason_of(tmp_path) is Reason.NO_DICOM


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_missing_geometry_is_a_reason(tmp_path, tag):
    images = slices_of(body())
    delattr(images[1], tag)
    assert reason_of(save(tmp_path, images)) is Reason.MISSING_GEOMETRY


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PixelSpacing", [0, 0.7]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_impossible_geometry_is_a_reason(tmp_path, tag, value):
    images = slices_of(body())
    for image in images:
        setattr(image, tag, value)
    assert reason_of(save(tmp_path, images)) is Reason.INVALID_GEOMETRY


def test_enhanced_multiframe_is_refused(tmp_path):
    images = slices_of(body(1))
    images[0].NumberOfFrames = 2
    images[0].PixelData *= 2
    images[0].SharedFunctionalGroupsSequence = [Dataset()]
    del images[0].ImagePositionPatient
    assert reason_of(save(tmp_path, images)) is Reason.MULTIFRAME


def test_truncated_pixels_are_a_reason(tmp_path):
    folder = save(tmp_path, slices_of(body()))
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-20])
    assert reason_of(folder) is Reason.TRUNCATED


@pytest.mark.parametrize(
    "syntax",
    [
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        gdcm.TransferSyntax.JPEGLSLossless,
        gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.RLELossless,
    ],
    ids=["JPEG lossless", "JPEG-LS", "JPEG 2000", "RLE"],
)
def test_truncated_compressed_pixels_are_a_reason(tmp_path, syntax):
    noise = np.random.default_rng(0).integers(-200, 200, (3, 64, 64), dtype=np.int16)
    folder = save(tmp_path, slices_of(noise))
    transcode(folder, syntax)
    path = sorted(folder.iterdir())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(whole) // 3])
    assert reason_of(folder) in (Reason.TRUNCATED, Reason.CORRUPT, Reason.UNDECODABLE)


# What an attacker may send


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    images = slices_of(body(5))
    save(tmp_path / "outside", images[4:])
    folder = save(tmp_path / "study", images[:4])
    os.symlink(next((tmp_path / "outside").iterdir()), folder / "link.dcm")
    os.symlink(tmp_path / "outside", folder / "folder")
    assert_is(read_series(folder), body(5)[:4])


def test_a_pipe_in_the_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert_is(read_series(save(tmp_path, slices_of(body()))), body())


def test_a_picture_of_absurd_size_is_not_allocated(tmp_path):
    images = slices_of(body())
    for image in images:
        image.compress(RLELossless)
        image.Rows = image.Columns = 65535
    assert reason_of(save(tmp_path, images)) is Reason.TOO_LARGE


def test_a_volume_of_absurd_size_is_not_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_series, "MAX_VOXELS", 4 * 10 * 8 - 1)
    assert reason_of(save(tmp_path, slices_of(body()))) is Reason.TOO_LARGE


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_files, "MAX_FILES", 3)
    assert reason_of(save(tmp_path, slices_of(body()))) is Reason.TOO_LARGE


def test_a_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    images = slices_of(body(1))
    images[0].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    images[0].add_new(0x00091001, "OB", bytes(2**22))
    path = next(save(tmp_path, images).iterdir())
    assert path.stat().st_size < 2**15
    monkeypatch.setattr(dicom_files, "MAX_FILE_BYTES", 2**20)
    assert reason_of(tmp_path) is Reason.TOO_LARGE


# One byte of the stream, by syntax, that makes GDCM end the process that called it.
DEADLY = {
    gdcm.TransferSyntax.JPEGLosslessProcess14_1: (b"\xff\xd8", 15, 0),
    gdcm.TransferSyntax.JPEGLSLossless: (b"\xff\xd8", 6, 255),
    gdcm.TransferSyntax.JPEG2000Lossless: (b"\xff\x4f\xff\x51", 42, 255),
}


def deadly_series(folder, syntax):
    """Two slices, of which the stream of one is damaged."""
    save(folder, slices_of(np.random.default_rng(0).integers(-200, 200, (2, 64, 64), dtype=np.int16)))
    transcode(folder, syntax)
    path = sorted(folder.iterdir())[0]
    damaged = bytearray(path.read_bytes())
    mark, offset, value = DEADLY[syntax]
    damaged[damaged.index(mark, damaged.index(b"\xe0\x7f\x10\x00")) + offset] = value
    path.write_bytes(bytes(damaged))


@pytest.mark.parametrize("syntax", DEADLY, ids=["JPEG lossless", "JPEG-LS", "JPEG 2000"])
def test_a_stream_that_ends_the_decoder_does_not_end_the_site(tmp_path, syntax):
    deadly_series(tmp_path, syntax)
    assert reason_of(tmp_path) is Reason.UNDECODABLE


def test_after_a_stream_that_ended_the_decoder_another_series_is_read(tmp_path):
    deadly_series(tmp_path / "damaged", gdcm.TransferSyntax.JPEGLSLossless)
    save(tmp_path / "whole", slices_of(body(1)))
    transcode(tmp_path / "whole", gdcm.TransferSyntax.JPEGLSLossless)
    assert_is(read_series(tmp_path), body(1))


def test_a_decoder_that_was_killed_is_no_fault_of_the_next_series(tmp_path):
    transcode(save(tmp_path, slices_of(body())), gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    children = Path("/proc/thread-self/children")
    others = set(children.read_text().split())  # the session's own, which serve the tests after this one
    with Decoder() as decoder:
        read_series(tmp_path, decoder=decoder)
        decoding = set(children.read_text().split()) - others
        assert decoding
        for child in decoding:
            os.kill(int(child), signal.SIGKILL)
            os.waitid(os.P_PID, int(child), os.WEXITED | os.WNOWAIT)
        assert_is(read_series(tmp_path, decoder=decoder), body())


def test_no_decoder_stays_behind(tmp_path):
    transcode(save(tmp_path, slices_of(body(1))), gdcm.TransferSyntax.JPEGLSLossless)
    children = Path("/proc/thread-self/children")
    before = children.read_text()
    read_series(tmp_path)
    assert children.read_text() == before


def test_sequences_nested_without_end_are_a_reason(tmp_path):
    images = slices_of(body(1))
    folder = save(tmp_path, images)
    path = next(folder.iterdir())
    opened = b"\x0a\x00\x20\x12SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    whole = path.read_bytes()
    start = whole.index(b"\x20\x00\x0d\x00")
    path.write_bytes(whole[:start] + opened * 5000 + whole[start:])
    assert reason_of(folder) is Reason.CORRUPT


def test_any_damage_gives_a_volume_or_a_reason(tmp_path):
    """Random bytes of a file are overwritten; nothing but `Unreadable` may come out."""
    rng = np.random.default_rng(7)
    images = slices_of(body(1))
    (path,) = save(tmp_path, images).iterdir()
    assert len(outcomes_of_damage(path, rng, times=300, first=132)) > 3


def test_a_message_quotes_neither_path_nor_patient(tmp_path):
    images = slices_of(body())
    for image in images:
        image.PixelData = image.PixelData[:-2]
    folder = save(tmp_path / "secret-accession", images)
    with pytest.raises(Unreadable) as caught:
        read_series(folder)
    shown = "".join(traceback.format_exception(caught.value)).lower()
    assert "secret" not in shown
    assert str(caught.value) == Reason.TRUNCATED.value


def test_a_damaged_header_is_not_quoted_either(tmp_path):
    folder = save(tmp_path / "secret-accession", slices_of(body(1)))
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes().replace(b"S\x10DS\x04\x001.0 ", b"S\x10DS\x04\x00ODD "))  # RescaleSlope
    with pytest.raises(Unreadable) as caught:
        read_series(folder)
    assert "ODD" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.reason is Reason.CORRUPT


def test_every_reason_is_a_sentence_of_its_own():
    sentences = [reason.value for reason in Reason]
    assert len(set(sentences)) == len(list(Reason))
    assert all(" " in sentence and "{" not in sentence for sentence in sentences)


def test_a_refusal_survives_the_way_from_a_worker_process():
    copied = copy.copy(Unreadable(Reason.NOT_AXIAL))  # by the protocol that pickle uses
    assert (copied.reason, str(copied)) == (Reason.NOT_AXIAL, "the images are not axial")


def test_identifiers_may_be_missing(tmp_path):
    images = slices_of(body())
    for image in images:
        del image.FrameOfReferenceUID
        image.StudyInstanceUID = generate_uid()
    volume = read_series(save(tmp_path, images))
    assert volume.frame_of_reference_uid == ""
