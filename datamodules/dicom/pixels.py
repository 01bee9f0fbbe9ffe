"""From the stored pixels of one slice to HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.files import malformed_is, read_dicom
from datamodules.dicom.headers import Header, number
from datamodules.dicom.volume import Reason, Unreadable

# HU of what lies outside the scanner's field: air, by definition of the scale.
AIR = -1000.0
# Fewer than one voxel in some hundred of a scanned body is denser than this (bone, contrast, metal).
_DENSE_HU = 400.0
_POLARITY_MARGIN = 0.1


@dataclass(frozen=True)
class Plane:
    """One slice, oriented as it is stored.

    `hu`: float32 (row, column), NaN where the file marks padding. `mirror`: for MONOCHROME1, the sum of the HU of a
    voxel and of the same voxel stored inverted; NaN for MONOCHROME2.
    """

    hu: NDArray[np.float32]
    mirror: float


def read_plane(header: Header, decoder: Decoder) -> Plane:
    """Decode one slice, apply its own rescale slope and intercept (1 and 0 where a modality other than CT has none).

    Raises `Unreadable`: CORRUPT, TRUNCATED, UNSUPPORTED_COMPRESSION, UNDECODABLE, NOT_GRAYSCALE.
    """
    data = read_dicom(header.path)
    with malformed_is(Reason.CORRUPT):
        photometric = str(data.get("PhotometricInterpretation", "")).strip()
        slope, intercept = number(data, "RescaleSlope") or 1.0, number(data, "RescaleIntercept") or 0.0
        bits, signed = int(data.BitsStored), int(data.PixelRepresentation) == 1
        padding = _padding(data, signed)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(Reason.NOT_GRAYSCALE)
    (stored,) = decoder.frames(data, header.path, [0])
    if stored.shape != (header.rows, header.columns):
        raise Unreadable(Reason.CORRUPT)
    hu = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    if padding is not None:
        hu[(stored >= padding[0]) & (stored <= padding[1])] = np.nan
    # The stored value v inverted is lowest + highest - v.
    ends = -1 if signed else 2**bits - 1
    return Plane(hu, slope * ends + 2 * intercept if photometric == "MONOCHROME1" else np.nan)


def settle(hu: NDArray[np.float32], mirrors: NDArray[np.float64]) -> None:
    """Settle polarity, then padding, of a volume (slice, row, column) in place. `mirrors`: `Plane.mirror` by slice.

    By the standard, MONOCHROME1 concerns display alone and the rescaled values are HU as they stand. Converters that
    stored inverted values under that name exist all the same. A body tells: nearly none of it is denser than 400 HU.
    Raises `Unreadable`: AMBIGUOUS_POLARITY where that does not decide.
    """
    marked = np.flatnonzero(~np.isnan(mirrors))
    if marked.size:
        flipped = mirrors[marked, None, None].astype(np.float32) - hu[marked]
        known = max(int((~np.isnan(flipped)).sum()), 1)
        gain = (int((flipped <= _DENSE_HU).sum()) - int((hu[marked] <= _DENSE_HU).sum())) / known
        if abs(gain) < _POLARITY_MARGIN:
            raise Unreadable(Reason.AMBIGUOUS_POLARITY)
        if gain > 0:
            hu[marked] = flipped
    np.nan_to_num(hu, copy=False, nan=AIR)


def _padding(data: FileDataset, signed: bool) -> tuple[int, int] | None:
    """Lowest and highest stored value that mark padding; None without the tag.

    Files exist that write -2000 as the unsigned 63536: both mean the same bits.
    """
    if data.get("PixelPaddingValue") is None:
        return None
    span = 2 ** int(data.BitsAllocated)
    limit = data.get("PixelPaddingRangeLimit")
    ends = [int(data.PixelPaddingValue), int(data.PixelPaddingValue if limit is None else limit)]
    low, high = sorted((end + span // 2) % span - span // 2 if signed else end % span for end in ends)
    return low, high
