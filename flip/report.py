"""The report of a run: one HTML file, a pure function of the run folder. `python -m flip.report RUN [RUN ...]`."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flip.errors import UserError
from flip.report_facts import THRESHOLD, RunRecord
from flip.report_rows import costs, matrix, participation, site_rows, skipped
from flip.report_subgroups import subgroups
from flip.weights import write_atomic

if TYPE_CHECKING:
    from rich.table import Table

REPORT = "report.html"


def write(run: Path) -> Path:
    """Write `report.html` into a run folder from what the folder holds, and return its path.

    Ok, failed and refused runs alike have a report; the same folder gives the same bytes. Raises UserError when the
    folder is none, has no result.json, or holds an unreadable file.
    """
    record = RunRecord.read(run)
    if record.config.get("job", "train") != "train":
        from flip import report_cohorts

        page = render("cohorts.html.j2", report_cohorts.context(record))
    else:
        page = render("report.html.j2", context(record))
    write_atomic(run / REPORT, page.encode())
    return run / REPORT


def compare_table(runs: Sequence[Path]) -> "Table":
    """A table of several runs for the terminal: settings that differ, metrics, digest; means over seeds below.

    Raises UserError as `write` does.
    """
    from flip.report_compare import Comparison

    return Comparison.of([RunRecord.read(run) for run in runs]).table()


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of `flip/templates`; every value is escaped unless it is Markup."""
    from jinja2 import Environment, FileSystemLoader

    folder = Path(__file__).parent / "templates"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.tests["finite"] = math.isfinite
    pages.filters |= {"whole": whole, "number": number, "signed": signed, "size": size, "seconds": seconds}
    return pages.get_template(template).render(values)


def number(value: Any) -> str:
    """A number for reading: three decimals below 100, a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\u2013"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 100):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    text = f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    if value and abs(value) < 0.0005:
        mantissa, power = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(power)}"
    return text.replace("-", "\u2212")


def whole(value: float | None) -> str:
    """A count for reading, a dash where it is not known."""
    return "\u2013" if value is None else f"{int(value):,}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"+{number(value)}" if value > 0 and math.isfinite(value) else number(value)


def size(value: float) -> str:
    """Bytes for reading, in powers of 1000."""
    if value < 1000:
        return f"{value:.0f} B"
    power = min(int(math.log(value, 1000)), 4)
    return f"{value / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def seconds(value: float) -> str:
    """A duration for reading."""
    if value < 60:
        return f"{value:.1f} s" if value >= 1 or not value else f"{value:.2f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def context(run: RunRecord) -> dict[str, Any]:
    """Every value that the report's template shows."""
    main = run.main
    return {
        "run": run,
        "main": main,
        "pooled": run.tested(main, None) if main else math.nan,
        "worst": run.worst_site(main) if main else None,
        "higher": run.higher_is_better(main) if main else True,
        "strategy": str((run.config.get("strategy") or {}).get("_target_", "")).rpartition(".")[2],
        "private": bool(run.config.get("privacy")) or bool(run.result.get("privacy")),
        "mechanisms": ", ".join(run.config.get("privacy") or {}),
        "sites": site_rows(run),
        "subgroups": subgroups(run),
        "threshold": run.tested(THRESHOLD, None),
        "matrix": matrix(run),
        "grid": participation(run),
        "costs": costs(run),
        "skipped": skipped(run),
        "panels": _panels(run),
        **_figures(run),
    }


def _figures(run: RunRecord) -> dict[str, Any]:
    from markupsafe import Markup

    from flip import report_figures as plots

    def svg(figure: Any, key: str, label: str) -> Markup | None:
        return Markup(plots.to_svg(figure, key, label)) if figure is not None else None  # noqa: S704 - escaped by Matplotlib

    with plots.style():
        return {
            "color": plots.colors(run.sites),
            "dashed": len(run.sites) > len(plots.PALETTE),
            "curves": svg(plots.learning_curves(run), "curves", "Learning curves by site"),
            "scores": svg(plots.site_scores(run, run.main), "scores", "Test metric by site") if run.main else None,
            "spending": svg(plots.privacy_curve(run), "privacy", "Privacy spent by site"),
        }


def _panels(run: RunRecord) -> list[dict[str, Any]]:
    """What the study adds, drawn by its own class; a sentence in its place when that fails."""
    from markupsafe import Markup

    from flip import report_figures as plots

    study = run.config.get("outcomes")
    by_site = {
        site: {
            name: np.asarray(found["values"], dtype=np.float64) for name, found in named.items() if found.get("persons")
        }
        for site, named in run.outcomes.items()
    }
    if not study or not by_site:
        return []
    drawn = []
    try:
        from flip.build import instantiate

        with plots.style():
            for index, panel in enumerate(instantiate(study).panels(by_site)):
                figure = panel.get("figure")
                svg = Markup(plots.to_svg(figure, f"panel{index}", str(panel["title"]))) if figure is not None else None  # noqa: S704
                drawn.append(
                    {"title": panel["title"], "note": panel.get("note", ""), "svg": svg, "table": panel.get("table")}
                )
    except Exception as error:  # the study's own code: its mistake must not cost the rest of the report
        text = f"{study['_target_']} could not draw its panels: {type(error).__name__}: {error}"
        drawn.append({"title": "The study's own panels", "note": text, "svg": None, "table": None})
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the report of one run, or compare several. Returns the exit status: 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m flip.report", description="Write a run's report, or compare several runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as runs/<name>/<time>")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison.html"), help="where a comparison goes (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    try:
        if len(chosen.runs) == 1:
            print(write(chosen.runs[0]))
            return 0
        from rich.console import Console

        from flip.report_compare import Comparison

        comparison = Comparison.of([RunRecord.read(run) for run in chosen.runs])
        Console().print(comparison.table())
        write_atomic(chosen.out, render("comparison.html.j2", {"comparison": comparison}).encode())
        print(chosen.out)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
