"""Which neighboring bins are put together, so that what leaves a site holds its minimum cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LEAST_CELLS = 5  # groups of a class at a site, without which a curve is not unbiased any more
Counts = NDArray[np.int64]


def groups(
    counts: Counts, cell: int, *, parted: int | None = None, borders: Iterable[int] | None = None
) -> list[slice]:
    """Slices of the bins of `counts` [2 k, bins], each with `cell` rows of a class or none of it, that tile them.

    `counts` are negatives and positives of all, then of parts. Of all such slices those with the fewest pairs of a
    negative and a positive of all in one slice, by dynamic programming over the bins that hold rows; borders lie in the
    middle between these, or are of `borders` alone. On both sides of the bin `parted`, where decisions begin, a slice
    has `cell` rows of a class or none too, of each part that has so over all bins: of others no decision leaves a site.
    Raises ValueError where there are no such slices.
    """
    held = np.flatnonzero(counts.any(0))
    if not len(held):
        return [slice(0, counts.shape[1])]
    before = np.concatenate([np.zeros((len(counts), 1), np.int64), counts[:, held].cumsum(1)], 1)
    decided = 0 if parted is None else int(np.searchsorted(held, parted))
    sides = _enough(before[:, decided], cell) & _enough(before[:, -1] - before[:, decided], cell)
    free = ~sides.reshape(-1, 2).all(1).repeat(2)[:, None]  # whose decisions leave no site
    places = _places(held, borders)
    begins = np.array([0, *sorted(places)])
    pairs, start = np.full(len(held) + 1, math.inf), np.zeros(len(held) + 1, np.int64)
    pairs[0] = 0.0
    for end in (*begins[1:], len(held)):
        from_ = begins[begins < end]
        inside = before[:, end : end + 1] - before[:, from_]
        allowed = _enough(inside, cell).all(0)
        if decided < end:  # the slices that begin before the decision and end after it
            below = before[:, [decided]] - before[:, from_]
            kept = free | (_enough(below, cell) & _enough(inside - below, cell))
            allowed &= (from_ >= decided) | kept.all(0)
        lost = np.where(allowed, pairs[from_] + inside[0] * inside[1], math.inf)
        start[end], pairs[end] = from_[lost.argmin()], lost.min()
    if math.isinf(pairs[-1]):
        raise ValueError(f"a class, or the others of its subgroup, would be told in groups of fewer than {cell} rows")
    found, end = [counts.shape[1]], int(start[-1])
    while end:
        found.append(places[end])
        end = int(start[end])
    return [slice(low, high) for high, low in itertools.pairwise([*found, 0])][::-1]


def _places(held: NDArray[np.int64], borders: Iterable[int] | None) -> dict[int, int]:
    """Where a border may lie: before which of the bins that hold rows, and at which bin."""
    if borders is None:
        return {place: int(held[place - 1] + held[place] + 1) // 2 for place in range(1, len(held))}
    found = {int(np.searchsorted(held, each)): each for each in borders}
    return {place: each for place, each in found.items() if 0 < place < len(held)}


def _enough(rows: Counts, cell: int) -> NDArray[np.bool_]:
    return (rows == 0) | (rows >= cell)


def short(counts: Tensor, cell: int) -> bool:
    """Whether a class of any curve in counts [2, curves, bins] has fewer rows than `cell`, but some."""
    rows = counts.sum(-1)
    return bool(((rows > 0) & (rows < cell)).any())


class HasCounts(Protocol):
    """A metric of counts in bins."""

    def counts(self) -> Tensor:
        """Counts int64 [2, curves, bins]."""

    def slices(self, curve: int, cell: int) -> list[slice]:
        """As `groups`."""


class Levels:
    """One metric for all rows and for each level of a subgroup: at a border of all, the rest follows from a level.

    So the levels have the same borders, some of those of all rows, and between two of them each level that may leave
    and all others together have `cell` rows of a class or none.
    """

    def __init__(self, whole: HasCounts, levels: Sequence[HasCounts]) -> None:
        self.whole, self.levels = whole, levels

    def slices(self, curve: int, cell: int, parted: int | None) -> list[slice]:
        """The slices of each level. Raises ValueError where there are none."""
        every = self.whole.counts()[:, curve].numpy()
        found = [each.counts() for each in self.levels]
        told = [each[:, curve].numpy() for each in found if not short(each, LEAST_CELLS * cell)]
        rest = every - sum(told, np.zeros_like(every))
        borders = [each.start for each in self.whole.slices(curve, cell)[1:]]
        return groups(np.concatenate([every, *told, rest]), cell, parted=parted, borders=borders)
