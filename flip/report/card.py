"""The model card of a finished run: its sections, made from the run folder alone.

The headings are those of Mitchell M et al., Model Cards for Model Reporting, Proc FAT* 2019:220-229,
doi:10.1145/3287560.3287596. What a bundle of MONAI says in its README (description, data, performance, limits, how to
cite) stands under them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flip.config.jobs import JOBS
from flip.errors import UserError, several
from flip.files import POOLED
from flip.report.forest import tested_examples
from flip.report.format import number, whole
from flip.report.model_details import details, intended
from flip.report.notices import notes, notices
from flip.report.panels import without_intervals
from flip.report.subgroups import Cell, subgroups
from flip.report.tables import counted, metric_groups, site_rows, withheld
from flip.report.units import titled
from flip.report.verdict import Verdict
from flip.runs.record import RunRecord

PAGE, MARKDOWN = "model_card.html", "model_card.md"
CALIBRATION = "calibration"
Row = Mapping[str, Any]  # of `site_rows`
NO_MECHANISM = (
    "No privacy mechanism was used: weights and scores may let somebody who has a person's data find out whether that "
    "person took part."
)
STAYED = "Each site trained on its own data under its own policy; no row of a person left a site."
SIMULATED = "The federation was a simulation on one machine: no privacy claim follows from these numbers."


@dataclass(frozen=True)
class Table:
    """A table of a section: a title, which may be empty, the names of columns, and cells as text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A section of the card: sentences, tables, and the names of the page's figures that belong to it."""

    title: str
    said: Sequence[str]
    tables: Sequence[Table] = ()
    figures: Sequence[str] = ()


def with_model(run: RunRecord) -> RunRecord:
    """The run itself. Raises UserError for one that trained no model to its end."""
    trains = JOBS[str(run.config.get("job", "train"))].trains
    if not trains or run.result.get("status") != "ok" or not run.result.get("digest"):
        raise UserError(
            f"{run.path}: trained no model to its end (job={run.config.get('job', 'train')}, status "
            f"{run.result.get('status')}); give the folder of a training whose result.json says ok"
        )
    return run


def sections(run: RunRecord) -> list[Section]:
    """The sections of a run's card in their order. Raises UserError for a run that has no model."""
    with_model(run)
    return [
        Section("Model details", details(run)),
        Section("Intended use", intended(run)),
        _factors(run),
        _metrics(run),
        _evaluation_data(run),
        _training_data(run),
        _results(run),
        _ethics(run),
        _caveats(run),
    ]


def _factors(run: RunRecord) -> Section:
    groups = subgroups(run)
    named = "; ".join(f"{group.name} ({', '.join(group.levels)})" for group in groups)
    said = [f"Results are told by site: {', '.join(run.sites)}."]
    said.append(f"By subgroup: {named}." if groups else "By subgroup: the study declared none, so none was tested.")
    return Section("Factors", said)


def _metrics(run: RunRecord) -> Section:
    said = []
    if run.main:
        better = "higher" if run.higher_is_better(run.main) else "lower"
        said.append(f"The main one is {titled(run, run.main)}; {better} is better.")
    methods: dict[str, list[str]] = {}
    for name in run.metric_names:
        if name in run.intervals:
            methods.setdefault(run.intervals[name], []).append(name)
    said += [f"95 % intervals, {how}: {', '.join(names)}." for how, names in methods.items()]
    threshold = run.tested("threshold", None)
    if math.isfinite(threshold):
        said.append(f"Decisions are yes from a probability of {number(threshold)} on, chosen on validation data.")
    return Section("Metrics", said or ["No metric was tested."])


def _evaluation_data(run: RunRecord) -> Section:
    said = ["Test data of the sites themselves, kept apart from training; each site keeps its own rows."]
    rows = [(site, _known(run, site, "test")) for site in run.sites]
    all_ = [("pooled, of the sites that train", whole(tested_examples(run) or None))]
    return Section("Evaluation data", said, [Table("", ["site", "test examples"], [*rows, *all_])])


def _training_data(run: RunRecord) -> Section:
    verdict = Verdict(run)
    keys = ("persons", "train", "validate")
    rows = [(site, verdict.roles.get(site, ""), *(_known(run, site, key) for key in keys)) for site in run.sites]
    tables = [Table("", ["site", "part", "persons", "examples to train", "to validate"], rows)]
    for what, title in (("skipped", "Left out, by reason"), ("remarks", "To know of what was read")):
        told = counted(run, what).items()
        cells = [(why, *(whole(by.get(s)) for s in run.sites), whole(sum(by.values()))) for why, by in told]
        tables += [Table(title, ["reason", *run.sites, "all"], cells)] if cells else []
    return Section("Training data", verdict.cohort or ["What the sites hold was not told."], tables)


def _known(run: RunRecord, site: str, key: str) -> str:
    """A count that a site gave; a dash where it gave none."""
    about = {} if run.noised else run.cohort.get(site, {})
    return whole(None if about.get("fault") else about.get(key))


def _measured(value: float, ends: tuple[float, float] | None) -> str:
    return number(value) + (f" ({number(ends[0])} to {number(ends[1])})" if ends else "")


def _results(run: RunRecord) -> Section:
    verdict = Verdict(run)
    tables: list[Table] = []
    sites = [row for row in site_rows(run) if row["site"] or len(run.sites) > 1]
    for names in metric_groups(run.metric_names) if run.metric_names else ():
        rows = [(row["site"] or POOLED, *(_score(row, name) for name in names)) for row in sites]
        titles = [titled(run, name) for name in names]
        tables.append(Table("" if tables else "By site, in brackets 95 % intervals", ["site", *titles], rows))
    if len(verdict.models) > 1:
        others = [(each.name, _measured(each.value, each.interval)) for each in verdict.models]
        tables.append(Table("Against the baselines, pooled", ["model", titled(run, str(run.main))], others))
    tables += [*_by_subgroup(run), *_calibration(run)]
    return Section("Quantitative analyses", [verdict.sentence] if verdict.sentence else [], tables, ["scores", "bins"])


def _score(row: Row, name: str) -> str:
    value = row["values"][name]
    if row["withheld"][name] and not math.isfinite(value):
        return "withheld"
    return _measured(value, row["intervals"][name])


def _by_subgroup(run: RunRecord) -> Iterator[Table]:
    def told(cell: Cell) -> str:
        return _measured(cell.value, cell.interval)

    for group in subgroups(run):
        rows = [
            (f"{titled(run, row.metric)}, {row.site or POOLED}", *(told(cell) for cell in row.cells), number(row.gap))
            for row in group.rows
        ]
        yield Table(f"By {group.name}", ["metric", *group.levels, "gap"], rows)


def _calibration(run: RunRecord) -> Iterator[Table]:
    for panel in run.panels.get("panels") or []:
        if CALIBRATION in str(panel["title"]).lower() and panel.get("table"):
            table: Row = without_intervals(panel["table"]) if run.noised else panel["table"]
            rows = [[number(value) for value in row] for row in table["rows"]]
            yield Table(str(panel["title"]), [str(each) for each in table["columns"]], rows)


def _ethics(run: RunRecord) -> Section:
    said = ["Trained without federation, on data in one place." if run.backend == "none" else STAYED]
    spent = run.result.get("privacy")
    if not spent:
        return Section("Ethical considerations", [*said, NO_MECHANISM])
    said.append(
        f"Privacy spent, the most at any site: epsilon {number(spent['epsilon'])} at delta {number(spent['delta'])} "
        f"per {spent['unit']}."
    )
    said += [SIMULATED] if run.provenance.get("simulated") else []
    rows = [(site, number(e["epsilon"]), number(e["delta"])) for site, e in (spent.get("by_site") or {}).items()]
    table = Table("Privacy spent by site", ["site", "epsilon", "delta"], rows)
    return Section("Ethical considerations", said, [table] if rows else [], ["spending"])


def _caveats(run: RunRecord) -> Section:
    verdict = Verdict(run)
    said = [*notices(run), *(f"{each}." for each in verdict.better_alone), *notes(run)]
    said += [verdict.worst] if verdict.worst else []
    said += [*verdict.sites, *verdict.losses]
    kept = sum(len(names) for names in withheld(run).values())
    said += [f"{several(kept, 'number')} withheld by the rules of sites or of privacy."] if kept else []
    said.append("At a site that is not named here nothing is known: test it on that site's data before any use.")
    return Section("Caveats and recommendations", said)
