"""What the report shows of a run as rows and cells: the sites, who took part, what was skipped, and what it cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flip.files import CENTRALIZED, FINE_TUNED, POOLED
from flip.messages import Fault
from flip.runs.record import RunRecord


def site_rows(run: RunRecord) -> list[dict[str, Any]]:
    """A row a site, the pooled one last: cohort, test metrics, gaps of the main one to the baselines."""
    rows = []
    tested = [*run.sites, None]
    for site in tested:
        about = {} if run.noised else run.cohort.get(site, {}) if site else totals(run)  # numbers that no site sent
        values = {name: run.tested(name, site) for name in run.metric_names}
        own = values.get(run.main or "", math.nan)
        alone = run.tested(run.main or "", site, f"baseline/alone/{site}/") if site else math.nan
        rows.append(
            {
                "site": site,
                "about": about,
                "values": values,
                "intervals": {name: run.interval(name, site) for name in run.metric_names},
                "withheld": {name: run.why_withheld(name, site) for name in run.metric_names},
                "to_fine_tuned": own - run.tested(run.main or "", site, f"baseline/{FINE_TUNED}/"),
                "to_centralized": own - run.tested(run.main or "", site, f"baseline/{CENTRALIZED}/"),
                "to_alone": own - alone,
            }
        )
    return rows


FIRST, MORE = 56, 100  # letters of metrics' names that a table holds beside a cohort's counts, and without them
LEAST = 17  # letters of an interval


def metric_groups(names: Sequence[str]) -> list[list[str]]:
    """Metrics by table, so that none is wider than a page of 1080 pixels; the first beside the cohort's counts."""
    groups: list[list[str]] = [[]]
    room = FIRST
    for name in names:
        needed = max(len(name), LEAST)
        if groups[-1] and needed > room:
            groups.append([])
            room = MORE
        groups[-1].append(name)
        room -= needed
    return groups


def withheld(run: RunRecord) -> dict[str, list[str]]:
    """By rule, the test metrics that are missing because of it, and where; those of subgroups are not listed."""
    found: dict[str, list[str]] = {}
    for site in [*run.sites, None]:
        for name in run.metric_names:
            if why := run.why_withheld(name, site):
                found.setdefault(why, []).append(f"{name}, {site or POOLED}")
    return found


def totals(run: RunRecord) -> dict[str, int]:
    """Persons and examples of all sites together."""
    keys = ("persons", "train", "validate", "test")
    return {key: sum(int(about.get(key) or 0) for about in run.cohort.values()) for key in keys}


def matrix(run: RunRecord) -> dict[str, Any] | None:
    """The main metric by where a model was trained (rows) and tested (columns).

    None without the `alone` baseline, or where the metric is withheld everywhere.
    """
    if not run.main:
        return None
    trained = [site for site in run.sites if any(name.startswith(f"baseline/alone/{site}/") for name in run.metrics)]
    if not trained:
        return None
    columns: list[str | None] = [*(site for site in run.sites if math.isfinite(run.tested(run.main, site))), None]
    prefixes = {f"{site} alone": f"baseline/alone/{site}/" for site in trained}
    prefixes |= {"fine-tuned, each at its site": f"baseline/{FINE_TUNED}/"}
    prefixes |= {"centralized": f"baseline/{CENTRALIZED}/", "this run": ""}
    rows = [(name, [run.tested(run.main, at, prefix) for at in columns]) for name, prefix in prefixes.items()]
    rows = [(name, values) for name, values in rows if any(math.isfinite(value) for value in values)]
    known = [value for _, values in rows for value in values if math.isfinite(value)]
    if not known:
        return None
    low, high = min(known), max(known)

    def shade(value: float) -> int:
        """Percent of the accent color: from 4 for the worst to 62 for the best."""
        if not math.isfinite(value):
            return 0
        part = (value - low) / (high - low) if high > low else 1.0
        return round(4 + 58 * (part if run.higher_is_better(run.main or "") else 1 - part))

    cells = [
        (name, [(value, shade(value), name == f"{at} alone") for value, at in zip(v, columns, strict=True)])
        for name, v in rows
    ]
    return {"columns": columns, "rows": cells}


def fault_text(name: str) -> str:
    """The sentence of a fault of the closed list; an unknown name stands for itself."""
    return Fault[name].value if name in Fault.__members__ else name


PHASES = {"fit": "", "validate": ", validation", "test": ""}
"""Phases in which every site is asked, and what is said of one behind the rounds."""


@dataclass(frozen=True)
class Absence:
    """Why a site gave no usable answer, and when."""

    site: str
    when: str
    why: str


@dataclass(frozen=True)
class Participation:
    """Who took part: `cells[site][round]` is "took part", "not asked", "fault", "refused" or "tests only"."""

    rounds: int
    cells: Mapping[str, Sequence[str]]
    faults: Sequence[Absence]


def participation(run: RunRecord) -> Participation | None:
    """Who took part in each round of the federation; None where nothing was federated."""
    if run.backend == "none":
        return None
    fits = [record for record in run.records if record["phase"] == "fit"]
    rounds = max((int(record["round"]) + 1 for record in fits), default=0)
    cells = {
        site: _cells(run, site, [record for record in fits if record["site"] == site], rounds) for site in run.sites
    }
    faults = []
    for site in run.sites:
        if first := run.cohort.get(site, {}).get("fault"):
            faults.append(Absence(site, "before round 1", fault_text(first)))
        when: dict[tuple[str, str], list[int]] = {}
        for record in run.records:
            if record["site"] == site and record.get("fault") and record["phase"] in PHASES:
                when.setdefault((record["phase"], str(record["fault"])), []).append(int(record["round"]) + 1)
        for (phase, fault), numbers in when.items():
            at = "final test" if phase == "test" else _ranges(numbers) + PHASES[phase]
            faults.append(Absence(site, at, fault_text(fault)))
    return Participation(rounds, cells, faults)


def _cells(run: RunRecord, site: str, fits: Sequence[Mapping[str, Any]], rounds: int) -> list[str]:
    """What a site did in each round; one that refused before the first round was not asked again."""
    about = run.cohort.get(site, {})
    unasked = kind_of(str(about["fault"])) if about.get("fault") else "not asked"
    row = ["tests only" if about.get("trains") is False else unasked] * rounds
    for record in fits:
        row[int(record["round"])] = kind_of(str(record["fault"])) if record.get("fault") else "took part"
    return row


def kind_of(fault: str) -> str:
    """Whether a site refused or failed."""
    return "refused" if fault in Fault.__members__ and Fault[fault].refused else "fault"


def _ranges(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] as "rounds 1-3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    text = ", ".join(str(a) if a == b else f"{a}\u2013{b}" for a, b in spans)
    return f"round{'s' if len(numbers) > 1 else ''} {text}"


@dataclass
class Cost:
    """What one site cost over the whole run: bytes sent to and by it, and seconds by what it did."""

    site: str
    down: int = 0
    up: int = 0
    train: float = 0.0
    score: float = 0.0
    baseline: float = 0.0

    @property
    def total(self) -> float:
        """All seconds."""
        return self.train + self.score + self.baseline


def costs(run: RunRecord) -> list[Cost]:
    """Bytes and seconds by site over the whole run."""
    found = {site: Cost(site) for site in run.sites}
    for record in run.records:
        cost = found.get(str(record["site"]))
        if cost is None:
            continue
        took = float(record.get("seconds") or 0)
        match record["phase"]:
            case "fit":
                cost.train += took
            case "alone" | "centralized" | "fine_tuned":
                cost.baseline += took
            case _:
                cost.score += took
        cost.down += int(record.get("bytes_down") or 0)
        cost.up += int(record.get("bytes_up") or 0)
    return list(found.values())


def warnings(run: RunRecord) -> list[tuple[str, str]]:
    """What puts a site's examples in doubt: the site, and what it is."""
    found = [(site, about.get("warnings") or {}) for site, about in run.cohort.items()]
    return [(site, f"{int(number):,} {words}") for site, each in found for words, number in each.items()]


def counted(run: RunRecord, what: str) -> dict[str, dict[str, int]]:
    """What the sites "skipped" (examples), or their "remarks", by reason, then by site."""
    table: dict[str, dict[str, int]] = {}
    for site, about in run.cohort.items():
        for reason, number in (about.get(what) or {}).items():
            table.setdefault(str(reason), {})[site] = int(number)
    return table
