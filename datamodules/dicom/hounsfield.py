"""Whether the values of a CT can be Hounsfield units: what a scanner, a converter or a wrong header made of them.

The scale is fixed by physics: air is -1000, water 0, and in a body nothing but metal is beyond 4096, the most that 12
bits hold above air. The values alone tell a wrong intercept, signed pixels that are flagged unsigned, and padding that
no header declares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.dicom.volume import Reason, Unreadable

# HU of what lies outside the scanner's field: air, by definition of the scale.
AIR = -1000.0
# Air as scanners give it: noise and undershoot beside metal reach 100 HU down, lung and partial volume reach 150 up.
LEAST_AIR, MOST_AIR = -1100.0, -850.0
# No noise of air comes so far down: sharp kernels give it a standard deviation of up to 60 HU, about a mean that stays.
NOISE, LEAST_MEAN = -1500.0, -1060.0
# Two artificial hips are some 3 % of a scan of the pelvis. Signed air that is flagged unsigned is a fifth and more.
METAL, MOST_METAL = 4096.0, 0.05
HIGHEST = 2.0**15  # no scanner's scale goes beyond: it is the sign of 16 bits
# Of this share are single voxels, as undershoot makes them: 260 of 100 slices of 512 x 512.
SINGLE_VOXELS = 1e-5
# From one slice to the next the middle of what is at the edge of the picture (air, a table, fat) stays within this, HU.
EDGE_STEP = 300.0
# What lies around the body: half of each voxel at its border is air.
_AROUND = -500.0
_BODY = 0.1  # a body is more than this of the scanner's round field


Meant = Sequence[tuple[float, float] | None]


def check_hounsfield(hu: NDArray[np.float32], *, whole_picture: bool, meant: Meant = ()) -> None:
    """Refuse a volume whose values cannot be HU; NaN is declared padding.

    `whole_picture`: whether it is as the scanner wrote it, so that there is air in it; a file that was cut to an organ
    may have none. `meant`: as in `check_padding`; padding counts as air where its own values hold air, since of another
    one it is all that a lost intercept leaves. Raises `Unreadable`: BELOW_AIR, ABOVE_METAL, NO_AIR.
    """
    single = SINGLE_VOXELS * hu.size
    if np.count_nonzero(hu < LEAST_AIR) > single and (
        np.median(hu[hu < MOST_AIR]) < LEAST_MEAN or np.count_nonzero(hu <= NOISE) > single
    ):
        raise Unreadable(Reason.BELOW_AIR)
    if np.count_nonzero(hu > METAL) > MOST_METAL * hu.size or np.count_nonzero(hu > HIGHEST) > single:
        raise Unreadable(Reason.ABOVE_METAL)
    if not whole_picture:
        return
    # Of a range that holds air all the air there is may be padding.
    airy = np.flatnonzero(
        [each is not None and -np.inf < each[0] <= MOST_AIR and each[1] >= LEAST_AIR for each in meant]
    )
    aired = (hu <= MOST_AIR).any(axis=(1, 2))
    aired[airy] |= np.isnan(hu[airy]).any(axis=(1, 2))
    if not aired.any() or _lost(hu, aired):
        raise Unreadable(Reason.NO_AIR)


def _lost(hu: NDArray[np.float32], aired: NDArray[np.bool_]) -> bool:
    """Whether a slice without air has an edge far above those of the slices beside it: its intercept was lost."""
    if aired.all():
        return False
    edges = np.concatenate([hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1]], axis=1)
    known = np.flatnonzero(~np.isnan(edges).all(axis=1))
    middle = np.full(len(hu) + 2, -np.inf)
    middle[known + 1] = np.nanmedian(edges[known], axis=1)
    beside = np.maximum(middle[:-2], middle[2:])
    return bool((~aired & np.isfinite(beside) & (middle[1:-1] > beside + EDGE_STEP)).any())


def check_padding(hu: NDArray[np.float32], meant: Meant) -> None:
    """Refuse a volume (slice, row, column) with padding (NaN) amid the body: what is there is not known.

    `meant`: by slice, the lowest and highest HU of the values that mark padding, or None without any. Where these are
    of air, padding may be anywhere: in the bowel it is air. Else it must reach the edge of the picture through padding
    or air, as all outside the scanner's round field does. Raises `Unreadable`: PADDED_BODY.
    """
    odd = [each is not None and (each[0] < LEAST_AIR or each[1] > MOST_AIR) for each in meant]
    amid = sum(_amid_body(hu[index]) for index in np.flatnonzero(odd))
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
    body = np.count_nonzero(hu > _AROUND) > _BODY * (hu.size - np.count_nonzero(padding))
    if not body or sum(_amid_body(plane) for plane in marked) > SINGLE_VOXELS * hu.size:
        return hu
    return np.where(padding, np.float32(AIR), hu)


def _amid_body(plane: NDArray[np.float32]) -> int:
    """Number of NaN in a plane that do not reach its edge through NaN or air."""
    padding = np.isnan(plane)
    around = padding | (plane < _AROUND)
    straight = np.zeros_like(padding)
    for view in (np.s_[:, :], np.s_[::-1, ::-1]):
        for axis in (0, 1):
            straight[view] |= np.logical_and.accumulate(around[view], axis=axis)
    if not (padding & ~straight).any():  # as in nearly all scans, and much faster than to number the parts
        return 0
    parts, _ = ndimage.label(around)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return int((padding & ~np.isin(parts, edge)).sum())
