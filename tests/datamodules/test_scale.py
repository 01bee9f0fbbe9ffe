"""What a scan says of the meaning of its values: scales lost or given twice, tables, maps, other kinds of files."""

import struct

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian

from datamodules.dicom import Reason, Unreadable, read_series
from datamodules.nifti import read_nifti_volume
from tests.datamodules.ct_files import body, save, slices_of

AFFINE = np.diag([-0.7, -0.8, 3.0, 1.0])
SLOPE, INTERCEPT = 112, 116  # bytes at which NIfTI-1 has them


def scan():
    """A body in air, HU (slice, row, column)."""
    return np.pad(body(), ((0, 0), (10, 10), (10, 10)), constant_values=-1000)


def nifti(path, values, kind=nib.Nifti1Image, **header):
    image = kind(values, AFFINE, nib.Nifti1Header(**header) if header else None)
    image.header.set_sform(AFFINE, 1)
    nib.save(image, path)
    return path


def with_scale(path, place, number):
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, place, number)
    path.write_bytes(content)
    return path


def reason(read, *arguments):
    with pytest.raises(Unreadable) as refusal:
        read(*arguments)
    return refusal.value.reason


@pytest.mark.parametrize("slope", [0.33, 0.5, 0.95, 1.07, 2.0])
def test_a_slope_that_is_given_to_hounsfield_units_is_refused(tmp_path, slope):
    path = with_scale(nifti(tmp_path / "a.nii", scan().T), SLOPE, slope)
    assert reason(read_nifti_volume, path) is Reason.DOUBTFUL_SCALE


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [SLOPE, INTERCEPT])
def test_a_scale_that_is_no_number_is_refused_and_not_dropped(tmp_path, number, place):
    path = with_scale(nifti(tmp_path / "a.nii", scan().T), place, number)
    assert reason(read_nifti_volume, path) is Reason.SCALE_NOT_FINITE


def test_a_scale_that_makes_the_most_of_its_bits_is_taken(tmp_path):
    image = nib.Nifti1Image(scan().T.astype(np.float32), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii")
    assert struct.unpack_from("<f", (tmp_path / "a.nii").read_bytes(), SLOPE)[0] < 0.1
    assert np.abs(read_nifti_volume(tmp_path / "a.nii").voxels - scan()).max() < 0.1


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (np.zeros((4, 4, 4, 3), np.int16), nib.Nifti1Image, Reason.SEVERAL_VOLUMES),
        (np.zeros((4, 4, 4), np.complex64), nib.Nifti1Image, Reason.COMPLEX),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), nib.Nifti1Image, Reason.NOT_GRAYSCALE),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, values, kind, why):
    assert reason(read_nifti_volume, nifti(tmp_path / "a.nii", values, kind)) is why


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "header.nii"])
def test_a_pair_of_files_is_no_damaged_one(tmp_path, name):
    nifti(tmp_path / "a.hdr", scan().T, nib.Nifti1Pair)
    (tmp_path / "header.nii").write_bytes((tmp_path / "a.hdr").read_bytes())
    assert reason(read_nifti_volume, tmp_path / name) is Reason.NIFTI_PAIR


def test_the_order_of_bytes_changes_nothing(tmp_path):
    big = nifti(tmp_path / "big.nii", scan().T, endianness=">")
    assert nib.load(big).header.endianness == ">"
    assert np.array_equal(read_nifti_volume(big).voxels, scan())
    for index, image in enumerate(slices_of(scan())):
        image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        image.PixelData = np.frombuffer(image.PixelData, np.uint16).astype(">u2").tobytes()
        image["PixelData"].VR = "OW"
        (tmp_path / "ct").mkdir(exist_ok=True)
        file = tmp_path / "ct" / f"{index}.dcm"
        pydicom.dcmwrite(file, image, implicit_vr=False, little_endian=False, force_encoding=True)
    assert np.array_equal(read_series(tmp_path / "ct").voxels, scan())


def spoilt(tmp_path, name, value):
    images = slices_of(scan())
    for image in images:
        setattr(image, name, value)
    return save(tmp_path / "ct", images)


@pytest.mark.parametrize("slope", [0.95, 1.05, 1.07, 1.2])
def test_a_slope_near_1_is_refused(tmp_path, slope):
    assert reason(read_series, spoilt(tmp_path, "RescaleSlope", slope)) is Reason.DOUBTFUL_SCALE


def test_a_lookup_table_is_not_passed_over(tmp_path):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [2, 0, 16])
    table.add_new("LUTData", "US", [0, 1])
    table.ModalityLUTType = "HU"
    assert reason(read_series, spoilt(tmp_path, "ModalityLUTSequence", Sequence([table]))) is Reason.MODALITY_LUT


@pytest.mark.parametrize(
    "word",
    ["IODINE", "VNC", "VIRTUAL NON CONTRAST", "MONOENERGETIC", "MONO_E 70 KEV", "Z_EFFECTIVE", "ELECTRON DENSITY",
     "CBF", "VMI", "MAT_SPECIFIC", "EFF_ATOMIC_NUM", "CALCIUM SUPPRESSION"],
)  # fmt: skip
def test_what_was_computed_of_a_scan_is_not_taken_for_it(tmp_path, word):
    folder = spoilt(tmp_path, "ImageType", ["DERIVED", "PRIMARY", "AXIAL", word])
    assert reason(read_series, folder) is Reason.MATERIAL_MAP


def test_beside_a_map_the_scan_is_read(tmp_path):
    maps, images = slices_of(scan() // 2), slices_of(scan())
    for image in maps:
        image.SeriesNumber, image.ImageType = 1, ["ORIGINAL", "PRIMARY", "AXIAL", "IODINE NO WATER"]
    assert np.array_equal(read_series(save(tmp_path / "ct", [*maps, *images])).voxels, scan())


@pytest.mark.parametrize(
    "kind", [["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]]
)
def test_usual_image_types_are_scans(tmp_path, kind):
    assert np.array_equal(read_series(spoilt(tmp_path, "ImageType", kind)).voxels, scan())
