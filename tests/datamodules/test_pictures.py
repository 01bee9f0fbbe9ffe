"""The values of pictures and arrays by their type and by what the study declares: never white, black or a guess."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, TiffImagePlugin

from datamodules.dicom import Decoder, Reason, Unreadable
from datamodules.image_files import files_below
from datamodules.images import UNREADABLE, Images
from datamodules.multimodal import Multimodal
from datamodules.npz import NPZ
from datamodules.pictures import Unfit, as_declared, picture
from datamodules.records import Records
from datamodules.remarks import NOTHING
from datamodules.splits import ByColumn
from datamodules.targets import Binary
from tests.datamodules.test_radiograph import write_radiograph

SEEN = np.tile(np.linspace(0, 1, 64), (48, 1))
EIGHT = (SEEN * 255).round().astype(np.uint8)
SIXTEEN = (SEEN * 65535).round().astype(np.uint16)


def saved(path: Path, values: np.ndarray | Image.Image, **options: object) -> Path:
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


def reason(call, *arguments: object, **options: object) -> Reason:
    with pytest.raises(Unreadable) as refused:
        call(*arguments, **options)
    return refused.value.reason


def white_is_zero(path: Path, values: np.ndarray) -> Path:
    """A gray TIFF that says that 0 is white; Pillow writes that it is black, whatever it is told."""
    tag = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00"
    content = bytearray(saved(path, values).read_bytes())
    content[content.index(tag) + len(tag)] = 0
    path.write_bytes(bytes(content))
    return path


def unsigned_32(path: Path, values: np.ndarray) -> Path:
    """A TIFF of unsigned numbers of 32 bits; Pillow writes that they are signed, whatever it is told."""
    tag = TiffImagePlugin.SAMPLEFORMAT.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00"
    content = bytearray(saved(path, values.view(np.int32)).read_bytes())
    content[content.index(tag) + len(tag)] = 1
    path.write_bytes(bytes(content))
    return path


def signed(path: Path, values: np.ndarray) -> Path:
    """A TIFF of 8 bits that says that they are signed."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 2
    return saved(path, values.view(np.uint8), tiffinfo=tags)


def in_planes(path: Path, planes: np.ndarray) -> Path:
    """A TIFF of colors, uncompressed, all of red, then all of green and of blue, as Fiji and BioFormats write them."""
    size, (channels, rows, columns) = planes.itemsize, planes.shape
    first = 8 + 2 + 12 * 9 + 4
    each, after = rows * columns * size, first + 3 * 6
    bits, places, lengths = first, after, after + 12
    tags = [
        (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, channels, places), (277, 3, 1, channels), (279, 4, channels, lengths), (284, 3, 1, 2),
    ]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head += struct.pack("<I", 0) + struct.pack("<3H", *[8 * size] * 3).ljust(18, b"\0")
    begin = len(head) + 24
    head += struct.pack("<3I", *(begin + number * each for number in range(3))) + struct.pack("<3I", *[each] * 3)
    path.write_bytes(head + planes.tobytes())
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_of_16_bits_that_lie_in_planes_are_refused_and_of_8_are_read(channels, tmp_path):
    planes = np.stack([np.full((6, 6), level, np.uint8) for level in (250, 120, 10)])
    planes[:, 2:4] //= 2
    wanted = picture(saved(tmp_path / "a.png", np.moveaxis(planes, 0, -1).copy()), channels)
    np.testing.assert_array_equal(picture(in_planes(tmp_path / "a.tif", planes), channels), wanted)
    path = in_planes(tmp_path / "b.tif", planes.astype(np.uint16) * 257)
    assert reason(picture, path, channels) is Reason.NO_PICTURE


@pytest.mark.parametrize(("values", "refused"), [("type", Reason.NO_RANGE), ("stored", Reason.NOT_AS_STORED)])
def test_signed_pictures_of_8_bits_are_not_wrapped(values, refused, tmp_path):
    path = signed(tmp_path / "a.tif", (SEEN * 254 - 127).round().astype(np.int8))
    assert reason(picture, path, 1, values=values) is refused


@pytest.mark.parametrize("values", ["type", "stored"])
def test_numbers_of_which_0_is_white_are_not_read_upside_down(values, tmp_path):
    path = white_is_zero(tmp_path / "a.tif", (1000 * SEEN).astype(np.float32))
    assert reason(picture, path, 1, values=values) is Reason.WHITE_IS_ZERO


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_picture_of_16_bits_is_that_of_8_bits(name, channels, tmp_path):
    images = Images([48, 64], channels, mean=0, deviation=1)
    eight = images._fitted(picture(saved(tmp_path / "8.png", EIGHT), channels))
    sixteen = images._fitted(picture(saved(tmp_path / name, SIXTEEN), channels))
    assert sixteen == pytest.approx(eight, abs=1 / 255)
    assert eight.mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
@pytest.mark.parametrize(("ending", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("values", [EIGHT, SIXTEEN], ids=["8 bits", "16 bits"])
def test_a_picture_is_upright_as_its_camera_says(values, ending, options, turned, tmp_path):
    marked = values.copy()
    marked[:10, :5] = values.max()
    says = Image.Exif()
    says[0x0112] = turned
    path = saved(tmp_path / f"a.{ending}", marked, exif=says, **options)
    upright = np.rot90(marked, {1: 0, 3: 2, 6: -1, 8: 1}[turned])
    assert picture(path, 1) == pytest.approx(upright * (255 / np.iinfo(values.dtype).max), abs=1e-3)


def test_a_picture_of_16_bits_that_says_0_is_white_is_turned_over(tmp_path):
    inverted = white_is_zero(tmp_path / "a.tif", 65535 - SIXTEEN)
    assert picture(inverted, 1) == pytest.approx(255 * SEEN, abs=0.01)


def test_a_picture_of_12_bits_has_the_range_of_12(tmp_path):
    stored = np.rint(SEEN[:2] * 4095).astype(int)
    pairs = stored.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1).astype("u1")
    entries = {256: 64, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: packed.size}
    fields = b"".join(np.array([tag, 4], "<u2").tobytes() + np.array([1, value], "<u4").tobytes()
                      for tag, value in entries.items())  # fmt: skip
    place = np.array([8 + packed.size], "<u4").tobytes()
    header = b"II*\0" + place + packed.tobytes() + np.array([len(entries)], "<u2").tobytes()
    (tmp_path / "a.tif").write_bytes(header + fields + bytes(4))
    assert picture(tmp_path / "a.tif", 1) == pytest.approx(255 * SEEN[:2], abs=0.05)


@pytest.mark.parametrize("values", [SEEN.astype(np.float32), (SIXTEEN // 2).astype(np.int32)], ids=["float", "signed"])
def test_a_type_without_a_range_is_read_only_as_declared(values, tmp_path):
    path = saved(tmp_path / "a.tif", values)
    assert reason(picture, path, 1) is Reason.NO_RANGE
    assert np.array_equal(picture(path, 1, values="stored"), values)


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (SEEN.astype(np.float64), [0, 1]),
        ((SEEN * 2000 - 1000).round().astype(np.int16), [-1000, 1000]),
        ((SEEN * 4095).round().astype(np.uint16), [0, 4095]),
        (EIGHT, [0, 255]),
    ],
    ids=["float", "HU", "12 bits in 16", "8 bits"],
)
def test_values_as_stored_are_taken_by_the_window(values, window):
    images = Images([48, 64], 1, values="stored", window=window)
    assert images._on_grid(values)[0] == pytest.approx(SEEN, abs=3e-3)


@pytest.mark.parametrize(
    ("values", "scaled"),
    [(EIGHT, EIGHT), (SIXTEEN, 255 * SEEN), ((SEEN * (2**32 - 1)).astype(np.uint32), 255 * SEEN), (SEEN > 0.5, None)],
    ids=["uint8", "uint16", "uint32", "bool"],
)
def test_an_unsigned_array_is_taken_by_its_whole_range(values, scaled):
    assert as_declared(values, "type") == pytest.approx(255 * (SEEN > 0.5) if scaled is None else scaled, abs=0.01)


def test_a_picture_of_32_unsigned_bits_is_taken_by_its_whole_range(tmp_path):
    numbers = (SEEN * (2**32 - 1)).astype(np.uint32)
    path = unsigned_32(tmp_path / "a.tif", numbers)
    assert picture(path, 1) == pytest.approx(255 * SEEN, abs=0.01)
    assert np.array_equal(picture(path, 1, values="stored"), numbers)


COLORS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 90, 200]]], np.uint8)


@pytest.mark.parametrize("form", ["archive", "npy", "16 bits"])
def test_colors_become_gray_alike_in_arrays_and_in_pictures(form, tmp_path):
    images = Images([1, 4], mean=0, deviation=1)
    with Decoder() as decoder:
        right = images._from_file(saved(tmp_path / "a.png", COLORS), decoder)["image"]
        np.save(tmp_path / "a.npy", COLORS if form == "npy" else COLORS.astype(np.uint16) * 257)
        found = (
            images._on_grid(COLORS) if form == "archive" else images._from_file(tmp_path / "a.npy", decoder)["image"]
        )
    assert found == pytest.approx(right, abs=0.6 / 255) and right[0, 0, 1] > 2 * right[0, 0, 2] > 0


@pytest.mark.parametrize("last", [1, 3])
def test_a_color_picture_is_no_volume(last, tmp_path):
    images = Images([4, 4, 2], values="type")
    array = np.zeros((8, 8, last), np.uint8)
    np.save(tmp_path / "a.npy", array)
    with Decoder() as decoder:
        assert reason(images._on_grid, array) is Reason.COLOR_OR_VOLUME
        assert reason(images._from_file, tmp_path / "a.npy", decoder) is Reason.COLOR_OR_VOLUME
    assert (
        images._on_grid(array[..., None]).shape == images._on_grid(np.zeros((8, 8, 5), np.uint8)).shape == (1, 4, 4, 2)
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float16, np.float32, np.float64, np.complex64])
def test_an_array_without_a_range_is_refused(dtype):
    with pytest.raises(ValueError, match="without a range of their own"):
        Images([48, 64])._on_grid(SEEN.astype(dtype))


def test_what_is_no_number_is_refused():
    values = SEEN.astype(np.float32)
    values[3, 3] = np.nan
    assert reason(Images([48, 64], values="stored")._on_grid, values) is Reason.NOT_FINITE
    assert reason(Images([48, 64], values="stored")._on_grid, np.full((48, 64), 1e300)) is Reason.NOT_FINITE


def layered(mode: str) -> Image.Image:
    """White that is opaque at the left and shows what is behind it at the right."""
    alpha = Image.fromarray(np.where(np.arange(8)[None] < 4, 255, 0).repeat(4, 0).astype(np.uint8))
    white = Image.new("RGB", (8, 4), (255, 255, 255))
    white.putalpha(alpha)
    return white.convert(mode)


def palette() -> Image.Image:
    """Two colors, the second at the right."""
    made = Image.new("P", (8, 4))
    made.putpalette([255, 0, 0, 0, 0, 255])
    made.paste(1, (4, 0, 8, 4))
    return made


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_picture_is_blended_on_the_declared_background(mode, channels, tmp_path):
    path = saved(tmp_path / "a.png", layered(mode))
    assert reason(picture, path, channels) is Reason.TRANSPARENT
    for background in (0, 128):
        shown = picture(path, channels, background=background)
        assert (shown[:, :4] == 255).all() and (shown[:, 4:] == background).all()


def test_other_transparency_is_blended_too(tmp_path):
    colors = saved(tmp_path / "p.png", palette(), transparency=1)
    assert reason(picture, colors, 3) is Reason.TRANSPARENT
    assert picture(colors, 3, background=9)[0].tolist() == [[255, 0, 0]] * 4 + [[9, 9, 9]] * 4
    one_gray = saved(tmp_path / "l.png", EIGHT, transparency=0)
    assert reason(picture, one_gray, 1) is Reason.TRANSPARENT
    assert picture(one_gray, 1, background=77)[0, 0] == 77


def test_a_palette_and_an_opaque_layer_are_no_transparency(tmp_path):
    assert picture(saved(tmp_path / "p.png", palette()), 3)[0].tolist() == [[255, 0, 0]] * 4 + [[0, 0, 255]] * 4
    assert picture(saved(tmp_path / "p.bmp", palette()), 1)[0].tolist() == [76] * 4 + [29] * 4
    opaque = Image.fromarray(EIGHT).convert("RGBA")
    assert np.array_equal(picture(saved(tmp_path / "o.png", opaque), 1), EIGHT)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_picture_of_few_bits_is_not_taken_as_stored(tmp_path, bits):
    width, height = 16, 4
    rows = b"".join(b"\0" + bytes([0b00001111]) * (width * bits // 8) for _ in range(height))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert picture(path, 1).max() == 255
    with pytest.raises(Unreadable) as refused:
        picture(path, 1, values="stored")
    assert refused.value.reason is Reason.NOT_AS_STORED


def test_a_picture_of_one_bit_is_black_and_white(tmp_path):
    assert np.array_equal(picture(saved(tmp_path / "a.png", SEEN > 0.5), 1), 255 * (SEEN > 0.5))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_several_pages_are_not_one_picture(tmp_path, name):
    first = Image.fromarray(EIGHT)
    path = saved(tmp_path / name, first, save_all=True, append_images=[Image.fromarray(255 - EIGHT)])
    assert reason(picture, path, 1) is Reason.SEVERAL_PAGES


def test_what_is_no_picture_is_said(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    assert reason(picture, tmp_path / "a.png", 1) is Reason.NO_PICTURE
    saved(tmp_path / "lab.tif", Image.new("LAB", (8, 4)))
    assert reason(picture, tmp_path / "lab.tif", 3) is Reason.NO_PICTURE


def test_gray_levels_of_a_film_are_no_stored_values(tmp_path):
    film = write_radiograph(tmp_path / "a.dcm", SIXTEEN // 16)
    with Decoder() as decoder:
        assert reason(Images([48, 64], values="stored")._from_file, film, decoder) is Reason.NOT_AS_STORED


def test_two_files_of_one_name_are_ambiguous_unless_the_table_says_which(tmp_path):
    saved(tmp_path / "scan1.png", EIGHT)
    saved(tmp_path / "scan1.bmp", 255 - EIGHT)
    (tmp_path / "study").mkdir()
    saved(tmp_path / "study.tif", EIGHT)
    saved(tmp_path / "alone.tif", EIGHT)
    found = files_below(tmp_path)
    for name in ("scan1", "scan1.jpg", "study"):
        with pytest.raises(Unfit) as refused:
            found[name]
        assert refused.value.reason is Reason.AMBIGUOUS_NAME
    assert found["scan1.png"].name == "scan1.png"
    assert found["alone"].name == found["alone.png"].name == "alone.tif"
    assert found.get("nowhere") is None


@pytest.fixture
def site(tmp_path) -> Path:
    """Six pictures of 16 bits, one float, one of two of a name; a table that names nine."""
    (tmp_path / "images").mkdir()
    rows = [{"acc": f"a{row}", "dx": row % 2} for row in range(9)]
    for row in range(6):
        saved(tmp_path / "images" / f"a{row}.png", SIXTEEN // (1 + row % 2))
    saved(tmp_path / "images" / "a6.tif", SEEN.astype(np.float32))
    for ending in ("png", "tif"):
        saved(tmp_path / "images" / f"a7.{ending}", EIGHT)
    pd.DataFrame(rows).to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path


def cohort(root: Path, **arguments: object) -> Multimodal:
    image = {"size": [12, 16], **arguments}
    return Multimodal(
        str(root), trains=False, target=Binary("dx", [1]), image=Images(**image), records=Records(accession="acc")
    )  # fmt: skip


def test_what_is_left_out_is_counted_by_its_reason(site):
    data = cohort(site)
    data.setup()
    reasons = (Reason.NO_RANGE, Reason.AMBIGUOUS_NAME, Reason.NO_IMAGE)
    unread = {UNREADABLE + each.value: 1 for each in reasons}
    assert data.remarks == data.remarks_persons == {**unread, NOTHING: 3}  # an image is all that there is of a row
    assert set(data.remarks) <= data.REMARKS and not data.skipped
    assert data._pixels.unread == {
        f"a{row}": UNREADABLE + each.value for row, each in zip((6, 7, 8), reasons, strict=True)
    }
    (batch,) = data.test_dataloader()
    assert batch["image_present"].tolist() == [1] * 6 + [0] * 3
    means = (batch["image"] * 0.25 + 0.5).mean(dim=(1, 2, 3))
    assert means[:6].numpy() == pytest.approx([0.5, 0.25] * 3, abs=0.01)


def test_a_site_without_any_image_that_can_be_read_says_why(site):
    for row in range(6):
        (site / "images" / f"a{row}.png").unlink()
    with pytest.raises(
        ValueError,
        match=r"none of 9 images could be read: 7 x .*no file or study.*; 1 x .*signed.*; 1 x .*two files",
    ):
        cohort(site).setup()


def test_a_study_of_images_alone_needs_one(site):
    pd.DataFrame({"acc": ["x", "y"], "dx": [0, 1]}).to_csv(site / "cohort.csv", index=False)
    with pytest.raises(ValueError, match=r"2 x .*no file or study has the name that the table gives"):
        cohort(site).setup()


def test_an_archive_of_16_bits_is_its_twin_of_8(tmp_path):
    read = {}
    for name, images in (("8", EIGHT), ("16", SIXTEEN)):
        np.savez(tmp_path / f"{name}.npz", test_images=images[None].repeat(4, 0), test_labels=np.arange(4) % 2)
        data = Multimodal(
            str(tmp_path / f"{name}.npz"), trains=False, target=Binary("label", [1]), image=Images([12, 16]),
            split=ByColumn("split"),
        )  # fmt: skip
        (batch,) = data.test_dataloader()
        read[name] = batch["image"].numpy()
    assert read["16"] == pytest.approx(read["8"], abs=0.02)
    assert read["8"].std() > 1
    assert NPZ(str(tmp_path / "16.npz")).image("test/0").dtype == np.uint16


def test_a_file_of_one_array_is_read_by_its_type(tmp_path):
    np.save(tmp_path / "a.npy", SIXTEEN)
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY damaged")
    images = Images([48, 64], mean=0, deviation=1)
    with Decoder() as decoder:
        assert images._from_file(tmp_path / "a.npy", decoder)["image"][0] == pytest.approx(SEEN, abs=1e-3)
        assert reason(images._from_file, tmp_path / "b.npy", decoder) is Reason.CORRUPT


@pytest.mark.parametrize("arguments", [{"values": "guess"}, {"background": 300}, {"view": "side"}])
def test_a_declaration_that_means_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match=f"dataset.image.*{next(iter(arguments))}"):
        Images([8, 8], **arguments)
