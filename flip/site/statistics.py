"""What a site tells before the first round besides its sizes: summaries that the dataset wants agreed over sites."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from flip.messages.summary import Summary, SummaryKind
from flip.site.disclosure import cover_groups

KNOWN = "count/known/"


def summary_of(name: str, array: np.ndarray, persons: int) -> Summary:
    """A summary of the kind that the name starts with (`count/...`, `moments/...`)."""
    return Summary(SummaryKind(name.split("/")[0]), np.asarray(array, dtype=np.float64), persons)


def dataset_summaries(data: Any, *, persons: int, minimum_cell: int) -> dict[str, Summary]:
    """The dataset's own statistics as `statistics/...`; empty for a dataset that agrees nothing.

    A dataset whose values can be missing takes `statistics(minimum_cell)`, and says by `behind()` on how many persons
    each rests. A count's name may tell too, as that of a rare category does: where all of a count is below the minimum
    cell, its name stays here as well, and so does another's that would tell it: see `covered`.
    """
    if not hasattr(data, "statistics"):
        return {}
    guards = "minimum_cell" in inspect.signature(data.statistics).parameters
    arrays = cover_groups(data.statistics(minimum_cell) if guards else data.statistics(), minimum_cell)
    behind: Mapping[str, int] = data.behind() if hasattr(data, "behind") else {}
    summaries = {
        name: summary_of(name, array, min(behind.get(name, persons), persons)) for name, array in arrays.items()
    }
    return {
        f"statistics/{name}": summary
        for name, summary in summaries.items()
        if summary.kind is not SummaryKind.COUNT or summary.suppress(minimum_cell).values.any()
    }


def description(data: Any, edges: Mapping[str, np.ndarray], *, persons: int, minimum_cell: int) -> dict[str, Summary]:
    """What the dataset tells of its cohort, as `description/...`; empty for one without `describe`.

    Counts that share a place (`count/levels/sex/...`) add up to a number that is known, so that one of them that is
    kept back would be told by the others: see `covered`. No name leaves of a count that is kept back, and of a column
    whose number of known values is kept back, nothing does: moments, histogram and levels would tell it.
    """
    if not hasattr(data, "describe"):
        return {}
    counted, behind = data.describe(edges)
    arrays = cover_groups(counted, minimum_cell)
    for name in [name for name in arrays if name.startswith(KNOWN) and (arrays[name] != counted[name]).any()]:
        column, told = name.removeprefix(KNOWN), arrays.pop(name)  # a part at 0 would read as none
        if told[0] != counted[name][0]:
            alike = (f"moments/{column}", f"histogram/{column}")
            levels = f"count/levels/{column}/"
            arrays = {n: each for n, each in arrays.items() if n not in alike and not n.startswith(levels)}
    return {
        f"description/{name}": summary_of(name, array, min(behind.get(name, persons), persons))
        for name, array in arrays.items()
        if array.any()
    }


def skipped(datamodule: Any, persons: int) -> tuple[dict[str, Summary], dict[str, int]]:
    """What was skipped, counted by the reasons that the dataset declares; and by others, which stay at the site."""
    reasons: Mapping[str, int] = getattr(datamodule, "skipped", {})
    declared: frozenset[str] = getattr(type(datamodule), "REASONS", frozenset())
    told = {
        f"skipped/{reason}": summary_of("count/skipped", np.array([float(number)]), persons)
        for reason, number in reasons.items()
        if reason in declared
    }
    return told, {reason: reasons[reason] for reason in sorted(set(reasons) - declared)}


def shapes(data: Any) -> dict[str, Summary]:
    """Shape of each part of an example, as `shape/...`; empty for a dataset without examples to train or test on."""
    for loader in (data.train_dataloader(), data.test_dataloader()):
        if loader and len(loader.dataset):
            example = loader.dataset[0]
            found = {name: np.array(getattr(value, "shape", ()), np.float64) for name, value in example.items()}
            return {f"shape/{name}": Summary(SummaryKind.SUM, shape, 1) for name, shape in found.items()}
    return {}
