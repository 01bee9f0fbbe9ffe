"""Complementary suppression: what is withheld beside a small count, so that no subtraction gives it back.

The rule is that of sums of two or more cells (Hundepool et al., Statistical Disclosure Control, 2012, chapter 4): what
is withheld together is two counts or more and of the minimum cell or more, so that each may be anything from 0 to that.
`tests/site/attacker.py` holds whole reports against it by integer programming.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE = 400  # counts of a table; the largest that is shipped has some 30
PARTS = {"known": 3, "levels": 3, "units": 3, "label": 2}
"""Counts that are parts of a whole, and how much of their names tells which; others, as notes by word, are none."""


def suppress_complementary(persons: NDArray[Any], cell: int) -> NDArray[np.float64]:
    """Counts of persons whose sum is known, with every small one at 0, and others so that none can be told from it.

    The smallest of the others become 0 too, until those that did are two or more and hold `cell` together.
    """
    return _line(np.array(persons, np.float64), np.asarray(persons, np.float64), cell)


def suppress_groups(
    persons: Mapping[str, NDArray[Any]], cell: int, behind: Mapping[str, int] | None = None
) -> dict[str, NDArray[Any]]:
    """Complementary suppression where the sum of counts is known: of one array, or of the names that begin alike.

    A count is as small as the persons that it rests on, by `behind`, where they are fewer: what other tasks tell can be
    subtracted from it, and from those that are withheld with it.
    """
    kept = dict(persons)
    groups: dict[str, list[str]] = {}
    for name, array in persons.items():
        if name.startswith("count/") and name.split("/")[1] in PARTS:
            whole = name if array.size > 1 else "/".join(name.split("/")[: PARTS[name.split("/")[1]]])
            groups.setdefault(whole, []).append(name)
    for names in groups.values():
        values = np.concatenate([persons[name] for name in names])
        fewest = [np.minimum(persons[name], (behind or {}).get(name, np.inf)) for name in names]
        told = suppress_complementary(np.concatenate(fewest), cell) > 0
        kept |= dict(zip(names, np.split(np.where(told, values, 0.0), len(names)), strict=True))
    return kept


def suppress_total(persons: int, parts: Sequence[int], cell: int, *, skipped: int) -> int:
    """The persons of a cohort, less those in its small parts where the total would tell of them.

    `parts` are the persons of each split. The others of the cohort are a part too, and so are those of them who are
    beyond the `skipped` ones, whose number leaves with their reasons.
    """
    others = persons - sum(parts)
    beyond = others - skipped if others >= cell else others
    small = sum(part for part in (*parts, beyond) if 0 < part < cell)
    return persons - small if small < cell else persons


def suppress_table(persons: NDArray[np.int64], cell: int) -> NDArray[np.float64]:
    """A table of counts whose sums along every axis may be known where they are told: of any shape.

    As `suppress_complementary` of each line, and then, while a small count has fewer values than `cell` that all that
    is told permits, without the smallest of the others too. Of more than `LARGE` counts all stay, where one does.
    """
    whole = np.asarray(persons, np.float64)
    kept = _lines(whole.copy(), whole, cell)
    if whole.size > LARGE and (kept != whole).any():
        return np.zeros_like(whole)
    while (kept != whole).any() and kept.any() and whole.ndim > 1 and _known_too_well(kept, whole, cell):
        smallest = np.where(kept > 0, kept, np.inf).argmin()
        kept.flat[smallest] = 0
        kept = _lines(kept, whole, cell)
    return kept


def _lines(kept: NDArray[np.float64], whole: NDArray[np.float64], cell: int) -> NDArray[np.float64]:
    """Every line of a table, until none changes: what is withheld in a row is withheld in a column too."""
    while True:
        before = kept.copy()
        for axis in range(kept.ndim):
            lines, counts = np.moveaxis(kept, axis, -1), np.moveaxis(whole, axis, -1)
            for index in np.ndindex(lines.shape[:-1]):
                lines[index] = _line(lines[index], counts[index], cell)
        if (kept == before).all():
            return kept


def _known_too_well(kept: NDArray[np.float64], whole: NDArray[np.float64], cell: int) -> bool:
    """Whether a small count has fewer values than `cell`, by the counts and the sums along each axis that are told."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # .3 s to import

    sums = [np.ones((1, whole.size))]
    told = [whole.sum()]
    for axis, length in enumerate(whole.shape):
        margin = suppress_complementary(np.moveaxis(whole, axis, 0).reshape(length, -1).sum(1), cell)
        at = np.indices(whole.shape)[axis].ravel()
        sums += [(at == line)[None] * 1.0 for line in np.flatnonzero(margin)]
        told += margin[margin > 0].tolist()
    shown = kept.ravel()
    bounds = Bounds(shown, np.where(shown > 0, shown, whole.sum()))
    known = LinearConstraint(np.concatenate(sums), told, told)
    for place in np.flatnonzero((whole.ravel() > 0) & (whole.ravel() < cell)):
        goal = np.eye(whole.size)[place]
        ends = [milp(sign * goal, constraints=known, bounds=bounds, integrality=1).fun for sign in (1, -1)]
        if round(-ends[1]) - round(ends[0]) + 1 < cell:
            return True
    return False


def _line(kept: NDArray[np.float64], whole: NDArray[np.float64], cell: int) -> NDArray[np.float64]:
    """A line of a table, of which some counts are withheld already."""
    hidden = [index for index, count in enumerate(whole) if count > 0 and (count < cell or kept[index] == 0)]
    others = sorted((i for i, count in enumerate(kept) if count >= cell), key=lambda i: float(kept[i]))
    while hidden and others and (len(hidden) < 2 or whole[hidden].sum() < cell):
        hidden.append(others.pop(0))
    return np.where(np.isin(np.arange(len(kept)), hidden), 0.0, kept)
