"""The page of a job that trained nothing: the sites' cohorts before training, a pure function of the run folder."""

from typing import TYPE_CHECKING, Any

from flip.messages.summary import IMAGE
from flip.report import cohort_figures
from flip.report import figures as report_figures
from flip.report.cohorts import Cohorts
from flip.report.tables import counted, totals
from flip.runs.folder import PLAN
from flip.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def context(run: RunRecord) -> dict[str, Any]:
    """Every value that the page's template shows."""
    cohorts, plan = Cohorts(run), run.path / PLAN
    return {
        "run": run,
        "plan": plan.read_text(encoding="utf-8") if plan.exists() else "",
        "job": run.config["job"],
        "sites": [_site(cohorts, site) for site in run.sites],
        "totals": totals(run),
        "classes": cohorts.classes,
        "findings": cohorts.findings,
        "columns": [_column(cohorts, column) for column in cohorts.columns],
        "shapes": cohorts.shapes(),
        "skipped": counted(run, "skipped"),
        "remarks": counted(run, "remarks"),
        **_figures(cohorts),
    }


def _site(cohorts: Cohorts, site: str) -> dict[str, Any]:
    about = cohorts.run.cohort.get(site) or {}
    counts = {name: cohorts.count(site, name) for name in ("studies", "labels")}
    classes = {each: cohorts.count(site, f"label/{each}") for each in cohorts.classes}
    return {"name": site, "about": about, "classes": classes, **counts}


def _column(cohorts: Cohorts, column: str) -> dict[str, Any]:
    """A column's mean and deviation by site and over all, and its missing share by site."""
    sites, numeric = cohorts.run.sites, column in cohorts.numbers
    odd = {finding.site for finding in cohorts.findings if finding.column == column}
    return {
        "name": column,
        "numeric": numeric,
        "cells": [
            {
                "moments": cohorts.moments([site], column) if numeric else None,
                "missing": cohorts.missing(site, column),
                "odd": site in odd,
            }
            for site in sites
        ],
        "all": cohorts.moments(sites, column) if numeric else None,
    }


def _figures(cohorts: Cohorts) -> dict[str, Any]:
    from markupsafe import Markup

    def svg(figure: "Figure | None", key: str, label: str) -> Markup | None:
        return Markup(report_figures.to_svg(figure, key, label)) if figure is not None else None  # noqa: S704 - escaped by Matplotlib

    levels = {
        column: {level: f"levels/{column}/{level}" for level in names}
        for column, names in cohorts.categories.items()
        if column != IMAGE
    }
    with report_figures.style():
        return {
            "color": report_figures.colors(cohorts.run.sites),
            "histograms": svg(cohort_figures.histograms(cohorts), "histograms", "Histograms by column and site"),
            "balance": svg(
                cohort_figures.shares(cohorts, {"what the study predicts": {e: f"label/{e}" for e in cohorts.classes}}),
                "balance",
                "Classes by site",
            ),
            "levels": svg(cohort_figures.shares(cohorts, levels), "levels", "Categories by site"),
        }
