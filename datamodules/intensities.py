"""How images look before any training: their gray levels in bins, their mean, and whether one shows nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 24  # of equal width, from 0 to 1 of the study's window
FLAT = 0.1  # of the window: an image whose values differ by less is nearly one gray level, as 12 bits taken for 16
SATURATED = 0.95  # share of the pixels at one end of the window from which on an image is saturated
VARIED, ONE_LEVEL, CUT = LOOKS = ("varied", "nearly one gray level", "saturated")
"""How an image can look: as images do, constant, or nearly all of it white or black."""


def look(image: NDArray[Any]) -> str:
    """How an image looks, of values 0 to 1 in any shape."""
    if float(image.max()) - float(image.min()) < FLAT:
        return ONE_LEVEL
    ends = max(int((image <= 0).sum()), int((image >= 1).sum()))
    return CUT if ends >= SATURATED * image.size else VARIED


def shares(image: NDArray[Any]) -> NDArray[np.float64]:
    """Share of an image's pixels by bin, float64 [BINS]; they add up to 1."""
    bins = np.minimum(image.astype(np.float32) * BINS, BINS - 1).astype(np.int64).ravel()
    return np.bincount(bins, minlength=BINS) / bins.size


def thumbnail(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image [c, h, w], or the middle of a volume [c, h, w, d], of values 0 to 1, as [h, w] or in color [h, w, 3]."""
    plane = image[..., image.shape[3] // 2] if image.ndim == 4 else image
    levels = np.rint(255 * plane.astype(np.float32)).astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def thumbnails(
    images: Sequence[NDArray[Any] | None], names: Sequence[str | None], unread: Iterable[tuple[str, str]], number: int
) -> list[tuple[str, str, NDArray[np.uint8] | None]]:
    """Of images by row, for their site's own eyes: the name, what is wrong, and uint8 [h, w] or [h, w, 3].

    Up to `number` of those that could not be read (None; `unread` are their names and why), as many that show nothing,
    and as many others, spread over the rows.
    """
    looks = {row: look(image) for row, image in enumerate(images) if image is not None}
    odd, others = ([row for row in looks if (looks[row] == VARIED) is varied] for varied in (False, True))
    found: list[tuple[str, str, NDArray[np.uint8] | None]] = [(name, why, None) for name, why in unread][:number]
    for row in (*odd[:number], *(others[place] for place in spread(len(others), number))):
        image = images[row]
        if image is not None:
            found.append((str(names[row]), looks[row].replace(VARIED, ""), thumbnail(image)))
    return found


def spread(number: int, most: int) -> NDArray[np.int64]:
    """Up to `most` of so many places, evenly spread, always the same ones."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(number, most)).round().astype(np.int64))
