"""What a dataset tells of its cohort before any training: counts of persons, moments and histograms, by column.

A dataset offers it by `describe(edges)`, which gives arrays by name and on how many persons each rests:

- `count/studies`, `count/labels` [1]: rows of the table, and those with what the study predicts.
- `count/known/<column>` [3]: persons with a value, without one, and with one that the study does not declare.
- `count/levels/<column>/<level>` and `count/label/<class>` [1]: persons.
- `moments/<column>` [3]: number, sum and sum of squares of its values.
- `histogram/<column>` [bins]: persons by bin, for the columns whose `edges` were agreed, by their first value; values
  beyond are in the first and the last bin.
- `.../image`: levels are how images look, moments are of each image's mean.
- `histogram/image intensities` [bins]: of a few persons, the share of their pixels by bin from 0 to 1 of the study's
  window; each person counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.intensities import BINS, LOOKS, look, shares, spread

Edges = Mapping[str, NDArray[np.float64]]
FEW = (5, 10, 20, 50, 100, 200)  # persons whose images are in the histogram of intensities, the most that there are


def untold(known: NDArray[np.bool_], person: NDArray[np.int64], minimum_cell: int) -> NDArray[np.bool_]:
    """Rows to count of a column, bool [n], such that nobody learns how many persons miss its value if they are few.

    Where some do, and fewer than `minimum_cell`, the first of the others in the table are left out with them, until
    they are so many; always the same ones, or two studies would differ by single persons.
    """
    short = np.unique(person[~known])
    others = list(dict.fromkeys(person[~np.isin(person, short)].tolist()))
    left_out = others[: max(minimum_cell - len(short), 0)] if len(short) else []
    return known & ~np.isin(person, left_out)


def parts_of(reasons: NDArray[Any], splits: NDArray[Any]) -> NDArray[Any]:
    """What a study tells apart of a table, text [rows]: why a row is left out (None: it is not), else its split."""
    left_out = np.array([each is not None for each in reasons], bool)
    return np.where(left_out, "left out: " + reasons.astype(str), splits).astype(str)


def behind_moments(values: NDArray[Any], person: NDArray[np.int64]) -> int:
    """On how many persons the number, sum and sum of squares of values without a gap rest: float [n], int64 [n].

    Three sums tell how often each of up to three values occurs, so of such a column (0 and 1, say) they rest on the
    persons of its rarest. Where most persons have one value (no event, say), they rest on the others.
    """
    everybody, (found, code) = len(np.unique(person)), np.unique(values, return_inverse=True)
    if len(found) < 2:
        return everybody
    having = np.bincount(np.unique(np.stack([code.astype(np.int64), person]), axis=1)[0])
    if len(found) <= 3:
        return int(having.min())
    others = len(np.unique(person[code != having.argmax()]))
    return others if 2 * others < everybody else everybody


def told_levels(
    levels: NDArray[np.bool_], told: NDArray[np.bool_], person: NDArray[np.int64], minimum_cell: int
) -> NDArray[np.bool_]:
    """Which of a category's levels to count, bool [k], of `told`: what they leave is of enough persons, or of nobody.

    `levels` bool [n, k] are the rows of each level but the reference, which the number of all rows tells by the others.
    """
    told = told.copy()
    while told.any() and 0 < len(np.unique(person[~levels[:, told].any(axis=1)])) < minimum_cell:
        told[np.flatnonzero(told)[levels[:, told].sum(axis=0).argmin()]] = False
    return told


def told_over_parts(persons: NDArray[np.int64], minimum_cell: int) -> NDArray[np.bool_]:
    """Which levels to count, bool [levels], by their persons in each part, [levels, parts].

    In each part a level that is told has enough persons or none, and so have all together that are not: the smallest
    of the others stay too until that is so.
    """
    told = ((persons == 0) | (persons >= minimum_cell)).all(axis=1)
    while True:
        left = persons[~told].sum(axis=0)
        few = (left > 0) & (left < minimum_cell)
        others = np.flatnonzero(told & (persons[:, few] > 0).any(axis=1))
        if not len(others):
            return told
        told[others[persons[others].sum(axis=1).argmin()]] = False


class Description:
    """Collects what `describe` gives.

    Args:
        person: int64 [rows], a code for each row's person.
        edges: by column, the edges of its bins, growing.
        parts: text [rows], what a study tells apart: its splits, and by reason what it leaves out. What other tasks
            tell of one part can be subtracted: parts of fewer persons than `minimum_cell` are not described, and a
            number rests on the fewest persons of a part that it is of.
        minimum_cell: persons that stand behind what leaves a site.
    """

    def __init__(
        self, person: NDArray[np.int64], edges: Edges, parts: NDArray[Any] | None = None, minimum_cell: int = 1
    ) -> None:
        self.person, self.edges, self.minimum_cell = person, edges, minimum_cell
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.behind: dict[str, int] = {}
        named = np.full(len(person), "") if parts is None or minimum_cell <= 1 else parts
        self._parts = [rows for part in np.unique(named) if self._persons(rows := named == part) >= minimum_cell]
        self._told = np.any(self._parts, axis=0) if self._parts else np.zeros(len(person), bool)

    def _put(self, name: str, values: Any, rows: NDArray[np.bool_]) -> None:
        self.arrays[name] = np.asarray(values, np.float64)
        self.behind[name] = self._fewest(rows)

    def _persons(self, rows: NDArray[np.bool_]) -> int:
        return len(np.unique(self.person[rows]))

    def _fewest(self, rows: NDArray[np.bool_]) -> int:
        """The fewest persons of a part that these rows are of, 0 for none."""
        return min((found for part in self._parts if (found := self._persons(rows & part))), default=0)

    def rows(self, name: str, rows: NDArray[np.bool_]) -> None:
        """How many rows these are, as `count/<name>`; it tells of the persons of the other rows too."""
        self._part(f"count/{name}", (rows & self._told).sum(), rows, rows)

    def _part(self, name: str, number: int, rows: NDArray[np.bool_], parts: NDArray[np.bool_]) -> None:
        """A count of some rows, whose sum over `parts` would tell by the table's size of those beyond them."""
        self._put(name, [number], rows)
        beyond = self._fewest(~parts)
        self.behind[name] = min(self.behind[name], beyond or self.behind[name])

    def known(self, column: str, known: NDArray[np.bool_], undeclared: NDArray[np.bool_] | None = None) -> None:
        """Persons with a value, without one, and with one that the study does not declare."""
        outside = np.zeros_like(known) if undeclared is None else undeclared
        parts = [part & self._told for part in (known & ~outside, ~known, outside)]
        self._put(f"count/known/{column}", [self._persons(part) for part in parts], self._told)
        if len(self._parts) > 1:
            fewest = [found for part in parts if (found := self._fewest(part))]
            self.behind[f"count/known/{column}"] = min(fewest, default=0)

    def number(self, column: str, values: NDArray[Any]) -> None:
        """A column of numbers, NaN where missing: float [rows]."""
        known = np.isfinite(values)
        self.known(column, known)
        known &= self._told
        inside = values[known].astype(np.float64)
        self._put(f"moments/{column}", [known.sum(), inside.sum(), (inside**2).sum()], known)
        each = [known & part for part in self._parts if (known & part).any()]
        fewest = [behind_moments(values[rows].astype(np.float64), self.person[rows]) for rows in each]
        self.behind[f"moments/{column}"] = min(fewest, default=0)
        if column in self.edges:
            edges = self.edges[column]
            bins = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, len(edges) - 2)
            first = np.unique(self.person[known], return_index=True)[1]
            self._put(f"histogram/{column}", np.bincount(bins[first], minlength=len(edges) - 1), known)

    def category(self, column: str, values: Sequence[Any], declared: Sequence[str] | None = None) -> None:
        """A column of texts, None where missing; `declared` are the levels that the study knows, None for any."""
        texts = np.array(["" if each is None or each != each else str(each) for each in values], dtype=object)
        known = texts != ""
        undeclared = known & ~np.isin(texts, list(declared)) if declared is not None else None
        self.known(column, known, undeclared)
        self.levels(f"levels/{column}", texts, sorted(set(texts[known])) if declared is None else declared)

    def levels(self, name: str, texts: NDArray[Any], levels: Sequence[str]) -> None:
        """Persons by level, as `count/<name>/<level>`."""
        every = [(texts == level) & self._told for level in levels]
        for level, rows, told in zip(levels, every, self._apart(every), strict=True):
            self._put(f"count/{name}/{level}", [self._persons(rows)], rows)
            self.behind[f"count/{name}/{level}"] *= int(told)

    def classes(self, codes: NDArray[Any], names: Sequence[str]) -> None:
        """Persons by class of what the study predicts; `codes` int [rows], the number of the name, else -1."""
        self.rows("labels", codes >= 0)
        every = [(codes == code) & self._told for code in range(len(names))]
        for name, rows, told in zip(names, every, self._apart(every), strict=True):
            self._part(f"count/label/{name}", self._persons(rows), rows, codes >= 0)
            self.behind[f"count/label/{name}"] *= int(told)

    def _apart(self, levels: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Which levels can be told of, whatever is told of each part by itself."""
        if len(self._parts) < 2 or not levels:
            return np.ones(len(levels), bool)
        persons = np.array([[self._persons(rows & part) for part in self._parts] for rows in levels])
        return told_over_parts(persons, self.minimum_cell)

    def subgroups(self, groups: Mapping[str, Any], table: Any) -> None:
        """Persons by subgroup (`datamodules.targets.Subgroups`) of a table."""
        for name, group in groups.items():
            self.category(f"subgroup {name}", np.array([*group.names, ""])[group.read(table)], group.names)

    def images(self, images: Sequence[NDArray[Any] | None]) -> None:
        """The image of each row, None where it has none: how it looks, its mean, and of a few persons its intensities.

        Values are 0 to 1 within the study's window, of any shape.
        """
        has = np.array([image is not None for image in images], bool) & self._told
        self.number("image", np.array([np.nan if each is None else each.mean(dtype=np.float64) for each in images]))
        self.category("image", [None if each is None else look(each) for each in images], LOOKS)
        few = self._few(np.unique(self.person[has]))
        rows = np.flatnonzero(has & np.isin(self.person, few))
        total = np.zeros(BINS)
        for row in rows.tolist():
            total += shares(images[row]) / (self.person[rows] == self.person[row]).sum()
        if len(few):
            self._put("histogram/image intensities", total, has & np.isin(self.person, few))

    def _few(self, persons: NDArray[np.int64]) -> NDArray[np.int64]:
        """Some of the persons who have an image, so many that their number does not tell how many have none."""
        everybody = self._persons(self._told)
        number = max((each for each in FEW if each <= len(persons)), default=0)
        if len(persons) == everybody:
            number = min(everybody, max(FEW))
        return persons[spread(len(persons), number)] if number else persons[:0]

    def found(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
        """The arrays, and on how many persons each rests."""
        return self.arrays, self.behind
