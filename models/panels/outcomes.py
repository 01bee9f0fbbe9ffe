"""Counts of outcomes among the test examples, by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.metrics.intervals import wilson

POOLED = "pooled"
WIDE = 9  # outcomes: of more, each has a row, and each site a column


def outcome_panel(counts: Mapping[str, Sequence[int | None]], names: Sequence[str]) -> dict[str, Any]:
    """A row a site, then the sites that train together; `counts` by place, of each of the named outcomes.

    None is none, or a number that is withheld.
    """
    rows = [[place, *counts[place], sum(each or 0 for each in counts[place])] for place in ordered(counts)]
    note = "By what was to be predicted. pooled: the sites that train. A dash is none, or withheld by a site."
    columns = ["site", *names, "all"]
    if len(names) > WIDE:
        whole = list(zip(columns, *rows, strict=True))
        columns, rows = [str(each) for each in whole[0]], [list(each) for each in whole[1:]]
    return {"title": "Outcomes in the test data", "note": note, "table": {"columns": columns, "rows": rows}}


def share(hits: int, total: int) -> list[Any]:
    """Two cells: a share, and Wilson's 95 % interval of it; empty of none."""
    low, high = wilson(hits, total)
    return [hits / total, f"{low:.3f} to {high:.3f}"] if total else [None, ""]


def named(names: Sequence[str], number: int) -> list[str]:
    """The study's names of so many outcomes, or "outcome 1" and so on where it has none."""
    return list(names) if len(names) == number else [f"outcome {index + 1}" for index in range(number)]


def ordered(places: Mapping[str, Any]) -> list[str]:
    """The sites in their order, the pooled one last."""
    return [place for place in places if place != POOLED] + [place for place in places if place == POOLED]
