"""DICOM files as they begin: with preamble and file meta information, or without one or both."""

from io import BytesIO

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import RLELossless

from datamodules.dicom import Reason, Unreadable, read_series
from datamodules.dicom.files import is_dicom
from datamodules.dicom.references import read_references
from datamodules.labels import read_labels
from tests.datamodules.ct_files import body, outcomes_of_damage, save, slices_of, transcode
from tests.datamodules.test_labels import assert_masks, drawn, segmentation

MARKED = bytes(128) + b"DICM"


def bare(data, implicit=False, little=True):
    """The data set alone, as it travels in a network."""
    out = DicomIO(BytesIO())
    out.is_little_endian, out.is_implicit_VR = little, implicit
    write_dataset(out, data)
    return out.parent.getvalue()


def each(folder, change):
    for path in folder.iterdir():
        path.write_bytes(change(path))
    return folder


FORMS = {
    "no preamble": lambda path: path.read_bytes()[132:],
    "nothing, explicit": lambda path: bare(dcmread(path)),
    "nothing, implicit": lambda path: bare(dcmread(path), implicit=True),
    "a marker alone, explicit": lambda path: MARKED + bare(dcmread(path)),
    "a marker alone, implicit": lambda path: MARKED + bare(dcmread(path), implicit=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_slices_are_read_however_their_files_begin(tmp_path, form):
    folder = each(save(tmp_path, slices_of(body())), form)
    np.testing.assert_array_equal(read_series(folder).voxels, body())
    assert all(is_dicom(path) for path in folder.iterdir())


def test_big_endian_without_file_meta_information(tmp_path):
    folder = save(tmp_path, slices_of(body()))
    transcode(folder, gdcm.TransferSyntax.ExplicitVRBigEndian)
    each(folder, lambda path: bare(dcmread(path), little=False))
    np.testing.assert_array_equal(read_series(folder).voxels, body())


def test_one_series_may_mix_beginnings(tmp_path):
    folder = save(tmp_path, slices_of(body()))
    for path, form in zip(sorted(folder.iterdir()), FORMS.values(), strict=False):
        path.write_bytes(form(path))
    np.testing.assert_array_equal(read_series(folder).voxels, body())


def test_labels_are_read_however_their_file_begins(tmp_path):
    images = slices_of(body())
    volume = read_series(save(tmp_path / "ct", images))
    segmentation(images, drawn()).save_as(tmp_path / "seg.dcm")
    (tmp_path / "seg.dcm").write_bytes(bare(dcmread(tmp_path / "seg.dcm"), implicit=True))
    assert_masks(read_labels(tmp_path / "seg.dcm", volume), drawn())
    assert read_references(tmp_path / "seg.dcm").instances == {image.SOPInstanceUID for image in images}


def test_compressed_pixels_that_no_file_meta_information_names_are_refused_by_name(tmp_path):
    images = slices_of(body())
    for image in images:
        image.compress(RLELossless)
    folder = each(save(tmp_path, images), lambda path: bare(dcmread(path)))
    with pytest.raises(Unreadable) as caught:
        read_series(folder)
    assert caught.value.reason is Reason.UNKNOWN_SYNTAX


TEXTS = {
    "a text": b"not an image" * 20,
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "zeros": bytes(400),
    "the groups of an image and no value representation": b"\x08\x00\x05\x00" + b"\xff" * 200,
    "shorter than an element": b"\x08\x00\x05",
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_file_of_another_kind_is_not_parsed(tmp_path, content):
    (tmp_path / "file.bin").write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read_series(tmp_path)
    assert caught.value.reason is Reason.NO_DICOM and not is_dicom(tmp_path / "file.bin")


def test_any_damage_of_a_bare_file_gives_a_volume_or_a_reason(tmp_path):
    """Random bytes are overwritten; nothing but `Unreadable` may come out."""
    rng = np.random.default_rng(5)
    (path,) = each(save(tmp_path, slices_of(body(1))), FORMS["nothing, implicit"]).iterdir()
    assert len(outcomes_of_damage(path, rng, times=200, first=0)) > 3
