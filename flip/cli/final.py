"""What the terminal shows of a run that has ended: the main metric by site, with intervals and baselines."""

import math
from typing import TYPE_CHECKING

from flip.files import CENTRALIZED, FINE_TUNED, POOLED
from flip.report.applied import applied
from flip.report.forest import tested_examples
from flip.report.format import number
from flip.report.notices import notes, notices
from flip.report.tables import withheld
from flip.report.units import titled
from flip.report.verdict import Verdict
from flip.runs.record import RunRecord
from flip.text import LONGEST_LINE, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDEST = 24  # letters of a site's name in a line
NAMED = 6  # numbers that are withheld by one rule and named; the report names all


def show(run: RunRecord, console: "Console") -> None:
    """Print the final table of a run that was tested, and what a reader must know of it."""
    verdict = Verdict(run)
    if run.main and any(math.isfinite(run.tested(run.main, at)) for at in (*run.sites, None)):
        console.print(table(run))
    said = [*notices(run), *([verdict.sentence] if verdict.sentence else [])]
    said += [f"against {gap.against}: {gap.words}" for gap in verdict.differences]
    said += [*verdict.losses, *verdict.better_alone]
    said += [f"{model.name} {number(model.value)}" for model in verdict.models if model.protocol]
    said += notes(run)
    if verdict.absent:
        said += verdict.sites
    for why, names in withheld(run).items():
        more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said.append(f"withheld: {'; '.join(names[:NAMED])}{more}: {why}")
    for text in said:
        console.print(printable(text, LONGEST_LINE), markup=False, highlight=False, soft_wrap=True)


def table(run: RunRecord) -> "Table":
    """The main test metric by site and pooled, of this run and its baselines, each with its 95 % interval."""
    from rich.table import Table
    from rich.text import Text

    main, own = run.main or "", "centralized" if run.backend == "none" else "this run"
    given = applied(run)
    columns = given or {own: ""}
    if run.backend != "none" and not given:
        columns |= {"fine-tuned": f"baseline/{FINE_TUNED}/", "centralized": f"baseline/{CENTRALIZED}/"}
        columns |= {"alone": "baseline/alone/{site}/"}
    rows: list[str | None] = [*run.sites, None]
    cells = {
        name: [_cell(run, main, site, prefix.format(site=site)) if site or name != "alone" else "" for site in rows]
        for name, prefix in columns.items()
    }
    shown = {name: column for name, column in cells.items() if name == own or any(column)}
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    names = max(len(site or POOLED) for site in rows)
    found.add_column(Text(f"test {titled(run, main)}"), overflow="fold", min_width=min(names, WIDEST), max_width=WIDEST)
    tested = [run.examples(site, "test") if site else tested_examples(run) for site in rows]
    if any(tested):
        found.add_column("n", justify="right", no_wrap=True)
    for name, column in shown.items():  # of a long heading the words go below one another
        found.add_column(name, min_width=max(map(len, column)))
    for index, site in enumerate(rows):
        number_of = [f"{tested[index]:,}" if tested[index] else ""] if any(tested) else []
        found.add_row(
            Text(site or POOLED),
            *number_of,
            *(Text(column[index] or "\u2013") for column in shown.values()),
        )
    return found


def _cell(run: RunRecord, metric: str, site: str | None, prefix: str) -> str:
    value, ends = run.tested(metric, site, prefix), run.interval(metric, site, prefix)
    if not math.isfinite(value):
        return "withheld" if not prefix and run.why_withheld(metric, site) else ""
    return number(value) + (f" ({_short(ends[0])}\u2013{_short(ends[1])})" if ends else "")


def _short(value: float) -> str:
    """A number of an interval, without the zero before its point."""
    return number(value).replace("0.", ".", 1) if abs(value) < 1 else number(value)
