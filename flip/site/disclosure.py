"""Every rule of what may leave a site, one function each."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flip.messages.summary import Summary, SummaryKind
from flip.metrics import EXAMPLES, exact_of, metrics_of
from flip.site.evaluate import Scores


def leaving(
    module: Any, values: dict[str, float], scores: Scores, *, examples: int, persons: int, cell: int
) -> tuple[dict[str, float], dict[str, Summary]]:
    """The values and sums that leave a site whose numbers have `cell` persons behind each."""
    withheld = kept_back(module, scores, examples, cell) | set(scores.withheld)
    kept = {
        name: value
        for name, value in values.items()
        if math.isfinite(value) and not {name, name.rpartition("/")[0]} & withheld
    }
    summaries = {
        f"metric/{name}": Summary(SummaryKind.SUM, array.astype(np.float64), persons)
        for name, array in scores.states.items()
        if name.rpartition("/")[0] not in withheld
    }
    return kept, summaries


def kept_back(module: Any, scores: Scores, examples: int, cell: int) -> set[str]:
    """Names of the metrics that stay at the site: with a thin cell, of a small subgroup, or exact with such a partner.

    Of a group's levels so many are kept back, the smallest first, that no thin one follows from the others and the
    total.
    """
    states = scores.states
    names = scores.thin | {key.rpartition("/")[0] for key, found in states.items() if thin(found, cell)}
    for group, levels in getattr(module, "levels", {}).items():
        counts = {level: int(states.get(f"{group}/{level}/{EXAMPLES}/count", 0)) for level in levels}
        for level in thin_levels(counts, examples, cell):
            names |= {name for name in metrics_of(module, "test") if name.startswith(f"{group}/{level}/")}
    return names | {name for name in exact_of(module) if any(other.startswith(f"{name}_") for other in names)}


def thin_levels(counts: Mapping[str, int], total: int, cell: int) -> set[str]:
    """Levels of a group to keep back; what `total` has beyond them are rows whose level is not known."""
    unknown = max(total - sum(counts.values()), 0)
    if not any(0 < number < cell for number in (*counts.values(), unknown)):
        return set()
    hidden, kept = unknown, set()
    for level in sorted(counts, key=lambda name: (counts[name], name)):
        if counts[level] and (counts[level] < cell or hidden < cell):
            kept.add(level)
            hidden += counts[level]
    return kept


def thin(found: np.ndarray, minimum_cell: int) -> bool:
    """Whether a metric's counts hold a cell of fewer persons than the site lets out."""
    whole = np.issubdtype(found.dtype, np.integer)
    return bool(minimum_cell > 1 and whole and np.any((found > 0) & (found < minimum_cell)))


def cover_groups(arrays: Mapping[str, np.ndarray], minimum_cell: int) -> dict[str, np.ndarray]:
    """The arrays with `covered` counts where their sum is known: of one array, or of the names that begin alike."""
    kept = dict(arrays)
    groups: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if name.startswith("count/") and name.split("/")[1] in PARTS:
            whole = name if array.size > 1 else "/".join(name.split("/")[: PARTS[name.split("/")[1]]])
            groups.setdefault(whole, []).append(name)
    for names in groups.values():
        values = covered(np.concatenate([arrays[name] for name in names]), minimum_cell)
        kept |= dict(zip(names, np.split(values, len(names)), strict=True))
    return kept


def covered(counts: np.ndarray, minimum_cell: int) -> np.ndarray:
    """Counts of persons whose sum is known, with every small one at 0, and others so that none can be told from it.

    The smallest of the others become 0 too, until those that did are two or more and hold `minimum_cell` together.
    """
    kept = np.array(counts, np.float64)
    hidden = [index for index, count in enumerate(kept) if 0 < count < minimum_cell]
    others = sorted((i for i, count in enumerate(kept) if count >= minimum_cell), key=lambda i: float(kept[i]))
    while hidden and others and (len(hidden) < 2 or kept[hidden].sum() < minimum_cell):
        hidden.append(others.pop(0))
    kept[hidden] = 0
    return kept


PARTS = {"known": 3, "levels": 3, "label": 2}
"""Counts that are parts of a whole, and how much of their names tells which; others, as notes by word, are none."""
