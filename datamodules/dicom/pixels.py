"""From the stored pixels of one slice to HU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import malformed_is, read_dicom
from datamodules.dicom.geometry import InPlane
from datamodules.dicom.headers import Header
from datamodules.dicom.hounsfield import AIR, check_hounsfield
from datamodules.dicom.padding import check_padding
from datamodules.dicom.rescale import Rescale
from datamodules.dicom.stored import GRAYSCALE
from datamodules.dicom.volume import Reason, Unreadable

# Fewer than one voxel in some hundred of a scanned body is denser than this (bone, contrast, metal).
_DENSE_HU = 400.0
_POLARITY_MARGIN = 0.1
AS_STORED = InPlane(transpose=False, flip_rows=False, flip_columns=False)


@dataclass(frozen=True)
class Plane:
    """One slice, oriented as it is stored: `stored` values (row, column), integers, and what they mean."""

    stored: NDArray[Any]
    rescale: Rescale

    @property
    def padding(self) -> NDArray[np.bool_] | None:
        """Where the file marks padding, bool (row, column); None where it marks none."""
        if self.rescale.padding is None:
            return None
        low, high = self.rescale.padding
        return (self.stored >= low) & (self.stored <= high)

    def into(self, hu: NDArray[np.float32], turn: InPlane) -> None:
        """Write HU into `hu`, turned, NaN where the file marks padding."""
        slope, intercept = self.rescale.slope, self.rescale.intercept
        stored = turn.apply(self.stored)
        # Whole numbers below 2^24 are exact in float32; else what is rounded is the product in float64, as ever.
        whole = slope.is_integer() and intercept.is_integer()
        if whole and self.stored.dtype.itemsize <= 2 and abs(slope) * 2**16 + abs(intercept) < 2**24:
            np.multiply(stored, np.float32(slope), out=hu, casting="unsafe", dtype=np.float32)
            hu += np.float32(intercept)
        else:
            hu[...] = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
        if (padding := self.padding) is not None:
            hu[turn.apply(padding)] = np.nan

    def same(self, other: Plane) -> bool:
        """Whether two slices show the same values, whatever their rescaling."""
        hu = np.empty((2, *self.stored.shape), np.float32)
        for each, out in zip((self, other), hu, strict=True):
            each.into(out, AS_STORED)
        return bool(np.array_equal(hu[0], hu[1], equal_nan=True))


def read_planes(headers: Sequence[Header], decoder: Decoder) -> Iterator[Plane]:
    """Decode slices, in order. A modality other than CT may have no rescaling.

    Raises `Unreadable`: CORRUPT, TRUNCATED, UNSUPPORTED_COMPRESSION, UNDECODABLE, NOT_GRAYSCALE.
    """
    found = [header.pixels for header in headers if header.pixels is not None]
    if len(found) == len(headers):
        frames = decoder.each(found)
    else:
        frames = chain.from_iterable(
            _parsed(path, [header.frame for header in run], decoder)
            for path, run in groupby(headers, key=lambda header: header.path)
        )
    for header, stored in zip(headers, frames, strict=True):
        if stored.shape != (header.rows, header.columns):
            raise Unreadable(Reason.CORRUPT)
        yield Plane(stored, header.rescale)


def _parsed(path: Path, frames: Sequence[int], decoder: Decoder) -> Iterator[NDArray[Any]]:
    """Frames of a file that has to be parsed as a whole."""
    data = read_dicom(path)
    with malformed_is(Reason.CORRUPT):
        photometric = str(data.get("PhotometricInterpretation", "")).strip()
    if photometric not in GRAYSCALE:
        raise Unreadable(Reason.NOT_GRAYSCALE)
    yield from decoder.frames(data, path, frames)


def settle(hu: NDArray[np.float32], rescales: Sequence[Rescale], *, whole_picture: bool) -> bool:
    """Settle polarity, then padding (NaN), of a volume (slice, row, column) in place; `rescales` are of its slices.

    Whether the scale is confirmed, as that of CT is by air; `whole_picture` as in `check_hounsfield`.

    By the standard, MONOCHROME1 concerns display alone and the rescaled values are HU as they stand. Converters that
    stored inverted values under that name exist all the same. A body tells: nearly none of it is denser than 400 HU.
    Raises `Unreadable`: AMBIGUOUS_POLARITY where that does not decide; of CT, the reasons of `check_hounsfield` and
    `check_padding`.
    """
    mirrors = np.array([each.inverse for each in rescales])
    marked = np.flatnonzero(~np.isnan(mirrors))
    if marked.size:
        flipped = mirrors[marked, None, None].astype(np.float32) - hu[marked]
        known = max(int((~np.isnan(flipped)).sum()), 1)
        gain = (int((flipped <= _DENSE_HU).sum()) - int((hu[marked] <= _DENSE_HU).sum())) / known
        if abs(gain) < _POLARITY_MARGIN:
            raise Unreadable(Reason.AMBIGUOUS_POLARITY)
        if gain > 0:
            hu[marked] = flipped
    confirmed = True
    if rescales[0].hounsfield:
        meant = [each.meant_by_padding for each in rescales]
        confirmed = check_hounsfield(hu, whole_picture=whole_picture, meant=meant)
        check_padding(hu, meant)
    if any(each.padding for each in rescales):
        hu[np.isnan(hu)] = AIR
    return confirmed
