"""Whether the values of a CT can be Hounsfield units: what a scanner, a converter or a wrong header made of them.

The scale is fixed by physics: air is -1000, water 0, and in a body nothing but metal is beyond 4096, the most that 12
bits hold above air. The values alone tell a wrong or a lost intercept, and signed pixels that are flagged unsigned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom.volume import Reason, Unreadable

# HU of what lies outside the scanner's field: air, by definition of the scale.
AIR = -1000.0
# Single values of air: noise and undershoot beside metal reach 100 HU down, lung and partial volume reach 150 up.
LEAST_AIR, MOST_AIR = -1100.0, -850.0
# The most frequent value of the air around a body. Noise widens its spread and leaves it. In phantoms it has to be
# within -1005 to -970 (American College of Radiology, CT accreditation) or -1046 to -986 (Catphan manual); scans that
# are cut off at -1000 or -1024 have it there.
LEAST_MODE, MOST_MODE = -1060.0, -940.0
# No noise of air comes so far down: sharp kernels give it a standard deviation of up to 60 HU.
NOISE = -1500.0
# Two artificial hips are some 3 % of a scan of the pelvis. Signed air that is flagged unsigned is a fifth and more.
METAL, MOST_METAL = 4096.0, 0.05
HIGHEST = 2.0**15  # no scanner's scale goes beyond: it is the sign of 16 bits
# Of this share are single voxels, as undershoot makes them: 260 of 100 slices of 512 x 512.
SINGLE_VOXELS = 1e-5
# From one slice to the next most pixels change by noise alone: half of them never rise or fall by so much at once.
SLICE_STEP = 60.0
# What lies around the body: half of each voxel at its border is air.
AROUND = -500.0
# Air around the body tells the scale where it is this share of all voxels; less may be foam or the edge of the skin.
_ENOUGH = 0.01
# Air is even and lung is not: of air half the voxels are within this of their mode, of lung about a third at most.
_EVEN, _EVEN_SHARE = 20.0, 0.5
# Bone is above this, HU, in a wide range. Soft tissue and fat whose intercept of -1000 or -1024 was lost are within a
# narrow one: this share of what seems to be bone, which is then this share of the picture and more.
BONE, _LOST, _LOST_SHARE, _BODY_SHARE = 500.0, (750.0, 1250.0), 2 / 3, 0.05
_ALL = 0.9  # no more than this of any cut-out is bone: there is marrow in it
# The middle of a body, fat and all, is above this. Of a scan that is shown as a whole lung is not most of the body.
_LIGHTEST = -150.0
_THINNED = 128  # pixels of a side are enough to tell how most of a slice change

Meant = Sequence[tuple[float, float] | None]


def check_hounsfield(hu: NDArray[np.float32], *, whole_picture: bool, meant: Meant = ()) -> bool:
    """Refuse a volume (slice, row, column) whose values cannot be HU; NaN is declared padding. Whether it has air.

    `whole_picture`: whether it shows all around the body, so that there is air in it; a file that was cut to an organ,
    or a field that was zoomed into the body, may have none, and lung at its edge. `meant`: as in
    `padding.check_padding`; padding counts as air where its own values hold air, since of another one it is all that a
    lost intercept leaves. Raises `Unreadable`: BELOW_AIR, ABOVE_METAL, NO_AIR, UNEVEN_SCALE, AIR_ELSEWHERE,
    BODY_ELSEWHERE.
    """
    _check_range(hu)
    # Of a range that holds air all the air there is may be padding.
    airy = np.flatnonzero([each is not None and holds_air(each) for each in meant])
    aired = bool((hu <= MOST_AIR).any() or np.isnan(hu[airy]).any())
    if whole_picture and not aired:
        raise Unreadable(Reason.NO_AIR)
    _check_steps(hu)
    _check_air(hu, whole_picture)
    _check_body(hu, whole_picture)
    return aired


def holds_air(meant: tuple[float, float]) -> bool:
    """Whether a range of values that mark padding, which has a lower end, holds a value of air."""
    return -np.inf < meant[0] <= MOST_MODE and meant[1] >= LEAST_MODE


def straight_from_edge(around: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of a plane is reached from its edge along a row or a column without leaving `around`."""
    reached = np.zeros_like(around)
    for view in (np.s_[:, :], np.s_[::-1, ::-1]):
        for axis in (0, 1):
            reached[view] |= np.logical_and.accumulate(around[view], axis=axis)
    return reached


def _check_range(hu: NDArray[np.float32]) -> None:
    single = SINGLE_VOXELS * hu.size
    if np.count_nonzero(hu < LEAST_AIR) > single and (
        np.median(hu[hu < MOST_AIR]) < LEAST_MODE or np.count_nonzero(hu <= NOISE) > single
    ):
        raise Unreadable(Reason.BELOW_AIR)
    if np.count_nonzero(hu > METAL) > MOST_METAL * hu.size or np.count_nonzero(hu > HIGHEST) > single:
        raise Unreadable(Reason.ABOVE_METAL)


def _check_steps(hu: NDArray[np.float32]) -> None:
    """Refuse slices that lie a constant apart, as single ones, a run or a part of the stack that lost its intercept."""
    rows, columns = (max(1, side // _THINNED) for side in hu.shape[1:])
    last = None
    for plane in hu[:, ::rows, ::columns]:
        if np.isnan(plane).all():
            continue
        if last is not None:
            change = (plane - last)[~np.isnan(plane - last)]
            if change.size and abs(np.median(change)) > SLICE_STEP:
                raise Unreadable(Reason.UNEVEN_SCALE)
        last = plane


def _check_air(hu: NDArray[np.float32], whole_picture: bool) -> None:
    """Refuse a volume, around whose body is air of another value; lung at the edge of a cut-out is not air."""
    around = np.concatenate([plane[straight_from_edge(~(plane >= AROUND))] for plane in hu])
    air = around[~np.isnan(around)]
    if air.size < _ENOUGH * hu.size:
        return
    # In bins of 1 HU, smoothed over half the width of the noise of a usual kernel.
    counts = np.bincount(np.rint(air - NOISE).clip(0).astype(np.int64), minlength=int(AROUND - NOISE) + 1)
    mode = NOISE + np.convolve(counts, np.hanning(61), "same").argmax()
    even = np.count_nonzero(np.abs(air - mode) <= _EVEN) >= _EVEN_SHARE * air.size
    if mode < LEAST_MODE or (mode > MOST_MODE and (whole_picture or even)):
        raise Unreadable(Reason.AIR_ELSEWHERE)


def _check_body(hu: NDArray[np.float32], whole_picture: bool) -> None:
    """Refuse a body that is as dense as bone and as even as soft tissue, or lighter than fat, as of a wrong slope."""
    known, dense, body = np.count_nonzero(~np.isnan(hu)), hu[hu > BONE], hu[hu > AROUND]
    lost = np.count_nonzero((dense >= _LOST[0]) & (dense <= _LOST[1]))
    bony = dense.size > _ALL * known or (dense.size > _BODY_SHARE * known and lost > _LOST_SHARE * dense.size)
    light = whole_picture and body.size > _BODY_SHARE * known and np.median(body) < _LIGHTEST
    if bony or light:
        raise Unreadable(Reason.BODY_ELSEWHERE)
