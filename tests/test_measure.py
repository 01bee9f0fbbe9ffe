"""A finished run's model measures every person of a site, and what it measured stays there."""

import stat
from pathlib import Path

import pandas as pd
import pytest

from flip.cli.execute import execute
from flip.errors import UserError
from flip.measure import main, measure
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


@pytest.fixture(scope="module")
def measured(arguments: list[str], run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote."""
    out = tmp_path_factory.mktemp("measured") / "biomarkers"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main([str(run), str(out), *arguments]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    return out


def test_every_person_is_measured_also_those_of_sites_that_trained(measured):
    found = {site: len(pd.read_csv(measured / site / "biomarkers.csv")) for site in ("north", "south", "east", "west")}
    assert found == {"north": 6, "south": 6, "east": 6, "west": 6}


def test_it_is_the_model_of_the_run_that_measures(measured, run):
    ours, of_run = (folder / "west" / "biomarkers.csv" for folder in (measured, run / "sites"))
    assert ours.read_text() == of_run.read_text()  # where the run tested on everybody too


def test_only_the_owner_may_read_what_was_measured(measured):
    files = [path for path in measured.rglob("*") if path.is_file()]
    assert files and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_folder_without_weights_is_refused_by_name(arguments, tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out"), *arguments]) == 2
    assert "holds no weights/last.safetensors: name the folder of a finished run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_of_another_model_are_refused(arguments, run, tmp_path):
    with pytest.raises(UserError, match="of another model than this study's"):
        measure(compose_study(*arguments, "model.network.num_res_units=0"), run, tmp_path / "out")


def test_a_study_without_outcomes_has_nothing_to_measure(arguments, run, tmp_path):
    with pytest.raises(UserError, match="nothing to measure"):
        measure(compose_study(*arguments, "outcomes=null"), run, tmp_path / "out")
