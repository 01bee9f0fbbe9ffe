"""The forms in which a site may keep masks of a study's structures, and what is refused in each."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as SEG
from PIL import Image
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from datamodules.dicom import Reason
from datamodules.segmentation.forms import Pictures, Volumes
from datamodules.segmentation.intensity import Range
from datamodules.segmentation.labels import NO_NAME, NO_STRUCTURE, picture_numbers
from datamodules.segmentation.patching import Patching
from datamodules.segmentation_images import SegmentationImages
from tests.datamodules.ct_files import SPACING, body, save, slices_of
from tests.datamodules.ct_sites import nifti, numbered, structures
from tests.datamodules.segmentation_sites import pictures, table

SHAPE = (12, 24, 20)
NAMES = ("skeletal_muscle", "visceral_fat", "vertebra_L3")
TERMS = {"skeletal_muscle": codes.SCT.SkeletalMuscle, "visceral_fat": codes.SCT.Liver, "vertebra_L3": codes.SCT.Spleen}


def seg(images, masks):
    """A SEG of bits, whose frames of 24 x 20 pixels are whole bytes or not; each segment with a coded type."""
    segments = [
        SegmentDescription(number, name, codes.SCT.Organ, TERMS[name], SegmentAlgorithmTypeValues.MANUAL)
        for number, name in enumerate(masks, start=1)
    ]
    return SEG(
        source_images=images,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )


def chosen():
    return {name: structures()[name] for name in NAMES}


def site_of_series(root):
    images = slices_of(body(*SHAPE))
    save(root / "images" / "A", images)
    (root / "labels").mkdir(exist_ok=True)
    return table(root, ["A"]), images


def loaded(root, columns, image=None, names=NAMES):
    image = image or Volumes([SPACING[2], SPACING[1], SPACING[0]], orientation="LPS")
    patches = Patching([4] * image.dimensions)
    data = SegmentationImages(
        str(root), columns, False, structures=names, image=image, patches=patches, intensity=Range(-1000, 1000)
    )
    data.setup()
    return data


def label_of(data):
    return next(iter(data.test_dataloader()))["label"][0].numpy()


def expected():
    label = np.zeros(SHAPE, np.uint8)
    for number, name in enumerate(NAMES, start=1):
        label[structures()[name]] = number
    return label.transpose(2, 1, 0)  # LPS


def as_seg(root, images):
    seg(images, chosen()).save_as(root / "labels" / "A.dcm")


def as_numbers(root, images):
    nifti(root / "labels" / "A.nii.gz", numbered(structures(), (4, 2, 7, 9)))


def as_masks(root, images):
    for name, mask in chosen().items():
        nifti(root / "labels" / "A" / f"{name}.nii", mask)


CODED = {name: {"code": code.scheme_designator, "value": code.value} for name, code in TERMS.items()}
FORMS = {
    "SEG by name": (as_seg, {}),
    "SEG by code": (as_seg, CODED),
    "SEG by both": (as_seg, {"skeletal_muscle": CODED["skeletal_muscle"]}),
    "numbers": (as_numbers, {"skeletal_muscle": 4, "visceral_fat": 7, "vertebra_L3": 9}),
    "masks": (as_masks, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_labels_of_a_series_is_the_same_class_map(tmp_path, form):
    write, columns = FORMS[form]
    root, images = site_of_series(tmp_path)
    write(root, images)
    assert np.array_equal(label_of(loaded(root, columns)), expected())


def test_a_code_takes_the_segment_of_this_type_whatever_its_label(tmp_path):
    root, images = site_of_series(tmp_path)
    as_seg(root, images)
    columns = {"skeletal_muscle": None, "visceral_fat": CODED["vertebra_L3"], "vertebra_L3": None}
    assert np.array_equal(label_of(loaded(root, columns)) == 2, structures()["vertebra_L3"].transpose(2, 1, 0))


def test_the_series_is_read_that_the_segmentation_names(tmp_path):
    root, images = site_of_series(tmp_path)
    other = slices_of(body(*SHAPE) + np.int16(40), series=generate_uid())
    for place, image in enumerate(other):
        image.SeriesNumber = 1
        image.save_as(root / "images" / "A" / f"other{place}.dcm", enforce_file_format=True)
    seg(other, chosen()).save_as(root / "labels" / "A.dcm")
    named = next(iter(loaded(root, {}).test_dataloader()))["image"]
    (root / "labels" / "A.dcm").unlink()
    seg(images, chosen()).save_as(root / "labels" / "A.dcm")
    assert float(named.max() - next(iter(loaded(root, {}).test_dataloader()))["image"].max()) == pytest.approx(
        0.04, abs=2e-3
    )


def test_masks_that_are_read_in_parts_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.segmentation.labels.MASK_BYTES", 1)
    for form in ("SEG by code", "numbers", "masks"):
        root, images = site_of_series(tmp_path / form)
        FORMS[form][0](root, images)
        assert np.array_equal(label_of(loaded(root, FORMS[form][1])), expected())


def refused(root, columns, image=None, names=NAMES):
    with pytest.raises(ValueError, match="no scan to test on") as caught:
        loaded(root, columns, image, names)
    return str(caught.value).partition("1 x ")[2]


def test_what_does_not_say_which_structure_is_meant_is_refused(tmp_path):
    root, images = site_of_series(tmp_path)
    as_seg(root, images)
    assert refused(root, {"skeletal_muscle": 1}) == NO_NAME
    assert refused(root, {name: f"other {name}" for name in NAMES}) == NO_STRUCTURE
    as_numbers(root, images)
    assert refused(root, {}) == Reason.SEVERAL_LABELS.value
    (root / "labels" / "A.dcm").unlink()
    (root / "labels" / "A.nii.gz").unlink()
    as_masks(root, images)
    assert refused(root, CODED) == NO_NAME


def test_masks_of_pictures_are_numbers_and_no_colors(tmp_path):
    root, path = pictures(tmp_path, 1), tmp_path / "labels" / "A0.png"
    mask = np.asarray(Image.open(path))
    palette = Image.fromarray((mask > 0).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(path)
    assert np.array_equal(label_of(loaded(root, {"s": 1}, Pictures(), ["s"])) == 1, mask > 0)
    Image.fromarray(mask).convert("RGB").save(path)
    assert refused(root, {"s": 255}, Pictures(), ["s"]) == Reason.LABELS_UNREADABLE.value
    Image.fromarray(mask[:-1]).save(path)
    assert refused(root, {"s": 255}, Pictures(), ["s"]) == Reason.LABELS_MISMATCH.value


def gray_png(path: Path, mask: np.ndarray, bits: int) -> None:
    """A gray PNG of 2 or 4 bits, as Pillow reads and does not write (ISO/IEC 15948, 11.2)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    per_byte = 8 // bits
    whole = np.pad(mask.astype(np.uint8), ((0, 0), (0, -mask.shape[1] % per_byte)))
    packed = sum(whole[:, place::per_byte] << (8 - bits * (place + 1)) for place in range(per_byte)).astype(np.uint8)
    head = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(("bits", "number"), [(2, 1), (2, 3), (4, 3), (4, 15)])
def test_a_mask_of_two_or_four_bits_holds_the_numbers_that_were_stored(tmp_path, bits, number):
    root, path = pictures(tmp_path, 1), tmp_path / "labels" / "A0.png"
    mask = np.asarray(Image.open(path)) > 0
    gray_png(path, mask * number, bits)
    assert np.unique(picture_numbers(path)).tolist() == [0, number]
    assert np.array_equal(label_of(loaded(root, {"s": number}, Pictures(), ["s"])) == 1, mask)


def test_pictures_may_have_a_folder_of_masks(tmp_path):
    root = pictures(tmp_path, 1)
    mask = np.asarray(Image.open(root / "labels" / "A0.png"))
    (root / "labels" / "A0.png").unlink()
    (root / "labels" / "A0").mkdir()
    Image.fromarray(mask).save(root / "labels" / "A0" / "lesion.png")
    assert np.array_equal(label_of(loaded(root, {"s": "lesion"}, Pictures(), ["s"])) == 1, mask > 0)
