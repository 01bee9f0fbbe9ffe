"""What the report shows by subgroup: the metrics of each level with their intervals, and the gap between levels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flip.runs.record import RunRecord

EXAMPLES = "examples"  # a count among the metrics of a subgroup


@dataclass(frozen=True)
class Cell:
    """A value with its interval, where it has one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One metric, pooled or at a site, by level; `gap` between the levels `most` and `least`."""

    metric: str
    site: str | None
    cells: Sequence[Cell]
    gap: float
    most: str
    least: str


@dataclass(frozen=True)
class Subgroup:
    """One declared grouping of the persons, such as sex."""

    name: str
    levels: Sequence[str]
    rows: Sequence[Row]


def subgroups(run: RunRecord) -> list[Subgroup]:
    """Every subgroup of the test data: all metrics pooled, then the main one at each site."""
    named: dict[str, dict[str, None]] = {}
    metrics: dict[str, None] = {}
    for _, _, name in run.test_metrics:
        match name.split("/"):
            case [group, level, metric] if level != "gap":
                named.setdefault(group, {})[level] = None
                metrics[metric] = None
    ordered = sorted(metrics, key=lambda name: (name != run.main, name == EXAMPLES))
    found = []
    declared = (run.config.get("model") or {}).get("subgroups") or {}
    for group, found_levels in named.items():
        place = {str(level): index for index, level in enumerate(declared.get(group) or ())}
        levels = sorted(found_levels, key=lambda level: place.get(level, len(place)))
        wanted: list[tuple[str, str | None]] = [(metric, None) for metric in ordered]
        wanted += [(run.main, site) for site in run.sites if run.main in metrics] if run.main else []
        rows = [row for metric, site in wanted if (row := _row(run, group, levels, metric, site))]
        found.append(Subgroup(group, levels, rows))
    return found


def _row(run: RunRecord, group: str, levels: Sequence[str], metric: str, site: str | None) -> Row | None:
    full = [f"{group}/{level}/{metric}" for level in levels]
    cells = [Cell(run.tested(name, site), run.interval(name, site)) for name in full]
    if metric == EXAMPLES:
        cells = [Cell(int(each.value)) if math.isfinite(each.value) else each for each in cells]
    known = {level: cell.value for level, cell in zip(levels, cells, strict=True) if math.isfinite(cell.value)}
    if not known:
        return None
    gap = run.tested(f"{group}/gap/{metric}", site)
    return Row(metric, site, cells, gap, max(known, key=lambda k: known[k]), min(known, key=lambda k: known[k]))
