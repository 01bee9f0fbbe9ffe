"""Pictures and arrays: what their values mean is said by their type and by the study, never by the look of one file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom.files import check_file
from datamodules.dicom.volume import Reason, Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MOST_PIXELS = 2**26  # of one picture, 8,192 a side: a file is written by whoever sent it
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue in a gray level (ITU-R BT.601), as Pillow converts pictures
VALUES = ("type", "stored")
COLORS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # Pillow's modes of 8 bits a channel
BITS_PER_SAMPLE, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF's tags
WHITE_IS_ZERO, UNSIGNED, SIGNED, APART = 0, 1, 2, 2  # values of the second, of the last and of the third
# Raw modes that Pillow does not give as stored: it keeps 8 bits of 16, and stretches 2 and 4 to 8, as it does 1.
SCALED = (";16", "L;2", "L;4")


class Unfit(Unreadable, ValueError):
    """An array, or a file's name, that does not say what the study declares."""


def as_declared(values: NDArray[Any], declared: str, bits: int | None = None) -> NDArray[Any]:
    """Values as the network's window expects them, by the study's `dataset.image.values`.

    "type": the whole range of an unsigned type is 0 to 255, of `bits` where it holds fewer than it could. "stored": as
    they are. Raises `Unfit`: NO_RANGE for a type without a range of its own, which are all signed and float ones.
    """
    kind = values.dtype.kind
    if kind not in "buif" or (declared == "type" and kind not in "bu"):
        raise Unfit(Reason.NO_RANGE)
    if declared == "stored" or values.dtype == np.uint8:
        return values
    highest = 1 if kind == "b" else 2 ** (bits or 8 * values.dtype.itemsize) - 1
    scaled: NDArray[np.float32] = (values * (255.0 / highest)).astype(np.float32)
    return scaled


def read_array(path: Path) -> NDArray[Any]:
    """An array in a file of NumPy's (.npy). Raises `Unreadable`: CORRUPT and those of `check_file`."""
    check_file(path)
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise Unreadable(Reason.CORRUPT) from None
    return found


def picture(path: Path, channels: int, *, values: str = "type", background: float | None = None) -> NDArray[Any]:
    """A picture, [h, w] or [h, w, 3], upright as its camera says, its values `as_declared`; of 8 bits uint8.

    `background`: the gray level, 0 to 255, that shows where the picture is transparent. Raises `Unreadable`: TOO_LARGE,
    NO_PICTURE, SEVERAL_PAGES, TRANSPARENT, NO_RANGE, NOT_AS_STORED, WHITE_IS_ZERO, CORRUPT.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # By its path Pillow maps uncompressed TIFF into memory, and scrambles the rows of one from a turned camera.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise Unreadable(Reason.TOO_LARGE)
            # A camera's MPO has a preview, or the other eye's picture, after the photograph.
            if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
                raise Unreadable(Reason.SEVERAL_PAGES)
            if opened.mode not in COLORS:
                return _numbers(opened, values, background)
            raw = [opened.mode, *(str(tile[3]) for tile in opened.tile)]
            if values == "stored" and any(each == "1" or kind in each for each in raw for kind in SCALED):
                raise Unreadable(Reason.NOT_AS_STORED)
            if _planes_misread(opened):
                raise Unreadable(Reason.NO_PICTURE)
            if SIGNED in np.atleast_1d(getattr(opened, "tag_v2", {}).get(SAMPLE_FORMAT, 1)):  # Pillow wraps 8 bits
                raise Unfit(Reason.NO_RANGE if values == "type" else Reason.NOT_AS_STORED)
            upright = _opaque(ImageOps.exif_transpose(opened), background)
            return np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(Reason.NO_PICTURE) from None
    except Image.DecompressionBombError:
        raise Unreadable(Reason.TOO_LARGE) from None
    except (OSError, SyntaxError, ValueError, struct.error):
        raise Unreadable(Reason.CORRUPT) from None  # what Pillow raises for damaged files; it may quote the path


def _planes_misread(opened: Image) -> bool:
    """Whether colors of more than 8 bits lie plane by plane, uncompressed: Pillow reads each as if it had 8."""
    tags = getattr(opened, "tag_v2", {})
    deep = max(tags.get(BITS_PER_SAMPLE, (8,))) > 8
    return deep and tags.get(PLANES) == APART and any(tile[0] == "raw" for tile in opened.tile)


def _opaque(opened: Image, background: float | None) -> Image:
    """The picture without its transparency, of which one that shows everything is none."""
    from PIL import Image

    if not opened.has_transparency_data:
        return opened
    layers = opened.convert("RGBA")
    if layers.getextrema()[3][0] == 255:
        return opened
    if background is None:
        raise Unreadable(Reason.TRANSPARENT)
    behind = Image.new("RGBA", layers.size, (round(background),) * 3 + (255,))
    return Image.alpha_composite(behind, layers)


def _numbers(opened: Image, values: str, background: float | None) -> NDArray[Any]:
    """A picture of one channel that is more than 8 bits deep: 12 or 16 bits, signed, or of floats."""
    from PIL import ImageOps

    tags = getattr(opened, "tag_v2", {})
    hidden = opened.info.get("transparency")
    found = np.asarray(ImageOps.exif_transpose(opened))
    if not opened.mode.startswith("I;16"):
        if opened.mode not in ("I", "F"):
            raise Unreadable(Reason.NO_PICTURE)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # without a range of its own there is no other end to turn it to
            raise Unfit(Reason.WHITE_IS_ZERO)
        # Of unsigned numbers of 32 bits Pillow wraps the upper half.
        if opened.mode == "I" and opened.format == "TIFF" and tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED:
            found = found.view(np.uint32)
        return as_declared(found, values)
    bits = int(tags.get(BITS_PER_SAMPLE, (16,))[0])
    found = found.astype(np.uint16)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns these over where they have 8 bits, and not here
        found = (2**bits - 1 - found).astype(np.uint16)
    if hidden is not None and (transparent := found == hidden).any():
        if background is None:
            raise Unreadable(Reason.TRANSPARENT)
        found[transparent] = round(background / 255 * (2**bits - 1))
    return as_declared(found, values, bits)
