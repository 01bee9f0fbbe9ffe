"""From the images of a study to stacks: slices of one series, geometry and phase, which may be one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datamodules.dicom.geometry import (
    SAME_POSITION_MM,
    SPACING_TOLERANCE,
    SPACING_TOLERANCE_MM,
    heights,
    is_near_axial,
    slots,
)
from datamodules.dicom.headers import Header
from datamodules.dicom.phases import scans_of
from datamodules.dicom.volume import Reason


@dataclass(frozen=True)
class Stack:
    """Slices that may be one volume. `problem`: why their series cannot be read, or None. `phase`: which of the scans
    that lie in one series with one geometry, from 0. `captures`: how many images were left out as no slices."""

    slices: tuple[Header, ...]
    problem: Reason | None = None
    phase: int = 0
    captures: int = 0

    @property
    def first(self) -> Header:
        """Any of the slices: they are alike but for their places."""
        return self.slices[0]

    @property
    def placed(self) -> bool:
        """Whether the slices have places along the patient's axis."""
        return self.first.problem is None and is_near_axial(self.first)

    def places(self) -> list[float]:
        """Positions along the normal, mm, from inferior to superior, each once."""
        return [float(heights(copies[:1])[0]) for copies in slots(self.slices)]

    def range(self) -> tuple[float, float, float]:
        """Lowest and highest position, and the usual step or else the thickness (0 where nothing says it), mm."""
        places = self.places()
        step = float(np.median(np.diff(places))) if len(places) > 1 else self.first.thickness or 0.0
        return places[0], places[-1], step


def stacks_of(images: Sequence[Header]) -> list[Stack]:
    """The slices by series, geometry and phase.

    Within a series, what cannot be read and differs in kind from the slices (a color picture, a capture, an image of
    another size) is left out and counted. Any other image that cannot be read spoils its series:
    it may be a slice.
    """
    found: list[Stack] = []
    by_series: dict[str, list[Header]] = {}
    for image in images:
        if image.slice_like:
            by_series.setdefault(image.series, []).append(image)
    others = Counter(image.series for image in images if not image.slice_like)
    for series, members in by_series.items():
        slices = [image for image in members if image.problem is None]
        unusable = [image for image in members if image.problem is not None]
        if not slices:
            found.append(Stack(tuple(unusable), unusable[0].problem))
            continue
        spoiling = [image for image in unusable if not _is_capture(image, slices)]
        problem = spoiling[0].problem if spoiling else None
        for alike in _by_geometry(slices):
            scans, mixed = scans_of(alike)
            for phase, scan in enumerate(scans):
                captures = len(unusable) - len(spoiling) + others[series]
                found.append(Stack(tuple(scan), problem or mixed, phase, captures))
    return found


def _is_capture(image: Header, slices: Sequence[Header]) -> bool:
    """Whether an image that cannot be read is no slice of the series, by more than what is missing in it.

    One of the slices' own kind and size that has no place is none either if their numbers are complete without it.
    """
    alike = any((image.rows, image.columns) == (one.rows, one.columns) for one in slices)
    made = not image.original and all(one.original for one in slices)
    beyond = image.placeless and _is_beyond(image, slices)
    odd = image.problem is Reason.NOT_GRAYSCALE or made or not alike or beyond
    return image.problem is not Reason.MULTIFRAME and odd


def _is_beyond(image: Header, slices: Sequence[Header]) -> bool:
    """Whether the InstanceNumbers of the slices have no gap, and that of the image is not the next one."""
    own, numbers = image.acquisition.instance_number, [each.acquisition.instance_number for each in slices]
    known = [number for number in numbers if number is not None]
    if own is None or len(set(known)) < len(slices) or max(known) - min(known) != len(slices) - 1:
        return False
    return own not in (min(known) - 1, max(known) + 1)


def _by_geometry(slices: Sequence[Header]) -> Iterator[list[Header]]:
    """The slices of one series by size, spacing, orientation and frame of reference.

    Where each image names a frame of reference of its own, or each of the acquisitions that continue one another, the
    identifiers were made anew for each and mean nothing. A copy of a file is the same image.
    """
    images = {(image.sop_instance or place, image.frame) for place, image in enumerate(slices)}
    each_own = len({image.frame_of_reference for image in slices}) == len(images)
    found: list[list[Header]] = []
    for image in slices:
        for alike in found:
            if same_grid(alike[0], image) and same_orientation(alike[0], image):
                alike.append(image)
                break
        else:
            found.append([image])
    for alike in found:
        by_frame: dict[str, list[Header]] = {}
        for image in alike:
            by_frame.setdefault(image.frame_of_reference, []).append(image)
        if each_own or len(by_frame) == 1 or _continue_one_another(alike, len(by_frame)):
            yield alike
        else:
            yield from by_frame.values()


def _continue_one_another(slices: Sequence[Header], frames: int) -> bool:
    """Whether slices of so many frames of reference, each in one piece, follow as evenly and as straight as one scan's:
    a patient who lay down anew would lie elsewhere."""
    if not is_near_axial(slices[0]):
        return False
    ordered = [slices[index] for index in np.argsort(heights(slices), kind="stable")]
    pieces = 1 + sum(one.frame_of_reference != two.frame_of_reference for one, two in pairwise(ordered))
    steps = np.diff(np.stack([image.position for image in ordered]), axis=0)
    usual = np.median(steps, axis=0)
    apart, step = np.linalg.norm(steps - usual, axis=1).max(), float(np.linalg.norm(usual))
    return pieces == frames and step > SAME_POSITION_MM and apart <= max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * step)


def same_grid(one: Header, other: Header) -> bool:
    """Whether two images have the same size and spacing."""
    apart = (abs(a - b) <= 1e-3 * abs(b) for a, b in zip(one.spacing, other.spacing, strict=True))
    return (one.rows, one.columns) == (other.rows, other.columns) and all(apart)


def same_orientation(one: Header, other: Header) -> bool:
    """Whether two images are parallel and not turned."""
    return bool(np.abs(one.orientation - other.orientation).max() <= 1e-2)
