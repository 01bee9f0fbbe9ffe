"""What the sites' cohorts hold, read back from a run folder: tables, and what does not seem to fit between sites."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from flip.errors import several
from flip.messages import Fault
from flip.messages.summary import IMAGE, KNOWN, Moments
from flip.report.cohort_images import ODD, image_findings
from flip.report.finding import Finding
from flip.report.tables import fault_text, warnings
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from rich.console import RenderableType

APART = 3.0  # deviations of the other sites between their mean and this one's, from which on the unit is suspected
NEAR = 0.2  # how far a ratio of means may be from a known conversion to be named as one
FACTORS = {
    "pounds for kilograms": 0.4536, "centimeters for meters": 0.01, "meters for centimeters": 100.0,
    "months for years": 1 / 12, "days for years": 1 / 365.25, "inches for meters": 0.0254, "grams for kilograms": 0.001,
    "mg/dL of glucose for mmol/L": 0.0555, "mg/dL of cholesterol for mmol/L": 0.02586,
    "mg/dL of creatinine for umol/L": 88.4, "umol/L of creatinine for mg/dL": 0.0113,
    "kilograms for pounds": 2.2046, "percent for a share": 0.01,
}  # fmt: skip
"""By what a unit is mistaken for another: declared = own * factor."""


class Cohorts:
    """The sites' cohorts of a run folder.

    Args:
        run: a run of job=check or job=statistics.
    """

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self.told, self._shapes = (
            {
                site: {name: each["values"] for name, each in named.items() if each["persons"]}
                for site, named in (run.description.get(key) or {}).items()
            }
            for key in ("sites", "shapes")
        )

    def _named(self, prefix: str) -> list[str]:
        """What follows the prefix in the summaries' names, of all sites in turn."""
        found = [name for named in self.told.values() for name in named if name.startswith(prefix)]
        return list(dict.fromkeys(name.removeprefix(prefix) for name in found))

    @cached_property
    def numbers(self) -> list[str]:
        """Columns of numbers."""
        return self._named("moments/")

    @cached_property
    def columns(self) -> list[str]:
        """All columns."""
        return list(dict.fromkeys([*self._named(KNOWN), *self.numbers, *self.categories]))

    @cached_property
    def categories(self) -> dict[str, list[str]]:
        """By column of texts, its levels."""
        found: dict[str, list[str]] = {}
        for name in self._named("count/levels/"):
            column, _, level = name.partition("/")
            found.setdefault(column, []).append(level)
        return found

    @cached_property
    def classes(self) -> list[str]:
        """The classes of what the study predicts."""
        return self._named("count/label/")

    def count(self, site: str, name: str) -> float | None:
        """A count of one number; None where it is not known."""
        values = self.told.get(site, {}).get(f"count/{name}")
        return float(values[0]) if values else None

    def moments(self, sites: Sequence[str], column: str) -> Moments | None:
        """A column's moments over sites."""
        found = [self.told[site][name] for site in sites if (name := f"moments/{column}") in self.told.get(site, {})]
        return Moments.of([sum(each[index] for each in found) for index in range(3)]) if found else None

    def _parts(self, site: str, column: str) -> list[float] | None:
        """Persons with a value, without one, and with one that the study does not declare."""
        return self.told.get(site, {}).get(f"{KNOWN}{column}")

    def missing(self, site: str, column: str) -> float | None:
        """Share of persons without a value; None where it is kept back, or not known."""
        values = self._parts(site, column)
        return values[1] / sum(values) if values else None

    def known(self, site: str, column: str) -> float | None:
        """Persons with a value that the study knows; None where it is kept back, or not known."""
        values = self._parts(site, column)
        return values[0] if values else None

    def shapes(self) -> dict[str, str]:
        """The shape of each part of an example in words, of the first site that told it."""
        told: Mapping[str, list[float]] = next(filter(None, self._shapes.values()), {})
        return {name: " x ".join(f"{size:.0f}" for size in shape) or "one number" for name, shape in told.items()}

    @cached_property
    def findings(self) -> list[Finding]:
        """What does not fit, site by site."""
        found = [self._fault(site) for site in self.run.sites]
        found += [Finding(site, "", words, "To be settled with the site") for site, words in warnings(self.run)]
        for site in self.told:
            others = [other for other in self.told if other != site]
            columns, numbers = ([each for each in c if each != IMAGE] for c in (self.columns, self.numbers))
            odd = {look: self.count(site, f"levels/{IMAGE}/{look}") for look in ODD}
            own, rest = (self.moments(sites, IMAGE) for sites in ([site], others))
            found += image_findings(site, self.missing(site, IMAGE), odd, own=own, rest=rest)
            found += [self._lacking(site, others, column) for column in columns]
            found += [self._constant(site, others, column) for column in numbers]
            found += [self._unit(site, others, column) for column in numbers]
            found += [self._spelling(site, others, column) for column in columns]
        return [each for each in found if each is not None]

    def _fault(self, site: str) -> Finding | None:
        described = [record for record in self.run.records if record["phase"] == "describe" and record["site"] == site]
        faults = [(self.run.cohort.get(site) or {}).get("fault"), *(record["fault"] for record in described)]
        name = next(filter(None, faults), None)
        if not name:
            return None
        remedy = (
            "A column of another name is mapped in its file as columns: {declared: own}, "
            "one that it lacks as columns: {declared: null}"
            if name == Fault.DATA.name
            else "To be settled with the site"
        )
        return Finding(site, "", fault_text(str(name)), remedy)

    def _lacking(self, site: str, others: Sequence[str], column: str) -> Finding | None:
        values = self._parts(site, column)
        elsewhere = any(self.missing(other, column) not in (None, 1.0) for other in others)
        if not values or values[0] or values[2] or not elsewhere:
            return None
        return Finding(
            site, column, "has no value of it, where other sites have",
            f"If another column holds it: columns: {{{column}: own_name}}; else the study fills it in as missing",
        )  # fmt: skip

    def _constant(self, site: str, others: Sequence[str], column: str) -> Finding | None:
        own, rest = self.moments([site], column), self.moments(others, column)
        if own is None or rest is None or own.deviation or not rest.deviation or own.number < 2:
            return None
        return Finding(
            site, column, f"all of its {own.number:.0f} values are {own.mean:g}: a code for a missing value?",
            f"If so: columns: {{{column}: {{values: {{{own.mean:g}: null}}}}}}",
        )  # fmt: skip

    def _unit(self, site: str, others: Sequence[str], column: str) -> Finding | None:
        own, rest = self.moments([site], column), self.moments(others, column)
        if own is None or rest is None or not rest.deviation or not own.deviation:
            return None
        apart = abs(own.mean - rest.mean) / rest.deviation
        if apart < APART:
            return None
        ratio = rest.mean / own.mean if own.mean else 0.0
        known = {words: factor for words, factor in FACTORS.items() if abs(ratio / factor - 1) < NEAR}
        words = min(known, key=lambda each: abs(ratio / known[each] - 1), default="")
        factor = f"{known[words]:.4g}" if words else f"{ratio:.3g}"
        return Finding(
            site, column,
            f"another unit is suspected{f' ({words})' if words else ''}: its mean is {own.mean:.4g}, that of the other "
            f"sites {rest.mean:.4g}, {apart:.1f} of their deviations apart",
            f"If so: columns: {{{column}: {{name: own_name, factor: {factor}}}}}",
        )  # fmt: skip

    def _spelling(self, site: str, others: Sequence[str], column: str) -> Finding | None:
        values = self._parts(site, column)
        if values and values[2]:
            what = f"{several(round(values[2]), 'person')} with a value that the study does not declare"
            return Finding(
                site, column, what, f"Spelled otherwise? columns: {{{column}: {{values: {{own: declared}}}}}}"
            )
        if not others or column not in self.categories:
            return None
        own = self._levels(site, column)
        elsewhere = {level for other in others for level in self._levels(other, column)}
        alone, absent = sorted(own - elsewhere), sorted(elsewhere - own)
        if not alone or not absent:
            return None
        pairs = {each: next((a for a in absent if a[:1].lower() == each[:1].lower()), "declared") for each in alone}
        mapping = ", ".join(f"{each}: {declared}" for each, declared in pairs.items())
        what = f"another spelling is suspected: {', '.join(alone)} here alone; elsewhere {', '.join(absent)}"
        return Finding(site, column, what, f"If so: columns: {{{column}: {{values: {{{mapping}}}}}}}")

    def _levels(self, site: str, column: str) -> set[str]:
        return {level for level in self.categories[column] if self.count(site, f"levels/{column}/{level}")}


def screen_table(run: RunRecord) -> "RenderableType":
    """The sites' cohorts and what does not fit, for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    cohorts = Cohorts(run)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("site", no_wrap=True)
    for title in ("persons", "studies", "labels", "train", "validate", "test"):
        table.add_column(title, justify="right", no_wrap=True)
    lines: list[Text] = []
    for site in run.sites:
        about = run.cohort.get(site) or {}
        # Of these a 0 may also stand for what the site withholds.
        persons, *splits = (about.get(name) or None for name in ("persons", "train", "validate", "test"))
        counted = [persons, *(cohorts.count(site, name) for name in ("studies", "labels")), *splits]
        table.add_row(Text(site), *(_whole(each) for each in counted))
        classes = [f"{each} {_whole(cohorts.count(site, f'label/{each}'))}" for each in cohorts.classes]
        rates = {column: cohorts.missing(site, column) or 0.0 for column in cohorts.columns}
        most = sorted((column for column in rates if rates[column]), key=lambda column: -rates[column])
        missing = [f"{each} {rates[each]:.1%}" for each in most]
        told = {
            what: [f"{number} x {reason}" for reason, number in (about.get(what) or {}).items()]
            for what in ("skipped", "remarks")
        }
        for word, found in {"classes": classes, "missing": missing, **told}.items():
            if found:
                lines.append(Text.assemble((f"{site} {word}  ", "dim"), ", ".join(found)))
    shapes = [f"{name} {shape}" for name, shape in cohorts.shapes().items()]
    if shapes:
        lines.append(Text.assemble(("an example  ", "dim"), ", ".join(shapes)))
    for each in cohorts.findings:
        what = each.what if each.what.endswith("?") else f"{each.what}."
        lines.append(Text(f"{f'{each.site} {each.column}'.strip()}: {what} {each.remedy}", style="yellow"))
    return Group(table, *lines)


def _whole(value: float | None) -> str:
    """A count; a dash where it is not known, or kept back."""
    return "\u2013" if value is None else f"{int(value)}"
