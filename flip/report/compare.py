"""Several runs side by side: the settings that differ, their metrics, which have the same weights, means over seeds."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flip.files import FINE_TUNED, NOT_SETTINGS, POOLED
from flip.report.units import titled
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.table import Table

NOT_COMPARED = (*NOT_SETTINGS, "federation")  # a backend changes nothing of a study
ABSENT = "\u2013"
BAD = ("failed", "refused", "interrupted", "held")  # statuses
IDEAL = {"calibration_slope": 1.0, "bias": 0.0, "volume_error": 0.0, "area_error": 0.0}
"""By part of its name, the value of a metric of which neither more nor less is better: the nearest to it is best."""
MANY_SITES = 6  # above this the table names the worst site in place of a column a site


@dataclass(frozen=True)
class Row:
    """One run, or the mean of runs that differ in their seed alone."""

    label: str
    settings: Sequence[str]
    status: str
    metrics: Sequence[tuple[float, float | None]]  # value, and its standard deviation over the seeds
    worst: str
    digest: str
    same: str  # label of an earlier run with the same digest


@dataclass(frozen=True)
class Comparison:
    """A table of runs."""

    settings: Sequence[str]
    metrics: Sequence[str]
    titles: Sequence[str]  # short names of the metrics' columns, as "accuracy, pooled", and the sites' alone
    main: str  # the metric of the sites' columns; empty without one
    best: Sequence[float]  # the best value of each metric among the rows, NaN where all are alike
    rows: Sequence[Row]
    means: Sequence[Row]
    many_sites: bool
    runs: int

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> "Comparison":
        """Compare runs, in their order."""
        flat = [dict(_settings(run)) for run in runs]
        keys = [
            key
            for key in dict.fromkeys(key for one in flat for key in one)
            if len({one.get(key, ABSENT) for one in flat}) > 1
        ]
        sites = list(dict.fromkeys(site for run in runs for site in run.sites))
        main = next((run.main for run in runs if run.main), None)
        names = [f"test/pooled/{name}" for name in dict.fromkeys(name for run in runs for name in run.metric_names)]
        if main and len(sites) <= MANY_SITES:
            names += [f"test/site/{site}/{main}" for site in sites]
        names = [name for name in names if any(name in run.metrics for run in runs)]
        labels = _labels(runs)
        digests = [str(run.result.get("digest") or "") for run in runs]
        rows = [
            Row(
                label=labels[index],
                settings=[one.get(key, ABSENT) for key in keys],
                status=str(run.result.get("status")),
                metrics=[(run.metrics.get(name, math.nan), None) for name in names],
                worst=(run.worst_site(main) or "") if main else "",
                digest=digests[index][:12],
                same=labels[digests.index(digests[index])]
                if digests[index] and digests.index(digests[index]) < index
                else "",
            )
            for index, (run, one) in enumerate(zip(runs, flat, strict=True))
        ]
        means = _means(rows, keys)
        rows = [each for run, row in zip(runs, rows, strict=True) for each in (row, *_tuned(run, row, names))]
        best = [_best(rows, index, runs[0], name) for index, name in enumerate(names)]
        titles = [_title(runs, name) for name in names]
        by = next((titled(run, main) for run in runs if main), "")
        return cls(keys, names, titles, by, best, rows, means, len(sites) > MANY_SITES, len(runs))

    @property
    def of_sites(self) -> list[int]:
        """Which of the metrics are of single sites."""
        return [index for index, name in enumerate(self.metrics) if name.startswith("test/site/")]

    def table(self, width: int = 1000) -> "Table":
        """The comparison for a terminal of so many columns: without losses, and without settings that others imply.

        What does not fit is named below the table, the last metrics first; a value is folded, and never cut.
        """
        from rich.table import Table
        from rich.text import Text

        rows = (*self.rows, *self.means)
        columns = [index for index, key in enumerate(self.settings) if not self._implied(key)]
        found = [index for index, title in enumerate(self.titles) if "loss" not in title]
        scores = {self.titles[at]: [cell(*row.metrics[at]) for row in rows] for at in found or range(len(self.titles))}
        first = {"run": [row.label for row in rows]}
        first |= {self._short(self.settings[at]): [row.settings[at] for row in rows] for at in columns}
        first["status"] = [row.status for row in rows]
        last = {"worst site": [row.worst for row in rows]} if self.many_sites else {}
        last["digest"] = [f"= {row.same}" if row.same else row.digest[:8] for row in rows]
        left = width - sum(taken(title, cells) for title, cells in (*first.items(), *last.items()))
        fitting: dict[str, list[str]] = {}
        for title, cells in scores.items():
            left -= taken(title, cells)
            if left >= 0 or not fitting:
                fitting[title] = cells
        missing = [title for title in scores if title not in fitting]
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", caption_justify="left")
        said = [f"at each site: {self.main}"] if any(self.titles[index] in fitting for index in self.of_sites) else []
        said += [f"too wide for this terminal: {'; '.join(missing)}"] if missing else []
        table.caption = "\n".join(said) or None
        shown = {**first, **fitting, **last}
        for title in shown:
            justify: Literal["left", "right"] = "right" if title in fitting else "left"
            table.add_column(Text(title.replace(", ", "\n")), justify=justify, overflow="fold")
        for row in zip(*shown.values(), strict=True):
            table.add_row(*(Text(text, style="red" if text in BAD else "") for text in row))
        return table

    def _short(self, key: str) -> str:
        """The last part of a setting's name, where no other column ends in the same."""
        last = key.rpartition(".")[2]
        return last if sum(other.rpartition(".")[2] == last for other in self.settings) == 1 else key

    def _implied(self, key: str) -> bool:
        """Whether a setting belongs to a class that only some runs chose, and follows from that choice."""
        index = list(self.settings).index(key)
        values = [row.settings[index] for row in self.rows]
        for at, parent in enumerate(self.settings):
            if key.startswith(f"{parent}.") and ABSENT in values:
                return len({(row.settings[at], row.settings[index]) for row in self.rows}) == len(
                    {row.settings[at] for row in self.rows}
                )
        return False


def taken(title: str, cells: Sequence[str]) -> int:
    """The columns of a terminal that a column of the table takes, with the space beside it."""
    return max(len(line) for text in (title.replace(", ", "\n"), *cells) for line in text.split("\n")) + 2


def cell(value: float, deviation: float | None) -> str:
    """A metric, with its standard deviation where it is a mean."""
    if not math.isfinite(value):
        return ABSENT
    return f"{value:.3f}" if deviation is None else f"{value:.3f}\n\u00b1{deviation:.3f}"


def _settings(run: RunRecord) -> Iterator[tuple[str, str]]:
    yield "federation", run.backend
    yield "sites", ", ".join(run.sites)
    for key, value in run.config.items():
        if key not in NOT_COMPARED:
            yield from _flat(key, value)


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    elif key.endswith("._target_"):
        yield key.removesuffix("._target_"), str(value).rpartition(".")[2]
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """The folders' own names, with those above them as far as it takes to tell them apart."""
    paths = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(labels)) == len(set(paths)):
            break
    return labels


def _tuned(run: RunRecord, row: Row, names: Sequence[str]) -> list[Row]:
    """The row of what the sites made of a run's final weights, each for itself; none where they did not."""
    found = [(run.metrics.get(f"baseline/{FINE_TUNED}/{name}", math.nan), None) for name in names]
    if not any(math.isfinite(value) for value, _ in found):
        return []
    return [replace(row, label=f"{row.label}, fine-tuned", metrics=found, worst="", digest="", same="")]


def _parts(name: str) -> list[str]:
    return name.split("/", 3 if name.startswith("test/site/") else 2)


def _title(runs: Sequence[RunRecord], name: str) -> str:
    _, where, *rest = _parts(name)
    told = max((titled(run, rest[0]) for run in runs if name in run.metrics), key=len)  # a run of before tells no unit
    return f"{told}, {POOLED}" if where == POOLED else rest[0]


def _best(rows: Sequence[Row], index: int, run: RunRecord, name: str) -> float:
    """The best value of a column; NaN where all are alike."""
    known = {row.metrics[index][0] for row in rows if math.isfinite(row.metrics[index][0])}
    if len(known) < 2:
        return math.nan
    own = _parts(name)[-1]
    for part, ideal in IDEAL.items():
        if part in own:
            return min(known, key=lambda value: abs(value - ideal))
    return (max if run.higher_is_better(own) else min)(known)


def _means(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """The mean of the successful runs that differ in `seed` alone, where there are several."""
    if "seed" not in keys:
        return []
    at = list(keys).index("seed")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.status == "ok":
            groups.setdefault((*row.settings[:at], "", *row.settings[at + 1 :]), []).append(row)
    means = []
    for settings, group in groups.items():
        if len(group) > 1:
            columns = list(zip(*([value for value, _ in row.metrics] for row in group), strict=True))
            metrics = [(statistics.fmean(values), statistics.stdev(values)) for values in columns]
            shown = [*settings[:at], f"{len(group)} seeds", *settings[at + 1 :]]
            means.append(Row("mean \u00b1 sd", shown, "", metrics, "", "", ""))
    return means


def compare_table(runs: Sequence[Path], width: int = 1000) -> "Table":
    """A table of several runs for a terminal: settings that differ, metrics, digest; means over seeds below.

    Raises UserError as `write` does.
    """
    from flip.report.compare import Comparison

    return Comparison.of([RunRecord.read(run) for run in runs]).table(width)
