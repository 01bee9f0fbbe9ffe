"""Slices of one series and geometry, parted into scans: phases and repeats that lie over one another."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from datamodules.dicom.acquisition import Acquisition
from datamodules.dicom.geometry import SAME_POSITION_MM, heights, is_even, is_near_axial
from datamodules.dicom.headers import Header
from datamodules.dicom.volume import Reason

# A scan whose slices follow at less than this share of their thickness may be two, half a slice apart. (It may be an
# overlapping reconstruction as well: what parts scans decides.)
_FOLLOWS = 0.67

Group = list[int]  # indices of slices


def scans_of(alike: list[Header]) -> tuple[list[list[Header]], Reason | None]:
    """The scans, and why they cannot be told apart, or None.

    What parts them, in this order: TemporalPositionIdentifier, AcquisitionNumber, ContrastBolusAgent, the time of
    acquisition, that of content. A scan in steps has an acquisition for each step: acquisitions that lie beside one
    another are one scan. Where nothing parts the slices, but each InstanceNumber occurs as often, or the numbers run
    through the patient more than once, it is SEVERAL_SCANS. So it is where the time of content alone parts slices that
    follow evenly: one scan may be reconstructed in two goes, and half of it is not the whole.
    """
    if len(alike) < 3 or not is_near_axial(alike[0]):
        return [alike], None
    along = heights(alike)
    told = [image.acquisition for image in alike]
    keys: list[list[Any]] = [
        [each.temporal_position for each in told],
        [each.acquisition_number for each in told],
        [each.contrast for each in told],
    ]
    for values in keys:
        if len(scans := _apart(_groups(values), along)) > 1:
            return [[alike[index] for index in scan] for scan in scans], None
    if _is_one(along, alike[0].thickness):
        return [alike], None
    for times in zip(*(each.times for each in told), strict=True):
        if len(scans := _whole_sweeps(times, along)) > 1:
            if _of_content_alone(told) and _is_one(along, None):
                return [alike], Reason.SEVERAL_SCANS
            return [[alike[index] for index in scan] for scan in scans], None
    numbers = [each.instance_number for each in told]
    if None in numbers:
        return [alike], None
    often = Counter(numbers)
    distinct = int((np.diff(np.sort(along)) > SAME_POSITION_MM).sum()) + 1
    again = len(often) > 1 and min(often.values()) > 1 and distinct > len(often)
    return [alike], Reason.SEVERAL_SCANS if again or len(_whole_sweeps(numbers, along)) > 1 else None


def _of_content_alone(told: Sequence[Acquisition]) -> bool:
    """Whether images have neither numbers nor times of acquisition that differ."""
    return len({(each.acquisition_number, each.times[0]) for each in told}) == 1


def _groups(values: Sequence[Any]) -> list[Group]:
    """The slices of each value, in its order; none where a slice has no value, or all the same."""
    if None in values or len(set(values)) < 2:
        return []
    found: dict[Any, Group] = {value: [] for value in sorted(set(values))}
    for index, value in enumerate(values):
        found[value].append(index)
    return list(found.values())


def _apart(groups: Sequence[Group], along: np.ndarray) -> list[Group]:
    """The groups as scans: each joins the first scan none of whose groups it lies over, or begins one."""
    scans: list[tuple[list[tuple[float, float]], Group]] = []
    for group in groups:
        low, high = float(along[group].min()), float(along[group].max())
        for ranges, scan in scans:
            place = bisect(ranges, (low, high))
            before, after = ranges[place - 1 : place] if place else [], ranges[place : place + 1]
            over = (before and before[0][1] > low - SAME_POSITION_MM) or (
                after and after[0][0] < high + SAME_POSITION_MM
            )
            if not over:
                ranges.insert(place, (low, high))
                scan += group
                break
        else:
            scans.append(([(low, high)], [*group]))
    return [scan for _, scan in scans]


def _is_one(along: np.ndarray, thickness: float | None) -> bool:
    """Whether the slices follow one another as those of one scan do: evenly, and not within one another."""
    steps = np.diff(np.sort(along))
    if steps.min() <= SAME_POSITION_MM or not is_even(steps):
        return False
    return thickness is None or float(np.median(steps)) >= _FOLLOWS * thickness


def _whole_sweeps(order: Sequence[Any], along: np.ndarray) -> list[Group]:
    """The slices by what orders them (text or number), parted where the table is back: a scan runs one way, and a
    repeat begins anew. None where a slice has no value, all the same, or the parts are no scans of even steps."""
    if None in order or "" in order or len(set(order)) < 2:
        return []
    ways = (1.0, -1.0)
    ranked = [sorted((value, way * along[index], index) for index, value in enumerate(order)) for way in ways]
    scans = _apart(min(map(_runs, ranked), key=len), along)
    return scans if all(_is_whole(along[scan]) for scan in scans) else []


def _runs(ranked: Sequence[tuple[Any, float, int]]) -> list[Group]:
    """Slices (value, position, index) in their order, parted where they do not go on; the same one twice goes on."""
    runs: list[Group] = [[ranked[0][2]]]
    for (last_value, last, _), (value, place, index) in pairwise(ranked):
        again = value == last_value and abs(place - last) <= SAME_POSITION_MM
        if place - last <= SAME_POSITION_MM and not again:
            runs.append([])
        runs[-1].append(index)
    return runs


def _is_whole(places: np.ndarray) -> bool:
    """Whether positions, of which some may be there twice, are those of more than one slice in even steps."""
    steps = np.diff(np.sort(places))
    steps = steps[steps > SAME_POSITION_MM]
    return steps.size > 0 and is_even(steps)
