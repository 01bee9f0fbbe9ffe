"""`job=measure`: a finished run's model measures every person of a site, and what it measured stays there."""

import json
import stat
from pathlib import Path

import pandas as pd
import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from tests.cohorts.studies import TINY
from tests.studies import compose_study


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sarcopenia study on tiny data."""
    return ["experiment=sarcopenia", *TINY["sarcopenia"](tmp_path_factory.mktemp("tiny") / "data")]


@pytest.fixture(scope="module")
def run(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert execute(compose_study(*arguments, "federation=inprocess"), folder)["status"] == "ok"
    return folder


def measuring(arguments: list[str], *more: str) -> Study:
    """The same study, to measure."""
    return compose_study(*arguments, "job=measure", *more)


@pytest.fixture(scope="module", params=[pytest.param("none", marks=pytest.mark.slow), "inprocess"])
def measured(
    request: pytest.FixtureRequest, arguments: list[str], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run that measured."""
    out = tmp_path_factory.mktemp("measured") / "biomarkers"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    study = measuring(arguments, f"model_from={run}", f"federation={request.param}")
    check(study)
    assert execute(study, out)["status"] == "ok"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    return out


@pytest.mark.slow
def test_every_person_is_measured_also_those_of_sites_that_trained(measured):
    sites = ("north", "south", "east", "west")
    found = {site: len(pd.read_csv(measured / "sites" / site / "biomarkers.csv")) for site in sites}
    assert found == {"north": 6, "south": 6, "east": 6, "west": 6}


def test_it_is_the_model_of_the_run_that_measures(measured, run):
    ours, of_run = (folder / "sites" / "west" / "biomarkers.csv" for folder in (measured, run))
    assert ours.read_text() == of_run.read_text()  # where the run tested on everybody too


def test_only_the_owner_may_read_what_was_measured(measured):
    files = [*measured.glob("sites/*/biomarkers.csv"), *measured.glob("sites/*/report.html")]
    assert len(files) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_nothing_that_was_measured_leaves_the_sites(measured):
    lines = [json.loads(line) for line in (measured / "rounds.jsonl").read_text().splitlines()]
    replies = [line for line in lines if line["phase"] == "measure"]
    assert [(line["metrics"], line["bytes_up"]) for line in replies] == [({}, 0)] * 4
    assert json.loads((measured / "description.json").read_text())["sites"] == {}
    assert not (measured / "outcomes.json").exists()


@pytest.mark.slow
def test_a_site_that_cannot_measure_fails_the_run_by_name(arguments, run, tmp_path):
    policy = "sites.west.policy={minimum_persons: 1000, minimum_cell: 1}"
    result = execute(measuring(arguments, f"model_from={run}", policy), tmp_path / "out")
    assert result["status"] == "refused"
    assert "not every site could measure its cohort. west: " in result["reason"]


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        (["model_from=nowhere"], "nowhere is no file on this machine; name the folder of a finished run"),
        ([], "model_from: has no value; set it to the folder of a finished run"),
        (["model_from=RUN", "model.network.num_res_units=0"], "of another model than this study's"),
        (["model_from=RUN", "outcomes=null"], "outcomes: the study has none, so there is nothing to measure"),
        (
            ["model_from=RUN", "job=check"],
            "job=check applies no model; set model_from=null, or one of job=",
        ),
        (["model_from=RUN", "federation=flower_superlink"], "measure runs where the data are"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(arguments, run, more, mistake):
    with pytest.raises(UserError) as refused:
        check(measuring(arguments, *(each.replace("RUN", str(run)) for each in more)))
    assert mistake in str(refused.value)
