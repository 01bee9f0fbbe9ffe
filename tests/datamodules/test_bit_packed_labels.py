"""Frames of one bit a pixel whose pixels are no multiple of 8, as the standard packs them and as other writers do."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian

from datamodules.dicom import Reason, Unreadable, read_series
from datamodules.dicom.bits import BitFrames
from datamodules.labels import read_labels
from tests.datamodules.ct_files import body, save, slices_of
from tests.datamodules.test_labels import assert_masks, segmentation

# rows x columns, one a remainder of 1 to 7, and none
SHAPES = {1: (11, 11), 2: (10, 13), 3: (9, 11), 4: (12, 13), 5: (11, 15), 6: (10, 15), 7: (9, 15), 0: (10, 16)}


def study(tmp_path, shape, slices=9):
    """A series of `shape` and its SEG of two structures -> (volume, masks, data set of the SEG, its path)."""
    hu = body(slices, *shape)
    images = slices_of(hu)
    masks = {"skeletal_muscle": (hu > -1000) & (hu % 3 == 0), "visceral_fat": (hu > -1000) & (hu % 3 == 1)}
    segmentation(images, masks).save_as(tmp_path / "seg.dcm")
    return read_series(save(tmp_path / "ct", images)), masks, dcmread(tmp_path / "seg.dcm"), tmp_path / "seg.dcm"


def on_whole_bytes(data):
    """Pack the frames again, each from a byte of its own."""
    pixels = data.Rows * data.Columns
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")[: data.NumberOfFrames * pixels]
    packed = np.packbits(bits.reshape(-1, pixels), axis=1, bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)


def reason_of(path, volume):
    with pytest.raises(Unreadable) as caught:
        read_labels(path, volume)
    return caught.value.reason


@pytest.mark.parametrize("remainder", SHAPES)
@pytest.mark.parametrize("form", ["packed", "on whole bytes"])
def test_each_pixel_is_where_it_was_drawn(tmp_path, remainder, form):
    volume, masks, data, path = study(tmp_path, SHAPES[remainder])
    assert data.Rows * data.Columns % 8 == remainder
    if form == "on whole bytes":
        on_whole_bytes(data)
        data.save_as(path)
    assert_masks(read_labels(path, volume), masks)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_few_frames_are_read_as_the_standard_has_them(tmp_path, slices):
    """Of so few frames of 8 k + 7 pixels both forms have one length."""
    volume, masks, _, path = study(tmp_path, SHAPES[7], slices)
    assert_masks(read_labels(path, volume), masks)


def test_few_frames_on_whole_bytes_are_told_by_a_bit_beyond_the_standards_end(tmp_path):
    volume, masks, data, path = study(tmp_path, SHAPES[7], 3)
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    bits[data.NumberOfFrames * 135 - 1] = 1  # the last pixel of the last frame
    data.PixelData = np.packbits(bits, bitorder="little").tobytes()
    masks["visceral_fat"][0, -1, -1] = True  # highdicom writes from the head down
    on_whole_bytes(data)
    data.save_as(path)
    assert_masks(read_labels(path, volume), masks)


def test_a_single_bit_has_but_one_place(tmp_path):
    volume, masks, data, path = study(tmp_path, SHAPES[3])
    data.HighBit = 7
    data.save_as(path)
    assert_masks(read_labels(path, volume), masks)


def test_bits_in_words_of_the_other_byte_order(tmp_path):
    _, _, data, _ = study(tmp_path, SHAPES[3])
    wanted = list(BitFrames.of(data).read(range(4)))
    data.PixelData = np.frombuffer(data.PixelData, np.uint16).byteswap().tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(list(BitFrames.of(data).read(range(4))), wanted)


@pytest.mark.parametrize("more", [2, 40], ids=["a few bytes", "as rows on whole bytes would have"])
def test_a_length_of_neither_form_is_refused(tmp_path, more):
    volume, _, data, path = study(tmp_path, SHAPES[0])
    data.PixelData += bytes(more)
    data.save_as(path)
    assert reason_of(path, volume) is Reason.LABELS_UNREADABLE


def test_fill_that_is_no_fill_is_refused(tmp_path):
    volume, _, data, path = study(tmp_path, SHAPES[1])
    on_whole_bytes(data)
    value = bytearray(data.PixelData)
    value[15] |= 0x80  # the last of the 16 bytes of a frame of 121 pixels
    data.PixelData = bytes(value)
    data.save_as(path)
    assert reason_of(path, volume) is Reason.LABELS_UNREADABLE


def test_a_value_that_is_too_short_is_cut(tmp_path):
    volume, _, data, path = study(tmp_path, SHAPES[5])
    data.PixelData = data.PixelData[:-2]
    data.save_as(path)
    assert reason_of(path, volume) is Reason.TRUNCATED
