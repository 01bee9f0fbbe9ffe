"""Complementary suppression: what is withheld beside a small count, so that no subtraction gives it back.

The rule is that of sums of two or more cells (Hundepool et al., Statistical Disclosure Control, 2012, chapter 4): what
is withheld together is two counts or more and of the minimum cell or more, so that each may be anything from 0 to that.
`tests/site/attacker.py` holds whole reports against it by integer programming.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = {"known": 3, "levels": 3, "units": 3, "label": 2}
"""Counts that are parts of a whole, and how much of their names tells which; others, as notes by word, are none."""


def suppress_complementary(persons: NDArray[Any], cell: int) -> NDArray[np.float64]:
    """Counts of persons whose sum is known, with every small one at 0, and others so that none can be told from it.

    The smallest of the others become 0 too, until those that did are two or more and hold `cell` together.
    """
    kept = np.array(persons, np.float64)
    hidden = [index for index, count in enumerate(kept) if 0 < count < cell]
    others = sorted((i for i, count in enumerate(kept) if count >= cell), key=lambda i: float(kept[i]))
    while hidden and others and (len(hidden) < 2 or kept[hidden].sum() < cell):
        hidden.append(others.pop(0))
    kept[hidden] = 0
    return kept


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
