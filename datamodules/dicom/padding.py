"""Padding of a CT: pixels that were never measured. Whether they lie where nothing of a body does, and their value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.dicom.hounsfield import (
    AIR,
    AROUND,
    LEAST_MODE,
    MOST_MODE,
    NOISE,
    SINGLE_VOXELS,
    Meant,
    straight_from_edge,
)
from datamodules.dicom.volume import Reason, Unreadable

_BODY = 0.1  # a body is more than this of the scanner's round field


def check_padding(hu: NDArray[np.float32], meant: Meant) -> None:
    """Refuse a volume (slice, row, column) with padding (NaN) amid the body: what is there is not known.

    `meant`: by slice, the lowest and highest HU of the values that mark padding, or None without any.

    - Where these are of air, padding may be anywhere: in the bowel it is air.
    - Where nothing in a body has them, being less than air, it must reach the edge of the picture through padding or
      air, as all outside the scanner's round field does.
    - Where a tissue may have them, that tissue at the body's surface would reach the edge through air too. So it must
      reach the edge through padding alone, straight along a row or a column, as all outside a round field does.

    Raises `Unreadable`: PADDED_BODY.
    """
    amid = 0
    for plane, each in zip(hu, meant, strict=True):
        if each is None or (each[0] >= LEAST_MODE and each[1] <= MOST_MODE):
            continue
        amid += _amid_body(plane) if each[1] <= MOST_MODE else _amid_field(plane)
    if amid > SINGLE_VOXELS * hu.size:
        raise Unreadable(Reason.PADDED_BODY)


def undeclared_padding(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """A volume (slice, row, column) of a format that cannot declare padding, in which what can be nothing else is air.

    That is one value below all noise of air, all of which reaches the edge of the picture as `check_padding` has it,
    where the rest holds a body: of one whose intercept was taken twice next to nothing but bone is above -500 HU.
    """
    if (lowest := hu.min()) > NOISE:
        return hu
    padding = hu == lowest
    marked = np.where(padding, np.float32(np.nan), hu)
    body = np.count_nonzero(hu > AROUND) > _BODY * (hu.size - np.count_nonzero(padding))
    if not body or sum(_amid_body(plane) for plane in marked) > SINGLE_VOXELS * hu.size:
        return hu
    return np.where(padding, np.float32(AIR), hu)


def _amid_field(plane: NDArray[np.float32]) -> int:
    """Number of NaN in a plane that do not reach its edge straight through NaN."""
    padding = np.isnan(plane)
    return int((padding & ~straight_from_edge(padding)).sum())


def _amid_body(plane: NDArray[np.float32]) -> int:
    """Number of NaN in a plane that do not reach its edge through NaN or air."""
    padding = np.isnan(plane)
    around = padding | (plane < AROUND)
    if not (padding & ~straight_from_edge(around)).any():  # as in nearly all scans, and much faster than numbering
        return 0
    parts, _ = ndimage.label(around)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return int((padding & ~np.isin(parts, edge)).sum())
