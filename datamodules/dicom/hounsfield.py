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
# The same holds of a body alone, which may be little of a picture: at most 7 HU between slices that lie 12 mm apart in
# a CT of the trunk. A slope that is wrong by a fifteenth from one slice on moves all of it by more than the step.
SLICE_STEP = 60.0
# What is of a body in both of two slices: its fat is above this where its slope is a third and more.
_OF_BODY, _LEAST_BODY = -700.0, 0.01
# What lies around the body: half of each voxel at its border is air.
AROUND = -500.0
# Around a picture of gray levels, and of MR or PET, is 0 with its noise, and no value lies below it. Of what was cut
# out of a CT fat does; brain and bone alone do not, and are above it as far as the edge.
_LEAST_OF_NONE, _MOST_OF_NONE = -50.0, 20.0
# Air around the body tells the scale where it is this share of all voxels; less may be foam or the edge of the skin.
_ENOUGH = 0.01
# Air is even and lung is not: of air half the voxels are within this of their mode, of lung about a third at most.
_EVEN, _EVEN_SHARE = 20.0, 0.5
# Bone is above this, HU, in a wide range. Soft tissue and fat whose intercept of -1000 or -1024 was lost are within a
# narrow one: this share of what seems to be bone, which is then this share of the picture and more.
BONE, _LOST, _LOST_SHARE, _BODY_SHARE = 500.0, (750.0, 1250.0), 2 / 3, 0.05
_ALL = 0.9  # no more than this of any cut-out is bone: there is marrow in it
# The middle of a body, fat and all, is above this. Of a scan that is shown as a whole lung is not most of the body.
_LIGHTEST, _AROUND_LUNG = -150.0, 0.1
# Fat is at -140 to -40 HU at any tube voltage, soft tissue at 0 to 120, but for an organ in some phases of contrast. Of
# all that is above LEAST_TISSUE little is in a window of 60 HU below fat or above soft tissue: 10 % at most in a CT of
# the trunk and in phantoms with contrast, with noise of 60 HU; 20 % where the slope is 0.93, 18 % where it is 1.1.
# Beside a bright organ there is fat, a quarter in these; it is 5 % where the slope is 1.1, and 1 % where it is 1.2.
_LEAST_TISSUE, _FAT, _WINDOW = -300.0, (-140.0, -40.0), 60
_MOST_LIGHT, _BRIGHT, _MOST_BRIGHT, _LEAST_FAT = 0.2, 120.0, 0.15, 0.08
_THINNED = 128  # pixels of a side are enough to tell how most of a slice change

Meant = Sequence[tuple[float, float] | None]


def check_hounsfield(hu: NDArray[np.float32], *, whole_picture: bool, meant: Meant = ()) -> bool:
    """Refuse a volume (slice, row, column) whose values cannot be HU; NaN is declared padding. Whether it has air.

    `whole_picture`: whether it shows all around the body, so that there is air in it; a file that was cut to an organ,
    or a field that was zoomed into the body, may have none, and lung at its edge. `meant`: as in
    `padding.check_padding`; padding counts as air where its own values hold air, since of another one it is all that a
    lost intercept leaves. Raises `Unreadable`: BELOW_AIR, ABOVE_METAL, NO_AIR, UNEVEN_SCALE, AIR_ELSEWHERE,
    BODY_ELSEWHERE, ZERO_AROUND.
    """
    _check_range(hu)
    # Of a range that holds air all the air there is may be padding.
    airy = np.flatnonzero([each is not None and holds_air(each) for each in meant])
    aired = bool((hu <= MOST_AIR).any() or np.isnan(hu[airy]).any())
    if whole_picture and not aired:
        raise Unreadable(Reason.NO_AIR)
    _check_steps(hu)
    outlined = _check_air(hu, whole_picture) or whole_picture
    _check_body(hu, whole_picture)
    _check_zero(hu)
    if outlined:
        _check_tissue(hu)
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
    """Refuse slices that lie apart, as single ones, a run or a part of the stack that lost its intercept or slope."""
    rows, columns = (max(1, side // _THINNED) for side in hu.shape[1:])
    last = None
    for plane in hu[:, ::rows, ::columns]:
        if np.isnan(plane).all():
            continue
        if last is not None:
            known, body = ~np.isnan(plane - last), np.fmin(plane, last) > _OF_BODY
            for which, least in ((known, 0.0), (known & body, _LEAST_BODY)):
                if which.sum() > least * plane.size and abs(np.median((plane - last)[which])) > SLICE_STEP:
                    raise Unreadable(Reason.UNEVEN_SCALE)
        last = plane


def _check_air(hu: NDArray[np.float32], whole_picture: bool) -> bool:
    """Refuse a volume, around whose body is air of another value; lung at the edge of a cut-out is not air.

    Whether there is air around.
    """
    around = np.concatenate([plane[straight_from_edge(~(plane >= AROUND))] for plane in hu])
    air = around[~np.isnan(around)]
    if air.size < _ENOUGH * hu.size:
        return False
    # In bins of 1 HU, smoothed over half the width of the noise of a usual kernel.
    counts = np.bincount(np.rint(air - NOISE).clip(0).astype(np.int64), minlength=int(AROUND - NOISE) + 1)
    mode = NOISE + np.convolve(counts, np.hanning(61), "same").argmax()
    even = np.count_nonzero(np.abs(air - mode) <= _EVEN) >= _EVEN_SHARE * air.size
    if mode < LEAST_MODE or (mode > MOST_MODE and (whole_picture or even)):
        raise Unreadable(Reason.AIR_ELSEWHERE)
    return even


def _check_body(hu: NDArray[np.float32], whole_picture: bool) -> None:
    """Refuse a body that is as dense as bone and as even as soft tissue, or lighter than fat, as of a wrong slope."""
    known, dense, body = np.count_nonzero(~np.isnan(hu)), hu[hu > BONE], hu[hu > AROUND]
    lost = np.count_nonzero((dense >= _LOST[0]) & (dense <= _LOST[1]))
    bony = dense.size > _ALL * known or (dense.size > _BODY_SHARE * known and lost > _LOST_SHARE * dense.size)
    solid = np.count_nonzero(hu > MOST_AIR)  # lung too, which a body of more than a tenth of it is around
    light = whole_picture and body.size > _BODY_SHARE * known and np.median(body) < _LIGHTEST
    if bony or light or (whole_picture and solid > _BODY_SHARE * known and body.size < _AROUND_LUNG * solid):
        raise Unreadable(Reason.BODY_ELSEWHERE)


def _check_zero(hu: NDArray[np.float32]) -> None:
    """Refuse a picture on a ground of 0, of which no value lies below it."""
    if np.count_nonzero(hu < _LEAST_OF_NONE) > SINGLE_VOXELS * hu.size:
        return
    ground = sum(np.count_nonzero(straight_from_edge(plane <= _MOST_OF_NONE)) for plane in hu)
    if ground > _ENOUGH * hu.size:
        raise Unreadable(Reason.ZERO_AROUND)


def _check_tissue(hu: NDArray[np.float32]) -> None:
    """Refuse a body with air around it whose fat and soft tissue lie where neither does, as of a wrong slope."""
    size = np.count_nonzero(hu > _LEAST_TISSUE)
    if size <= _BODY_SHARE * np.count_nonzero(~np.isnan(hu)):
        return
    tissue = hu[(hu > _LEAST_TISSUE) & (hu < METAL)]
    share = np.bincount((tissue - _LEAST_TISSUE).astype(np.int64), minlength=int(METAL - _LEAST_TISSUE)) / size
    until = np.concatenate([[0.0], share.cumsum()])  # at the lower end of each HU
    within = until[_WINDOW:] - until[:-_WINDOW]  # by the lower end of the window
    light, bright, low, high = (int(each - _LEAST_TISSUE) for each in (_LIGHTEST, _BRIGHT, *_FAT))
    too_light = within[: light - _WINDOW + 1].max() > _MOST_LIGHT
    if too_light or (within[bright:].max() > _MOST_BRIGHT and until[high] - until[low] < _LEAST_FAT):
        raise Unreadable(Reason.BODY_ELSEWHERE)
