"""Which stack of a study is read, which may stand in for it, and whether it is the whole of its scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from datamodules.dicom.geometry import SAME_POSITION_MM, heights, is_axial, is_even
from datamodules.dicom.headers import NO_NUMBER, Header
from datamodules.dicom.references import References
from datamodules.dicom.remarks import Remark
from datamodules.dicom.stacks import Stack, same_grid, same_orientation
from datamodules.dicom.volume import Reason, Unreadable

# A stack of less than this share of the longest scan is no scan of its own: bolus tracking, or a test slice.
_WHOLE = 0.5
# Two scans have the same extent if they end within this share of it, or within a slice of one another.
_SAME_EXTENT = 0.1


def ranked(stacks: Sequence[Stack], references: References) -> list[Stack]:
    """The stacks that may be read, the best first. Raises `Unreadable`: ONLY_LOCALIZERS; LABELS_MISMATCH where the
    labels name images, none of which is here.

    Those alone that the labels name, by most images; then what can be a scan before maps and captures; axial before
    tilted before other stacks; what is long enough to be a scan; original before derived images; the most distinct
    positions; the lowest series number; then the lowest UID.
    """
    if not stacks:
        raise Unreadable(Reason.ONLY_LOCALIZERS)
    named = {id(stack): references.named(stack.slices) for stack in stacks}
    if references and not any(named.values()):
        raise Unreadable(Reason.LABELS_MISMATCH)
    longest = _longest(stacks)

    def rank(stack: Stack) -> tuple[int, tuple[bool, int, bool, bool], int, int, str, int]:
        first = stack.first
        return (
            -named[id(stack)],
            _fitness(stack, longest),
            -(len(stack.places()) if stack.placed else len(stack.slices)),
            first.series_number,
            first.series,
            stack.phase,
        )

    return sorted((stack for stack in stacks if not references or named[id(stack)]), key=rank)


def refuse_other_acquisitions(found: Sequence[Stack]) -> None:
    """Refuse the first of several `ranked` stacks where another fits as well and is no reconstruction of the same scan.

    Number and order of series differ from hospital to hospital: the first by rank would be the scan before contrast in
    one study and the one after it in the next. Raises `Unreadable`: SEVERAL_ACQUISITIONS.
    """
    longest = _longest(found)
    for other in found[1:]:
        if _fitness(other, longest) == _fitness(found[0], longest) and _other_acquisition(found[0], other):
            raise Unreadable(Reason.SEVERAL_ACQUISITIONS)


def _longest(stacks: Iterable[Stack]) -> float:
    return max((_extent(stack) for stack in stacks if _is_scan(stack)), default=0.0)


def _fitness(stack: Stack, longest: float) -> tuple[bool, int, bool, bool]:
    """What of a stack's kind tells whether it is the scan, the least first; numbers and slices do not."""
    first = stack.first
    return (
        not _is_scan(stack),
        0 if is_axial(first) or first.problem is not None else 1 if stack.placed else 2,
        _extent(stack) < _WHOLE * longest,
        not first.original,
    )


def _other_acquisition(one: Stack, two: Stack) -> bool:
    """Whether the headers of two stacks say that they were scanned apart: in another study, before and after contrast,
    in other phases or repeats, or at another place."""
    told = [[image.acquisition for image in stack.slices] for stack in (one, two)]
    contrast = [{bool(each.contrast) for each in stack} for stack in told]
    numbers = [{each.acquisition_number for each in stack} for stack in told]
    times = [sorted({each.times[0] for each in stack}) for stack in told]
    studies = [{each.study for each in stack} for stack in told]  # more than one in a stack mean nothing
    apart = all(len(each) == 1 for each in studies) and "" not in studies[0] | studies[1] and studies[0] != studies[1]
    apart |= one.first.series == two.first.series or contrast[0].isdisjoint(contrast[1])
    if None not in numbers[0] | numbers[1] and numbers[0].isdisjoint(numbers[1]):
        apart = True
    if times[0][0] and times[1][0] and (times[0][-1] < times[1][0] or times[1][-1] < times[0][0]):
        apart = True
    return apart or (one.placed and two.placed and not _overlap(one, two))


def _overlap(one: Stack, two: Stack) -> bool:
    """Whether the shorter of two stacks lies at places of the other with at least half of it."""
    (low, high, _), (other_low, other_high, _) = one.range(), two.range()
    common = min(high, other_high) - max(low, other_low)
    return common >= _WHOLE * min(high - low, other_high - other_low)


def _is_scan(stack: Stack) -> bool:
    """Whether a stack claims to be slices in the unit of the modality, be they readable or not."""
    return stack.first.intensities and (stack.first.problem is None or stack.first.original)


def _extent(stack: Stack) -> float:
    """From the first to the last slice, mm, 0 for a single one; without places by the thickness of the slices."""
    if not stack.placed:
        return (len(stack.slices) - 1) * (stack.first.thickness or 1.0)
    low, high, _ = stack.range()
    return high - low


def stands_in(stack: Stack, first: Stack) -> bool:
    """Whether a stack is of the same kind and extent as the first, which cannot be read."""
    if not (stack.placed and first.placed and is_axial(stack.first)):
        return False
    kinds = [(each.frame_of_reference, each.original, each.acquisition.contrast) for each in (stack.first, first.first)]
    (low, high, step), (first_low, first_high, first_step) = stack.range(), first.range()
    most = max(step, first_step, _SAME_EXTENT * (first_high - first_low))
    return kinds[0] == kinds[1] and abs(low - first_low) <= most and abs(high - first_high) <= most


def check_whole(stack: Stack, stacks: Iterable[Stack]) -> None:
    """Refuse a stack beside which others hold the rest of its scan.

    Raises `Unreadable`: FRAMES_OF_REFERENCE, MIXED_SIZE, MIXED_ORIENTATION (in the same series), SERIES_OF_EACH (in
    others), SEVERAL_SCANS (phases that continue one another).
    """
    if not stack.placed:
        return
    others = [each for each in stacks if each is not stack and each.placed]
    for other in others:
        if other.first.series == stack.first.series and other.first.original == stack.first.original:
            _check_sibling(stack, other)
    if rest := [each for each in others if _continues(stack, each)]:
        joined = np.concatenate([stack.places(), *(each.places() for each in rest)])
        # By chance two lone slices are as far apart as a scan's: three in even steps, or one number, is no chance.
        numbered = all(_same_number(each.first, stack.first) for each in rest)
        if is_even(np.diff(np.sort(joined))) and (numbered or len(joined) > 2):
            raise Unreadable(Reason.SERIES_OF_EACH)


def _check_sibling(stack: Stack, other: Stack) -> None:
    """Refuse a stack if another of its series has slices at places that it has not."""
    if _alike(stack.first, other.first) and stack.first.frame_of_reference == other.first.frame_of_reference:
        low, high, _ = stack.range()
        beyond = [place for place in other.places() if not low - SAME_POSITION_MM <= place <= high + SAME_POSITION_MM]
        if len(beyond) > len(other.places()) / 2:
            raise Unreadable(Reason.SEVERAL_SCANS)
    elif not within(other, stack):
        if not same_orientation(stack.first, other.first):
            raise Unreadable(Reason.MIXED_ORIENTATION)
        raise Unreadable(
            Reason.FRAMES_OF_REFERENCE if same_grid(stack.first, other.first) else Reason.MIXED_SIZE,
        )


def within(other: Stack, stack: Stack) -> bool:
    """Whether each slice of `other` lies at a place of a slice of `stack`."""
    normal = stack.first.normal * np.sign(stack.first.normal[2])
    places = np.array(stack.places())
    along = np.array([image.position @ normal for image in other.slices])
    return bool((np.abs(along[:, None] - places).min(axis=1) <= SAME_POSITION_MM).all())


def _alike(one: Header, other: Header) -> bool:
    return same_grid(one, other) and same_orientation(one, other)


def _same_number(one: Header, other: Header) -> bool:
    """Whether two series have one number; without any nothing says so."""
    return one.series_number == other.series_number != NO_NUMBER


def _continues(stack: Stack, other: Stack) -> bool:
    """Whether another series of the same kind lies where the stack has no slice, and is alone or of its number."""
    one, two = stack.first, other.first
    if one.series == two.series or not _alike(one, two):
        return False
    lone = len(stack.slices) == 1 and len(other.slices) == 1  # whose frame of reference may have been made anew too
    if not lone and one.frame_of_reference != two.frame_of_reference:
        return False
    same = (one.original, one.thickness) == (two.original, two.thickness)
    if not same or not (lone or _same_number(one, two)):
        return False
    places = np.array(stack.places())
    return bool((np.abs(heights(other.slices)[:, None] - places) > SAME_POSITION_MM).all())


def remarks_on(stack: Stack, stacks: Sequence[Stack], chosen: Remark) -> dict[Remark, int]:
    """What is to know of the stack that was read: how it was `chosen`, and how much lay beside it."""
    beside = [each for each in stacks if each is not stack and each.first.series == stack.first.series]
    scans = [each for each in beside if each.placed and _alike(each.first, stack.first)]
    series = len({each.first.series for each in stacks}) - 1
    return {
        chosen: int(series + len(scans) > 0),
        Remark.OTHER_SERIES: series,
        Remark.OTHER_SCAN: len(scans),
        Remark.OTHER_STACK: sum(len(each.slices) for each in beside if each not in scans),
        Remark.CAPTURE: stack.captures,
    }
