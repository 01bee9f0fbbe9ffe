"""The report of a run: one HTML file, a pure function of the run folder. `python -m flip report RUN [RUN ...]`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flip.config.jobs import JOBS
from flip.files import write_atomic
from flip.report.applied import applied_words
from flip.report.forest import tested_examples
from flip.report.format import breakable, crowded, number, seconds, signed, size, whole
from flip.report.notices import notes, notices
from flip.report.subgroups import subgroups
from flip.report.tables import costs, counted, matrix, metric_groups, participation, site_rows, withheld
from flip.report.units import titled
from flip.report.verdict import Verdict
from flip.runs.record import THRESHOLD, RunRecord
from flip.text import LONGEST_LINE, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"


def write(run: Path) -> Path:
    """Write `report.html` into a run folder from what the folder holds, and return its path.

    Ok, failed and refused runs alike have a report; the same folder gives the same bytes. Raises UserError when the
    folder is none, has no result.json, or holds an unreadable file.
    """
    record = RunRecord.read(run)
    if not JOBS[str(record.config.get("job", "train"))].scores:
        from flip.report import cohort_page

        page = render("cohorts.html.j2", cohort_page.context(record))
    else:
        page = render("report.html.j2", context(record))
    write_atomic(run / REPORT, page.encode())
    return run / REPORT


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill a template of `templates`; every value is escaped unless it is Markup."""
    from jinja2 import Environment, FileSystemLoader

    folder = Path(__file__).parent / "templates"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.tests["finite"] = math.isfinite
    pages.globals |= {"crowded": crowded, "titled": titled}
    pages.filters["breakable"] = breakable
    pages.filters |= {"whole": whole, "number": number, "signed": signed, "size": size, "seconds": seconds}
    pages.filters["line"] = lambda text: printable(text, LONGEST_LINE)
    return pages.get_template(template).render(values)


def context(run: RunRecord) -> dict[str, Any]:
    """Every value that the report's template shows."""
    main = run.main
    return {
        "run": run,
        "main": main,
        "verdict": Verdict(run),
        "applied": applied_words(run),
        "notices": notices(run),
        "notes": notes(run),
        "tested": tested_examples(run),
        "pooled": run.tested(main, None) if main else math.nan,
        "worst": run.worst_site(main) if main else None,
        "higher": run.higher_is_better(main) if main else True,
        "strategy": str((run.config.get("strategy") or {}).get("_target_", "")).rpartition(".")[2],
        "private": bool(run.config.get("privacy")) or bool(run.result.get("privacy")),
        "mechanisms": ", ".join(run.config.get("privacy") or {}),
        "sites": site_rows(run),
        "groups": metric_groups(run.metric_names),
        "subgroups": subgroups(run),
        "threshold": run.tested(THRESHOLD, None),
        "matrix": matrix(run),
        "grid": participation(run),
        "costs": costs(run),
        "skipped": counted(run, "skipped"),
        "remarks": counted(run, "remarks"),
        "withheld": withheld(run),
        "panels": _panels(run),
        **_figures(run),
    }


def _figures(run: RunRecord) -> dict[str, Any]:
    from markupsafe import Markup

    from flip.report import figures as plots
    from flip.report.forest import forest
    from flip.report.panels import drawn

    def svg(figure: "Figure | None", key: str, label: str) -> Markup | None:
        return Markup(plots.to_svg(figure, key, label)) if figure is not None else None  # noqa: S704 - escaped by Matplotlib

    with plots.style():
        return {
            "color": plots.colors(run.sites),
            "dashed": len(run.sites) > len(plots.PALETTE),
            "shown": drawn(run),
            "curves": svg(plots.learning_curves(run), "curves", "Learning curves by site"),
            "scores": svg(forest(run, run.main), "scores", "Test metric by site") if run.main else None,
            "spending": svg(plots.privacy_curve(run), "privacy", "Privacy spent by site"),
        }


def _panels(run: RunRecord) -> list[dict[str, Any]]:
    """What the study adds, drawn by its own class; a sentence in its place when that fails."""
    from markupsafe import Markup

    from flip.report import figures as plots

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
        from flip.config.build import instantiate

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
