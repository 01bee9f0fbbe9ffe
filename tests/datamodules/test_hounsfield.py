"""Values that cannot be Hounsfield units, as scanners, converters and wrong headers leave them."""

import nibabel
import numpy as np
import pytest
from pydicom.uid import RLELossless

from datamodules.dicom import Reason, Remark, Unreadable, read_series
from datamodules.dicom.hounsfield import AIR, check_hounsfield
from datamodules.nifti import read_nifti_volume
from tests.datamodules.ct_files import save, slices_of, store

SHAPE = (3, 40, 40)


def scan(*, outside=AIR, fat=-100, muscle=50, muscle_rows=12):
    """HU of a body of fat and muscle in a round field."""
    row, column = np.indices(SHAPE[1:]) - 19.5
    plane = np.full(SHAPE[1:], float(outside))
    plane[row**2 + column**2 < 19**2] = AIR
    plane[(row / 17) ** 2 + (column / 14) ** 2 < 1] = fat
    plane[(row / muscle_rows) ** 2 + (column / 9) ** 2 < 1] = muscle
    return np.stack([plane] * SHAPE[0]).astype(np.int16)


def signed(hu, intercept=0):
    """Its images, stored signed."""
    images = slices_of(hu)
    for image, plane in zip(images, hu, strict=True):
        store(image, (plane - intercept).astype(np.int16))
        image.RescaleIntercept = intercept
    return images


def flagged(images, **values):
    for image in images:
        for name, value in values.items():
            setattr(image, name, value)
    return images


def stretched(slope, images):
    """The images with their pixels stored by another slope than their headers have."""
    for image in images:
        stored = np.frombuffer(image.PixelData, np.uint16)
        image.PixelData = np.rint(stored * slope).astype(np.uint16).tobytes()
    return images


def half_stretched(slope, images):
    """The upper half of the images `stretched`."""
    stretched(slope, images[len(images) // 2 :])
    return images


def sloped(slope, images):
    """The upper half of the images with another slope."""
    flagged(images[len(images) // 2 :], RescaleSlope=slope)
    return images


def padded(images, value):
    for image in images:
        image.add_new("PixelPaddingValue", "SS", value)
    return images


def lost(hu, *, padding):
    """Its images without their intercept."""
    images = flagged(slices_of(hu), RescaleIntercept=0)
    for image in images:
        image.add_new("PixelPaddingValue", "US", padding)
    return images


def reason_of(folder):
    with pytest.raises(Unreadable) as caught:
        read_series(folder)
    return caught.value.reason


def twelve_bits(hu):
    """Signed in 12 bits, flagged unsigned: what is below 0 is above 2047."""
    images = slices_of(hu)
    for image, plane in zip(images, hu, strict=True):
        store(image, (plane & 0x0FFF).astype(np.uint16), bits=12)
        image.RescaleIntercept = 0
    return images


def patch(size, value, place=np.s_[1, 10:, 10:]):
    """A scan with a square of another value."""
    hu = scan()
    hu[place][:size, :size] = value
    return hu


IMPOSSIBLE = {
    "padding that is not declared": (lambda: signed(scan(outside=-2000)), Reason.BELOW_AIR),
    "padding beyond the scale": (lambda: signed(scan(outside=-3024), intercept=-1024), Reason.BELOW_AIR),
    "an intercept that was taken twice": (lambda: flagged(slices_of(scan()), RescaleIntercept=-2048), Reason.BELOW_AIR),
    "bone that is wrongly negative": (lambda: signed(patch(3, 1500 - 4096)), Reason.BELOW_AIR),
    "signed flagged unsigned": (lambda: flagged(signed(scan()), PixelRepresentation=0), Reason.ABOVE_METAL),
    "signed in 12 bits flagged unsigned": (lambda: twelve_bits(scan()), Reason.NO_AIR),
    "a few pixels signed flagged unsigned": (
        lambda: flagged(signed(patch(2, -1030, np.s_[1, :, :]), intercept=-1024), PixelRepresentation=0),
        Reason.ABOVE_METAL,
    ),
    "a slope of ten": (lambda: flagged(slices_of(scan(muscle=100)), RescaleSlope=10), Reason.ABOVE_METAL),
    "half of the slope": (lambda: flagged(slices_of(scan()), RescaleSlope=0.5), Reason.BODY_ELSEWHERE),
    "four fifths of the slope": (lambda: stretched(0.8, slices_of(scan())), Reason.BODY_ELSEWHERE),
    "nine tenths of the slope": (lambda: stretched(0.9, slices_of(scan())), Reason.BODY_ELSEWHERE),
    "a third of the slope": (lambda: flagged(slices_of(scan()), RescaleSlope=0.33), Reason.BODY_ELSEWHERE),
    "a tenth more of the slope": (lambda: stretched(1.1, slices_of(scan())), Reason.BODY_ELSEWHERE),
    "a fifth more of the slope": (lambda: stretched(1.2, slices_of(scan())), Reason.BODY_ELSEWHERE),
    "a fifth more of the slope, of much fat": (
        lambda: stretched(1.2, slices_of(scan(muscle_rows=6))),
        Reason.BODY_ELSEWHERE,
    ),
    "half of the slope in half of the slices": (
        lambda: sloped(0.5, slices_of(np.concatenate([scan(), scan()]))),
        Reason.UNEVEN_SCALE,
    ),
    "nine tenths of the slope in half of the slices": (
        lambda: half_stretched(0.9, slices_of(np.concatenate([scan(), scan()]))),
        Reason.UNEVEN_SCALE,
    ),
    "a tenth more of the slope in half of the slices": (
        lambda: half_stretched(1.1, slices_of(np.concatenate([scan(), scan()]))),
        Reason.UNEVEN_SCALE,
    ),
    "twice the slope": (lambda: flagged(slices_of(scan()), RescaleSlope=2), Reason.BODY_ELSEWHERE),
    "no intercept": (lambda: flagged(slices_of(scan()), RescaleIntercept=0), Reason.NO_AIR),
    "no intercept, and padding": (lambda: lost(scan(outside=-1024), padding=0), Reason.NO_AIR),
    "no intercept, and padding beyond the scale": (lambda: lost(scan(outside=30_000), padding=31_024), Reason.NO_AIR),
    "nothing but tissue": (lambda: slices_of(np.full(SHAPE, 40, np.int16)), Reason.NO_AIR),
    "bits at the high end": (lambda: flagged(slices_of(scan()), BitsStored=12, HighBit=15), Reason.HIGH_BIT),
    "a high bit of 16 with 12 stored": (lambda: flagged(slices_of(scan()), BitsStored=12), Reason.HIGH_BIT),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_refused(tmp_path, case):
    make, reason = IMPOSSIBLE[case]
    assert reason_of(save(tmp_path, make())) is reason


def test_a_high_bit_is_looked_at_in_compressed_slices_too(tmp_path):
    images = slices_of(scan())
    images[1].compress(RLELossless)
    images[1].HighBit = 11
    assert reason_of(save(tmp_path, images)) is Reason.HIGH_BIT


POSSIBLE = {
    "a body": scan,
    "an artificial hip": lambda: patch(10, 20_000),
    "air that was cut off at -1000": lambda: np.maximum(noisy(30), -1000),
    "air that was cut off at -1024": lambda: np.maximum(noisy(30, air=-1010), -1024),
    "an undeclared field beside air": lambda: np.where(noisy(30) == AIR, noisy(30), scan(outside=-1024)),
}


def drawn(*parts):
    """A scan of parts, from without to within: the half sides of each, its HU, and by how much these vary."""
    row, column = np.indices(SHAPE[1:]) - 19.5
    hu, draw = scan(fat=AIR, muscle=AIR).astype(float), np.random.default_rng(0)
    for rows, columns, value, deviation in parts:
        inside = (row / rows) ** 2 + (column / columns) ** 2 < 1
        hu[:, inside] = draw.normal(value, deviation, (SHAPE[0], inside.sum()))
    return hu.astype(np.int16)


# Bodies of which little is as it mostly is.
UNUSUAL = {
    "a head: skin, a skull of all densities, a brain": drawn((17, 14, 20, 30), (16, 13, 900, 350), (13, 11, 35, 15)),
    "a liver at low voltage in a lean body": drawn((17, 14, -110, 15), (16, 13, 60, 15), (10, 9, 160, 15)),
    "a lean body before contrast": drawn((17, 14, 10, 30), (16, 13, 45, 15)),
    "hardly anything but fat": drawn((17, 14, -105, 20), (5, 4, 50, 15)),
    "low dose, and much fat": drawn((17, 14, -115, 55), (10, 8, 50, 55)),
    "lungs in a thin chest": drawn((17, 14, -100, 15), (16, 13, 45, 15), (14, 11, -850, 50)),
    "a joint": drawn((17, 14, -100, 20), (14, 12, 50, 15), (11, 9, 350, 130)),
    "a heart full of contrast in a chest": drawn((17, 14, -100, 15), (15, 12, 50, 15), (8, 7, 350, 20)),
}


@pytest.mark.parametrize("body", UNUSUAL)
def test_an_unusual_body_is_read_and_with_another_slope_in_half_of_its_slices_it_is_not(tmp_path, body):
    hu = UNUSUAL[body]
    np.testing.assert_array_equal(read_series(save(tmp_path / "right", slices_of(hu))).voxels, hu)
    images = sloped(0.5, slices_of(np.concatenate([hu, hu])))
    assert reason_of(save(tmp_path / "wrong", images)) is Reason.UNEVEN_SCALE


def test_a_body_that_tapers_off_from_slice_to_slice_is_read(tmp_path):
    hu = np.concatenate([drawn((side, side, 40, 15))[:1] for side in (18, 12, 8, 4, 1.5)] + [drawn()[:1]])
    np.testing.assert_array_equal(read_series(save(tmp_path, slices_of(hu))).voxels, hu)


@pytest.mark.parametrize("slope", [0.33, 0.5, 0.8, 0.9, 1.1, 1.2, 1.5])
def test_a_real_scan_of_another_slope_is_refused_whole_and_in_half_of_its_slices(data_dir, slope):
    hu = read_nifti_volume(data_dir / "ct_patient_a" / "patientA_ct_3mm.nii.gz").voxels
    other = np.rint((hu + 1024) * slope - 1024)
    half = np.where(np.arange(len(hu))[:, None, None] < len(hu) // 2, hu, other)
    for voxels, reason in ((other, Reason.BODY_ELSEWHERE), (half, Reason.UNEVEN_SCALE)):
        with pytest.raises(Unreadable) as caught:
            check_hounsfield(voxels, whole_picture=True)
        assert caught.value.reason is reason


@pytest.mark.parametrize("thinned", [1, 2, 4])
@pytest.mark.parametrize("deviation", [0, 30, 60])
def test_a_real_scan_is_taken_with_noise_and_thick_slices(data_dir, thinned, deviation):
    hu = read_nifti_volume(data_dir / "ct_patient_a" / "patientA_ct_3mm.nii.gz").voxels[::thinned]
    noise = np.random.default_rng(0).normal(0, deviation, hu.shape).astype(np.float32)
    assert check_hounsfield(hu + noise, whole_picture=True)


def noisy(deviation, air=AIR):
    """A scan whose air has the noise of a sharp kernel."""
    noise = np.random.default_rng(0).normal(air - AIR, deviation, SHAPE)
    return np.where(scan() == AIR, scan() + noise, scan()).astype(np.int16)


@pytest.mark.parametrize("deviation", [0, 20, 60])
@pytest.mark.parametrize("wrong", [-124, -80, 80, 124, 150])
def test_an_intercept_that_is_wrong_by_less_than_air_varies_is_refused(tmp_path, wrong, deviation):
    images = flagged(signed(noisy(deviation)), RescaleIntercept=wrong)
    assert reason_of(save(tmp_path, images)) in (Reason.AIR_ELSEWHERE, Reason.BELOW_AIR)


@pytest.mark.parametrize("wrong", [-40, 0, 24, 40])
def test_the_air_of_a_scanner_that_is_a_little_off_is_read(tmp_path, wrong):
    assert read_series(save(tmp_path, flagged(signed(noisy(20)), RescaleIntercept=wrong))).voxels.max() == 50 + wrong


def test_a_wrong_intercept_shows_beside_padding_that_is_declared(tmp_path):
    images = flagged(padded(signed(scan(outside=-2000)), -2000), RescaleIntercept=100)
    assert reason_of(save(tmp_path, images)) is Reason.AIR_ELSEWHERE


def test_a_wrong_intercept_shows_where_all_the_air_is_padding(tmp_path):
    images = flagged(padded(signed(scan()), -1000), RescaleIntercept=100)
    assert reason_of(save(tmp_path, images)) is Reason.NO_AIR


@pytest.mark.parametrize("deviation", [30, 60])
def test_noise_of_air_is_read(tmp_path, deviation):
    hu = noisy(deviation)
    assert (hu < -1100).any()
    np.testing.assert_array_equal(read_series(save(tmp_path, signed(hu))).voxels, hu)


def test_noise_about_another_value_than_air_is_refused(tmp_path):
    assert reason_of(save(tmp_path, signed(noisy(60, air=-1124)))) is Reason.BELOW_AIR


@pytest.mark.parametrize("case", POSSIBLE)
def test_what_can_be_is_read(tmp_path, case):
    np.testing.assert_array_equal(read_series(save(tmp_path, signed(POSSIBLE[case]()))).voxels, POSSIBLE[case]())


def test_single_pixels_below_air_beside_metal_are_read(tmp_path):
    hu = np.full((1, 400, 400), AIR, np.int16)
    hu[0, 100:300, 100:300] = 40
    hu[0, 200, 200] = -1207
    assert read_series(save(tmp_path, signed(hu))).voxels.min() == -1207


def test_only_ct_is_in_hounsfield_units(tmp_path):
    images = flagged(slices_of(np.full(SHAPE, 40, np.int16)), Modality="MR")
    assert read_series(save(tmp_path, images), modality="MR").voxels.max() == 40


def long(slices=8):
    return np.stack([scan()[0]] * slices)


LOST = {
    "first": [0],
    "last": [7],
    "one": [3],
    "two": [3, 4],
    "a run": [2, 3, 4, 5],
    "half": [0, 1, 2, 3],
    "every second": [0, 2, 4, 6],
}


@pytest.mark.parametrize("slices", LOST.values(), ids=LOST)
@pytest.mark.parametrize("intercept", [0, -924, -8192])
def test_slices_of_another_intercept_are_refused(tmp_path, slices, intercept):
    images = slices_of(long())
    for index in slices:
        images[index].RescaleIntercept = intercept
    assert reason_of(save(tmp_path, images)) in (Reason.UNEVEN_SCALE, Reason.BELOW_AIR)


def test_slices_that_lost_their_intercept_on_both_sides_of_padding_are_refused(tmp_path):
    hu = long()
    hu[4] = -2000
    images = padded(signed(hu), -2000)
    for image in images[5:]:
        image.RescaleIntercept = 1024
    for image in images[4:5]:
        image.RescaleIntercept = 0
    assert reason_of(save(tmp_path, images)) is Reason.UNEVEN_SCALE


def test_a_body_that_grows_from_slice_to_slice_is_read(tmp_path):
    hu = long(4)
    row, column = np.indices(hu.shape[1:]) - 19.5
    for index, radius in enumerate((3, 9, 15, 19)):
        hu[index] = np.where(row**2 + column**2 < radius**2, 50, AIR)
    np.testing.assert_array_equal(read_series(save(tmp_path, signed(hu))).voxels, hu)


def test_slices_without_air_in_a_field_that_the_body_fills_are_read(tmp_path):
    hu = np.full(SHAPE, 40, np.int16)
    hu[1, 10:14, 10:14] = -1000  # gas
    assert read_series(save(tmp_path, signed(hu))).voxels.min() == AIR


def zoomed(images, field):
    return flagged(images, ReconstructionDiameter=field)


FILLED = np.full(SHAPE, 40, np.int16)  # 28 by 32 mm


@pytest.mark.parametrize("field", [32, 500])
def test_a_picture_within_the_body_is_read_with_a_remark(tmp_path, field):
    volume = read_series(save(tmp_path, zoomed(signed(FILLED), field)))
    np.testing.assert_array_equal(volume.voxels, FILLED)
    assert volume.remarks == {Remark.NO_AIR: 1}


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (lambda: zoomed(flagged(signed(FILLED), PixelSpacing=[9, 9]), 500), Reason.NO_AIR),
        (lambda: zoomed(signed(FILLED), 20), Reason.NO_AIR),
        (lambda: zoomed(flagged(slices_of(FILLED), RescaleIntercept=0), 180), Reason.BODY_ELSEWHERE),
    ],
    ids=["a wide picture", "a picture wider than its field", "without its intercept"],
)
def test_missing_air_that_no_small_field_explains_is_refused(tmp_path, images, reason):
    assert reason_of(save(tmp_path, images())) is reason


def test_a_zoomed_field_with_gas_needs_no_remark(tmp_path):
    hu = FILLED.copy()
    hu[1, 10:14, 10:14] = -1000
    assert read_series(save(tmp_path, zoomed(signed(hu), 180))).remarks == {}


# Padding


def test_declared_padding_outside_the_round_field_is_air(tmp_path):
    volume = read_series(save(tmp_path, padded(signed(scan(outside=-2000)), -2000)))
    np.testing.assert_array_equal(volume.voxels, scan())


def opened(hu, value, first=3):
    """A channel from the left edge to the middle of the body, of one value."""
    hu = hu.copy()
    hu[:, 19:21, first:20] = value
    return hu


AMID = {
    "the value of a tissue": lambda: padded(signed(scan()), 50),
    "a hole in the muscle": lambda: padded(signed(patch(4, -2000, np.s_[1, 17:, 17:])), -2000),
    "one pixel of a slice": lambda: padded(signed(patch(1, -2000, np.s_[2, 20:, 20:])), -2000),
    "the corners and a hole": lambda: padded(
        signed(np.where(scan() == 50, scan(), scan(outside=-2000)) - (scan() == 50) * np.int16(2050)), -2000
    ),
    "the value of fat beneath the skin": lambda: padded(signed(scan()), -100),
    "the value of a tissue that touches air": lambda: padded(signed(opened(scan(), 50)), 50),
    "the value of a tissue that reaches the edge": lambda: padded(signed(opened(scan(), 50, first=0)), 50),
    "water where a channel leads out": lambda: padded(signed(opened(scan(muscle=0), -1000)), 0),
    "a range that holds fat": lambda: flagged(
        padded(signed(scan(fat=30, muscle=-100)), -2000), PixelPaddingRangeLimit=-90
    ),
}


@pytest.mark.parametrize("case", AMID)
def test_padding_amid_the_body_is_refused(tmp_path, case):
    images = AMID[case]()
    for image in images:
        if "PixelPaddingRangeLimit" in image:
            image["PixelPaddingRangeLimit"].VR = "SS"
    assert reason_of(save(tmp_path, images)) is Reason.PADDED_BODY


@pytest.mark.parametrize(
    "hu",
    [
        patch(4, -1024, np.s_[1, 17:, 17:]),  # gas in the bowel has the value that marks padding
        np.where(np.indices(SHAPE)[2] < 12, -1024, scan()).astype(np.int16),  # a body that reaches out of the field
    ],
    ids=["of air in the bowel", "that cuts the body off"],
)
def test_padding_that_is_air_or_reaches_the_edge_is_read(tmp_path, hu):
    volume = read_series(save(tmp_path, padded(signed(hu), -1024)))
    np.testing.assert_array_equal(volume.voxels, np.where(hu == -1024, AIR, hu))


def test_padding_whose_value_is_of_air_may_be_all_the_air_there_is(tmp_path):
    hu = np.where(np.indices(SHAPE)[2] < 12, -1024, 40).astype(np.int16)
    assert read_series(save(tmp_path, padded(signed(hu), -1024))).voxels.min() == AIR


@pytest.mark.parametrize("value", [0, 50, 3071])
def test_padding_of_a_value_that_tissue_may_have_is_read_around_the_field(tmp_path, value):
    hu = scan(fat=-101, muscle=51)
    row, column = np.indices(SHAPE[1:]) - 19.5
    hu[:, row**2 + column**2 >= 19**2] = value
    volume = read_series(save(tmp_path, padded(signed(hu), value)))
    np.testing.assert_array_equal(volume.voxels, scan(fat=-101, muscle=51))


def test_padding_in_a_corner_behind_air_is_read(tmp_path):
    hu = scan()
    hu[:, 1:4, 1:4] = -2000  # along its rows and columns there is padding or air to the edge
    hu[:, 5:8, 1:4] = 300  # but for a table beside it
    volume = read_series(save(tmp_path, padded(signed(hu), -2000)))
    np.testing.assert_array_equal(volume.voxels, np.where(hu == -2000, AIR, hu))


# NIfTI


def written(path, hu):
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.0, -1, 3, 1])), path)
    return path


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (patch(3, -3024, np.s_[1, 17:, 17:]), Reason.BELOW_AIR),
        (np.where(np.indices(SHAPE)[2] < 5, -2000, scan(outside=-3024)).astype(np.int16), Reason.BELOW_AIR),
        (scan() - np.int16(1024), Reason.BELOW_AIR),
        (scan().astype(np.uint16), Reason.ABOVE_METAL),
        (scan().astype(np.float32) * 50, Reason.BELOW_AIR),
    ],
    ids=[
        "padding amid the body",
        "two values of padding",
        "an intercept taken twice",
        "signed as unsigned",
        "another scale",
    ],
)
def test_nifti_whose_values_cannot_be_is_refused(tmp_path, hu, reason):
    with pytest.raises(Unreadable) as caught:
        read_nifti_volume(written(tmp_path / "ct.nii", hu))
    assert caught.value.reason is reason


@pytest.mark.parametrize("outside", [-1500, -2000, -2048, -3024])
def test_nifti_cannot_declare_padding_so_it_is_told_by_its_place(tmp_path, outside):
    volume = read_nifti_volume(written(tmp_path / "ct.nii", scan(outside=outside)))
    np.testing.assert_array_equal(volume.voxels[:, ::-1], scan())


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (scan() + np.int16(1024), Reason.BODY_ELSEWHERE),
        (scan() + np.int16(1000), Reason.BODY_ELSEWHERE),
        (scan(outside=-1024) + np.int16(1024), Reason.BODY_ELSEWHERE),
        (scan() + np.int16(2048), Reason.BODY_ELSEWHERE),
        (scan(outside=-3024) + np.int16(1024), Reason.BODY_ELSEWHERE),
        (np.full(SHAPE, 1064, np.int16), Reason.BODY_ELSEWHERE),
        (scan() + np.int16(100), Reason.AIR_ELSEWHERE),
        (scan() - np.int16(80), Reason.AIR_ELSEWHERE),
        (np.concatenate([scan(), scan() + np.int16(1024)]), Reason.UNEVEN_SCALE),
    ],
    ids=["lost", "lost, of -1000", "lost, cut off at 0", "lost twice", "lost beside padding", "lost, of an organ",
         "100 too high", "80 too low", "lost in half of the slices"],
)  # fmt: skip
def test_nifti_without_its_intercept_is_refused(tmp_path, hu, reason):
    with pytest.raises(Unreadable) as caught:
        read_nifti_volume(written(tmp_path / "ct.nii", hu))
    assert caught.value.reason is reason


def lung():
    noise = np.random.default_rng(0).normal(-850, 80, SHAPE)
    return np.where(np.indices(SHAPE)[2] < 30, noise, 40).astype(np.int16)


def skull():
    """A brain in bone of all densities, without air."""
    bone = np.random.default_rng(0).uniform(300, 1900, SHAPE)
    return np.where(np.indices(SHAPE)[2] < 10, bone, 35).astype(np.int16)


@pytest.mark.parametrize("hu", [np.full(SHAPE, 40, np.int16), lung(), skull()], ids=["organ", "lung", "skull"])
def test_nifti_that_was_cut_to_an_organ_is_read(tmp_path, hu):
    np.testing.assert_array_equal(read_nifti_volume(written(tmp_path / "ct.nii", hu)).voxels, hu)


def test_nifti_of_another_modality_is_not_in_hounsfield_units(tmp_path):
    hu = np.linspace(0, 30_000, 3 * 40 * 40).reshape(SHAPE).astype(np.uint16)
    path = written(tmp_path / "mr.nii", hu)
    np.testing.assert_array_equal(read_nifti_volume(path, "MR").voxels, hu)
    with pytest.raises(Unreadable) as caught:
        read_nifti_volume(path)
    assert caught.value.reason is Reason.ABOVE_METAL


@pytest.mark.parametrize(
    "values",
    [
        ((scan() + 1000) / 5).clip(0, 255).astype(np.uint8),
        ((scan() + 1000) / 1050).astype(np.float32),
        (scan() / np.std(scan())).astype(np.float32),
    ],
    ids=["8 bits", "0 to 1", "standardized"],
)
def test_nifti_that_was_normalized_is_refused(tmp_path, values):
    with pytest.raises(Unreadable) as caught:
        read_nifti_volume(written(tmp_path / "ct.nii", values))
    assert caught.value.reason is Reason.GRAY_LEVELS


def other_picture(background, fat, muscle, deviation):
    """What is no CT, or was one: a body on a ground of 0."""
    noise = np.random.default_rng(0).normal(0, deviation, SHAPE)
    hu = scan()
    return np.where(hu == AIR, background + np.abs(noise) / 4, np.where(hu < 0, fat, muscle) + noise)


@pytest.mark.parametrize(
    "values",
    [
        ((scan() + 160) / 400).clip(0, 1) * 255,
        ((scan() + 1000) / 2000).clip(0, 1) * 1000,
        other_picture(0, 600, 260, 15),
        other_picture(0, 8, 25, 10),
        (scan() != AIR) * 40,
    ],
    ids=["a window as 0 to 255", "0 to 1000", "MR", "PET", "of a mask"],
)
def test_nifti_on_a_ground_of_0_is_not_in_hounsfield_units(tmp_path, values):
    with pytest.raises(Unreadable) as caught:
        read_nifti_volume(written(tmp_path / "ct.nii", values.astype(np.float32)))
    assert caught.value.reason is Reason.ZERO_AROUND


def test_nifti_of_a_body_that_was_cut_out_is_read(tmp_path):
    hu = np.where(scan() == AIR, 0, scan()).astype(np.int16)
    np.testing.assert_array_equal(read_nifti_volume(written(tmp_path / "ct.nii", hu)).voxels[:, ::-1], hu)


def test_nifti_of_8_bits_with_a_slope_is_read(tmp_path):
    image = nibabel.Nifti1Image(((scan() + 1000) // 10).astype(np.uint8).transpose(2, 1, 0), np.diag([-1.0, -1, 3, 1]))
    image.header.set_slope_inter(10, -1000)
    nibabel.save(image, tmp_path / "ct.nii")
    np.testing.assert_array_equal(read_nifti_volume(tmp_path / "ct.nii").voxels, scan())
