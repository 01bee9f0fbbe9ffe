"""What is to know of a study that was read: which of its series it was, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Remark(Enum):
    """One thing to know; counted, as a `Reason` is, by the words that stand here. They hold no identifier."""

    NAMED_SERIES = "studies of several series, of which the one was read that the labels name"
    FIRST_SERIES = "studies of several series, of which the first by rank was read, since no label names one"
    FITTING_SERIES = "studies of several series, of which the one was read that has the grid of the labels"
    STOOD_IN = "studies of which another series of the same extent was read, since the first could not be"
    OTHER_SERIES = "series beside those that were read"
    OTHER_SCAN = "phases or repeats beside those that were read, in the same series"
    CAPTURE = "captures, localizers, projections or reports that lay among slices, left out"
    FOREIGN = "empty files or files of another kind that are named as DICOM files, left out"
    FIRST_FILM = "studies of several films that are alike, of which the one with the lowest InstanceNumber was read"
    OTHER_STACK = "images of other size or orientation at places of the scan, left out of the same series"
    NO_AIR = "studies without air in view, since the field was zoomed into the body: nothing but headers tells their HU"


OF_SERIES = frozenset(each.value for each in Remark)
Noted = NDArray[np.int64]  # SeriesNumber (-1 where it is unknown), then the number of each Remark


def noted(series_number: int | None, remarks: Mapping[Remark, int]) -> Noted:
    """The same as an array, to be kept in a cache."""
    return np.array([-1 if series_number is None else series_number, *(remarks.get(each, 0) for each in Remark)])


class SeriesRead:
    """Which series were read of a site's studies.

    `numbers` and `persons` may leave a site; `lines` name studies and are for its own eyes.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, int, int, dict[Remark, int]]] = []

    def add(self, study: str, person: int, found: Noted) -> None:
        """Note a study of a person, who is a code."""
        number, *counts = found.tolist()
        self._found.append((study, person, number, dict(zip(Remark, counts, strict=True))))

    @property
    def numbers(self) -> dict[str, int]:
        """How often each remark was made."""
        total = Counter[str]()
        for *_, remarks in self._found:
            total.update({remark.value: number for remark, number in remarks.items() if number})
        return dict(total)

    @property
    def persons(self) -> dict[str, int]:
        """Of how many persons each was made."""
        pairs = {(remark, person) for _, person, _, remarks in self._found for remark in remarks if remarks[remark]}
        return dict(Counter(remark.value for remark, _ in pairs))

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Name of each study with a remark, and what is to know of it."""
        return [(study, _line(number, remarks)) for study, _, number, remarks in self._found if any(remarks.values())]


def _line(number: int, remarks: Mapping[Remark, int]) -> str:
    if remarks[Remark.FIRST_FILM]:
        return "several films are alike, the one with the lowest InstanceNumber was read"
    others = [f"{count} {remark.value}" for remark, count in remarks.items() if count and remark not in _CHOSEN]
    how = next((words for remark, words in _CHOSEN.items() if remarks[remark]), "")
    return "; ".join([f"series {number if number >= 0 else 'without a number'}{how}", *others])


_CHOSEN = {
    Remark.STOOD_IN: ", since the first by rank could not be read",
    Remark.NAMED_SERIES: ", which the labels name",
    Remark.FITTING_SERIES: ", which has the grid of the labels",
    Remark.FIRST_SERIES: ", the first by rank",
}
