"""Every experiment runs to its end on tiny data, on every backend, and with the same weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from flip.config.study import Study
from tests.cohorts.studies import TINY
from tests.commands import flip
from tests.studies import EXPERIMENTS, compose_study, in_rounds

# One for each kind of input: what is carried differs by no more; sarcopenia at its full size: test_sarcopenia_demo.py.
# Live hospitals give the same weights of a table (test_live_faults.py) and of pictures (test_live_multimodal.py).
OVER_FLOWER = (
    "icu_outcome",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in ("heart_disease", "clinical_notes", "dermatology", "abdomen_3d")
    ),
)


@pytest.fixture(scope="module", params=EXPERIMENTS)
def arguments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of an experiment on its tiny data."""
    return [f"experiment={request.param}", *TINY[request.param](tmp_path_factory.mktemp(request.param) / "data")]


@dataclass(frozen=True)
class Ran:
    """A study that was run, its result, and the run's folder."""

    study: Study
    result: dict[str, Any]
    folder: Path


def run(folder: Path, *arguments: str, **where: Any) -> Ran:
    """Run a study in this process."""
    study = compose_study(*arguments, **where)
    return Ran(study, execute(study, folder), folder)


@pytest.fixture(scope="module")
def reference(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The experiment, federated in this process."""
    return run(tmp_path_factory.mktemp("reference") / "run", *arguments, "federation=inprocess")


def test_every_experiment_has_tiny_data():
    assert set(TINY) == set(EXPERIMENTS)


def is_whole(ran: Ran) -> None:
    """The run ended well, with the study's main metric, a report and its notice."""
    assert ran.result["status"] == "ok", (ran.result["reason"], (ran.folder / "log.txt").read_text()[-2000:])
    assert f"test/pooled/{ran.result['monitor']}" in ran.result["metrics"]
    report = (ran.folder / "report.html").read_text()
    assert ran.study.name in report
    if ran.study.manifest["notice"]:
        assert ran.study.manifest["notice"] in report


def test_an_experiment_runs_to_its_report(reference):
    is_whole(reference)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["heart_disease", "icu_outcome", "sarcopenia"], indirect=True)
def test_an_experiment_runs_to_its_report_without_federation(arguments, tmp_path):
    """One of a table, one of several parts, one of images."""
    is_whole(run(tmp_path / "run", *arguments, "federation=none"))


def test_nothing_of_a_site_is_in_what_the_coordinator_writes(reference):
    roots = {site.root for site in reference.study.sites.values()}
    asked = {
        column for column in ("person_id", "accession_id") if column in json.dumps(reference.study.manifest)
    }  # of a database
    own = {reference.folder / "sites", reference.folder / "paths"}  # the owner's alone: sites' files, where data lie
    assert {path.stat().st_mode & 0o077 for each in own for path in each.glob("*.yaml")} == {0}
    for path in reference.folder.rglob("*"):
        if path.is_file() and not own & {*path.parents}:
            content = path.read_bytes()
            assert not [root for root in roots if root.encode() in content], path
            for column in {"person_id", "accession_id"} - asked:
                assert column.encode() not in content, path


def same_weights_and_when_run_again(arguments: list[str], backend: str, reference: Ran, folder: Path) -> None:
    """The command line on a backend ends with the weights of the reference, and its run in this process does."""
    ran = flip(folder, *in_rounds(arguments), f"federation={backend}", "federation.workers=1")  # two: test_parity.py
    assert ran.status == 0, ran.err
    assert ran.result["digest"] == reference.result["digest"]
    again = run(folder / "again", "federation=inprocess", *arguments[1:2], config_dir=ran.runs[0], config_name="run")
    assert again.result["digest"] == reference.result["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", OVER_FLOWER, indirect=True)
def test_an_experiment_has_the_same_weights_over_flower_and_when_run_again(arguments, reference, tmp_path):
    same_weights_and_when_run_again(arguments, "flower", reference, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("arguments", ["sarcopenia"], indirect=True)  # FLARE's simulator takes a minute
def test_an_experiment_has_the_same_weights_over_nvflare_and_when_run_again(arguments, reference, tmp_path):
    same_weights_and_when_run_again(arguments, "nvflare", reference, tmp_path)
