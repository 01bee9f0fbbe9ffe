"""The model card as a page and as Markdown: one content, two forms. `python -m flip card RUN`."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flip.files import write_atomic
from flip.report.card import CALIBRATION, MARKDOWN, PAGE, Section, Table, sections
from flip.report.page import render
from flip.runs.record import RunRecord
from flip.text import LONGEST_LINE, printable

DISCLAIMER = "research use only, not a medical device"
MARKS = re.compile(r"([\\`*{}\[\]<>#|~!]|(?<!\w)_|_(?!\w))")  # what Markdown may read as markup


def card(arguments: Sequence[str]) -> int:
    """Write the model card of a run into its folder. Returns the exit status. Raises UserError."""
    parser = argparse.ArgumentParser("flip card", description="Write a run's model card, as HTML and as Markdown.")
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the folder of a finished training, as runs/<name>/<time>"
    )
    chosen = parser.parse_args(list(arguments))
    for path in write(chosen.run, chosen.run):
        print(path)
    return 0


def write(run: Path, folder: Path) -> tuple[Path, Path]:
    """Write a run's card into a folder, as HTML and as Markdown; the same run gives the same bytes.

    Raises UserError for a folder that is no run, or whose run trained no model to its end.
    """
    record = RunRecord.read(run)
    made = sections(record)
    page = render("card.html.j2", {"run": record, "disclaimer": DISCLAIMER, "sections": made, **_figures(record)})
    write_atomic(folder / PAGE, page.encode())
    write_atomic(folder / MARKDOWN, markdown(record.name, made).encode())
    return folder / PAGE, folder / MARKDOWN


def markdown(name: str, made: Sequence[Section]) -> str:
    """The card as Markdown; every text of the run is escaped, so that none of it is markup."""
    lines = [f"# Model card: {escaped(name)}", "", f"**{DISCLAIMER}**", ""]
    for section in made:
        lines += [f"## {section.title}", ""]
        lines += [*(f"- {escaped(each)}" for each in section.said), *([""] if section.said else [])]
        for table in section.tables:
            lines += _table(table)
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    rows = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in (table.columns, *table.rows)]
    rule = "|".join(["", *(" --- " for _ in table.columns), ""])
    return [*([f"### {escaped(table.title)}", ""] if table.title else []), rows[0], rule, *rows[1:], ""]


def escaped(text: str) -> str:
    """A text as Markdown that shows it and nothing else, on one line."""
    return MARKS.sub(r"\\\1", printable(text, LONGEST_LINE)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _figures(run: RunRecord) -> Mapping[str, object]:
    """The page's figures by name: the forest of sites, the calibration, the privacy spent; those that there are."""
    from markupsafe import Markup

    from flip.report import figures as plots
    from flip.report.forest import forest
    from flip.report.panels import drawn

    with plots.style():
        spending = plots.privacy_curve(run)
        scores = forest(run, run.main) if run.main else None
        drawings = {
            "scores": plots.to_svg(scores, "scores", "Test metric by site") if scores else "",
            "spending": plots.to_svg(spending, "privacy", "Privacy spent by site") if spending else "",
            "bins": "".join(p["svg"] or "" for p in drawn(run) if CALIBRATION in str(p["title"]).lower()),
        }
    return {"drawings": {name: Markup(svg) for name, svg in drawings.items() if svg}}  # noqa: S704 - escaped by Matplotlib
