"""What does not fit between sites is found from their aggregates, with the figure and what mends it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from flip.coordinator.describe import agreed_edges
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.report import cohort_page
from flip.report.cohorts import Cohorts, screen_table
from flip.runs.folder import RunFolder
from flip.runs.record import RunRecord


def moments(mean: float, deviation: float, number: int = 100) -> list[float]:
    return [number, number * mean, number * (deviation**2 + mean**2)]


def cohorts(**sites: dict[str, list[float]]) -> Cohorts:
    """Cohorts as the run folder has them: by site, values by name."""
    told = {site: {name: {"values": v, "persons": 100} for name, v in named.items()} for site, named in sites.items()}
    cohort = {site: {"persons": 100, "fault": None} for site in sites}
    return Cohorts(
        RunRecord(Path(), {}, "", {}, cohort, [], {}, {"job": "check", "edges": {}, "sites": told}, {"status": "ok"})
    )


def test_the_shape_of_an_example_is_told_beside_the_columns_and_is_none_of_them(tmp_path):
    told = {
        Topic.DESCRIPTION: {"count/studies": Summary(SummaryKind.COUNT, np.array([30.0]), 30)},
        Topic.SHAPE: {"image": Summary(SummaryKind.SUM, np.array([1.0, 96, 64]), 30)},
    }
    RunFolder(tmp_path, []).description("check", {}, {"north": {}, "south": told})
    written = json.loads((tmp_path / "description.json").read_text())
    found = Cohorts(RunRecord(Path(), {}, "", {}, {}, [], {}, written, {"status": "ok"}))
    assert found.shapes() == {"image": "1 x 96 x 64"}
    assert list(found.told["south"]) == ["count/studies"]


def test_sites_that_agree_are_left_alone():
    same = {"moments/age": moments(60, 10), "count/levels/sex/F": [50], "count/levels/sex/M": [50]}
    older = {"moments/age": moments(70, 9), "count/levels/sex/F": [30], "count/levels/sex/M": [70]}
    assert cohorts(north=same, south=older, east=same).findings == []


@pytest.mark.parametrize(
    ("own", "factor"), [(moments(165, 33), "0.4536"), (moments(7500, 1500), "0.01"), (moments(75_000, 9000), "0.001")]
)
def test_another_unit_is_suspected_with_its_figure_and_factor(own, factor):
    kilograms = {"moments/weight": moments(75, 15)}
    (found,) = cohorts(north=kilograms, east=kilograms, south={"moments/weight": own}).findings
    assert (found.site, found.column) == ("south", "weight")
    assert f"{own[1] / own[0]:.4g}" in found.what
    assert f"factor: {factor}" in found.remedy


def test_another_spelling_is_suspected_with_its_mapping():
    words = {"count/levels/sex/female": [50], "count/levels/sex/male": [50]}
    found = cohorts(north=words, south={"count/levels/sex/F": [40], "count/levels/sex/M": [60]}, east=words).findings
    assert [each.site for each in found] == ["south"]
    assert "values: {F: female, M: male}" in found[0].remedy


def test_a_site_without_the_column_is_named():
    has, lacks = {"count/known/lactate": [90.0, 10, 0]}, {"count/known/lactate": [0.0, 100, 0]}
    (found,) = cohorts(north=has, south=lacks).findings
    assert (found.site, found.column) == ("south", "lactate")


def test_the_same_value_throughout_may_be_a_code():
    (found,) = cohorts(north={"moments/chol": moments(230, 50)}, south={"moments/chol": moments(0, 0)}).findings
    assert "all of its 100 values are 0" in found.what
    assert "values: {0: null}" in found.remedy


def screen(**sites: dict[str, list[float]]) -> str:
    out = io.StringIO()
    Console(file=out, width=300).print(screen_table(cohorts(**sites).run))
    return " ".join(out.getvalue().split())


def test_on_the_screen_a_count_of_none_is_0_and_what_is_not_known_is_a_dash():
    shown = screen(north={"count/studies": [30.0], "count/labels": [0.0]}, south={"count/studies": [30.0]})
    assert "north 100 30 0 " in shown
    assert "south 100 30 \u2013 " in shown


def test_a_question_on_the_screen_ends_with_its_mark():
    shown = screen(north={"moments/chol": moments(230, 50)}, south={"moments/chol": moments(0, 0)})
    assert "a code for a missing value? If so" in shown


def test_the_page_names_the_job_even_if_the_sites_described_nothing():
    run = replace(cohorts(north={}).run, config={"job": "measure"}, description={})
    assert cohort_page.context(run)["job"] == "measure"


def test_the_bins_come_from_mean_and_deviation_over_all_sites():
    told = {
        site: {Topic.DESCRIPTION: {"moments/age": Summary(SummaryKind.MOMENTS, np.array(moments(mean, 10)), 100)}}
        for site, mean in (("north", 55), ("south", 65))
    }
    edges = agreed_edges(told)["age"]
    deviation = np.sqrt(10**2 + 5**2)
    np.testing.assert_allclose([edges[0], edges[-1]], [60 - 3 * deviation, 60 + 3 * deviation])
