"""Gray levels of a film: as its makers want it shown, by what the file says and never by one odd pixel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut

from datamodules.dicom import Reason, Unreadable
from tests.datamodules.test_radiograph import read, write_radiograph

SEEN = np.tile(np.linspace(0.1, 0.9, 48), (40, 1))
SEEN[:8, :10], SEEN[32:, 40:] = 1, 0
STORED = np.rint(SEEN * 4095).astype(np.uint16)
EDGE = np.arange(48)[None] < 12  # beside the collimator, where a plate has no film


def table(entries: np.ndarray, first: int = 0, bits: int = 12) -> Dataset:
    made = Dataset()
    made.LUTDescriptor, made.ModalityLUTType = [len(entries) % 2**16, first, bits], "US"
    made.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return made


def alike(picture: np.ndarray) -> float:
    """1 is the same picture, -1 its negative."""
    return float(np.corrcoef(picture.ravel(), SEEN.ravel())[0, 1])


@pytest.mark.parametrize(
    ("padded", "tags"),
    [
        (np.where(EDGE, 4095, STORED // 2), {"PixelPaddingValue": 4095}),
        (np.where(EDGE, 0, 4095 - STORED // 2), {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}),
        (np.where(EDGE, 3900, STORED // 2), {"PixelPaddingValue": 3890, "PixelPaddingRangeLimit": 4095}),
        (np.where(EDGE, 63536, STORED // 2), {"PixelPaddingValue": 63536, "BitsStored": 16, "HighBit": 15}),
    ],
    ids=["bright", "MONOCHROME1", "a range of values", "16 bits"],
)
def test_padding_is_dark_and_sets_no_range(padded, tags, tmp_path):
    picture = read(write_radiograph(tmp_path / "film.dcm", padded, **tags))
    assert not picture[:, :12].any()
    assert (picture[:, 12:].min(), picture[:, 12:].max()) == (0, 1)
    assert np.corrcoef(picture[:, 12:].ravel(), SEEN[:, 12:].ravel())[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("hot", [65535, 0], ids=["hot", "dead"])
def test_one_odd_pixel_sets_no_range(hot, tmp_path):
    stored = STORED // 4 + 2000
    whole = read(write_radiograph(tmp_path / "whole.dcm", stored, BitsStored=16, HighBit=15))
    stored[20, 30] = hot
    picture = read(write_radiograph(tmp_path / "film.dcm", stored, BitsStored=16, HighBit=15))
    assert np.abs(np.delete(picture.ravel() - whole.ravel(), 20 * 48 + 30)).max() == 0


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 0, "WindowWidth": 0},
        {"WindowCenter": 2048, "WindowWidth": -5},
        {"WindowWidth": 400},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
    ids=["width 0", "negative", "without a center", "empty"],
)
def test_a_window_that_shows_nothing_is_none(tags, tmp_path):
    assert alike(read(write_radiograph(tmp_path / "film.dcm", STORED, **tags))) == pytest.approx(1)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(0, 1), (0.5, 1), (0, 2), (2048, 2), (-6000, 1600), (9000, 400)])
def test_a_window_that_leaves_black_and_white_alone_is_refused(center, width, function, tmp_path):
    tags = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    path = write_radiograph(tmp_path / "film.dcm", STORED, **tags)
    with pytest.raises(Unreadable) as refused:
        read(path)
    assert refused.value.reason is Reason.INVALID_DISPLAY


def test_a_film_of_two_values_is_read_through_its_window(tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", (STORED > 2000) * 4095, WindowCenter=2048, WindowWidth=2)
    assert set(np.unique(read(path))) == {0, 1}


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_shows_what_pydicom_shows_through_it(function, tmp_path):
    window = {"WindowCenter": [1500, 40], "WindowWidth": [900, 400], "VOILUTFunction": function}
    rescale = {"RescaleSlope": "0.5", "RescaleIntercept": "-100"}
    path = write_radiograph(tmp_path / "film.dcm", STORED, **window, **rescale)
    low, high = -100, 4095 * 0.5 - 100  # to where pydicom maps the window
    theirs = apply_voi_lut(STORED * 0.5 - 100, dcmread(path))
    assert read(path) == pytest.approx((theirs - low) / (high - low), abs=1e-6)


def test_a_window_is_the_whole_range_even_if_the_film_uses_little_of_it(tmp_path):
    path = write_radiograph(tmp_path / "film.dcm", STORED, WindowCenter=4096, WindowWidth=8192)
    assert read(path).max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (STORED, {"ModalityLUTSequence": [table(np.arange(4096))]}),
        (STORED, {"VOILUTSequence": [table(np.arange(4096))]}),
        (4095 - STORED, {"VOILUTSequence": [table(np.arange(4096)[::-1])], "WindowCenter": 0, "WindowWidth": 1}),
        (STORED + 1000, {"ModalityLUTSequence": [table(np.arange(4096), first=1000)], "BitsStored": 16, "HighBit": 15}),
        (STORED, {"ModalityLUTSequence": [table(np.arange(4096) * 16, bits=16)]}),
        (STORED, {"VOILUTSequence": [table(np.arange(4096) + 2**13, 63536, 14)], "RescaleIntercept": -2000}),
    ],
    ids=["12 bits", "VOI", "inverting", "first value", "16 bits", "first value below 0"],
)
def test_lookup_tables_are_used(stored, tags, tmp_path):
    assert alike(read(write_radiograph(tmp_path / "film.dcm", stored, **tags))) == pytest.approx(1, abs=1e-6)


def test_a_table_of_numbers_is_read_too(tmp_path):
    numbers = table(np.arange(4096))
    numbers.add_new("LUTData", "US", list(range(4096)))
    path = write_radiograph(tmp_path / "film.dcm", STORED, VOILUTSequence=[numbers])
    assert alike(read(path)) == pytest.approx(1)


def test_a_negative_that_says_so_twice_is_turned_over_once(tmp_path):
    says = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    assert alike(read(write_radiograph(tmp_path / "film.dcm", 4095 - STORED, **says))) == pytest.approx(1)


def test_a_table_of_bytes_is_read_with_two_in_a_word(tmp_path):
    packed = table(np.arange(256), bits=8)
    packed.add_new("LUTData", "OW", np.arange(256, dtype=np.uint8).tobytes())
    path = write_radiograph(tmp_path / "film.dcm", STORED // 16, VOILUTSequence=[packed])
    assert alike(read(path)) == pytest.approx(1, abs=1e-3)


def with_comma(name: str) -> Callable[[Path], Path]:
    """Writes a film whose number `name` has a comma, as a console set to a European language wrote it."""

    def write(path: Path) -> Path:
        write_radiograph(path, STORED, WindowCenter="2047.5", WindowWidth="4095.5", RescaleSlope="1.25")
        point = {"WindowCenter": b"2047.5", "WindowWidth": b"4095.5", "RescaleSlope": b"1.25"}[name]
        content = path.read_bytes()
        assert content.count(point) == 1
        path.write_bytes(content.replace(point, point.replace(b".", b",")))
        return path

    return write


def written(**tags: object) -> Callable[[Path], Path]:
    return lambda path: write_radiograph(path, STORED, **tags)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (written(PresentationLUTShape="INVERSE"), Reason.AMBIGUOUS_POLARITY),
        (
            written(PresentationLUTShape="IDENTITY", PhotometricInterpretation="MONOCHROME1"),
            Reason.AMBIGUOUS_POLARITY,
        ),
        (written(PresentationLUTShape="LIN OD"), Reason.AMBIGUOUS_POLARITY),
        (with_comma("WindowCenter"), Reason.INVALID_NUMBER),
        (with_comma("WindowWidth"), Reason.INVALID_NUMBER),
        (with_comma("RescaleSlope"), Reason.INVALID_NUMBER),
        (written(VOILUTSequence=[Dataset()]), Reason.INVALID_DISPLAY),
        (written(WindowCenter=9, WindowWidth=9, VOILUTFunction="CUBIC"), Reason.INVALID_DISPLAY),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_by_name(write, reason, tmp_path):
    with pytest.raises(Unreadable) as refused:
        read(write(tmp_path / "film.dcm"))
    assert refused.value.reason is reason
