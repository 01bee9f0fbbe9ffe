"""Every experiment runs to its end on tiny data, on every backend, and with the same weights."""

import json

import pytest

from flip.cli.execute import execute
from flip.files import conf_folder
from tests.cohorts.studies import TINY
from tests.commands import flip
from tests.studies import compose_study

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))

OVER_NVFLARE = ("experiment=heart_disease", "experiment=sarcopenia")  # a run takes FLARE's simulator a minute


@pytest.fixture(scope="module", params=EXPERIMENTS)
def arguments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of an experiment on its tiny data."""
    return [f"experiment={request.param}", *TINY[request.param](tmp_path_factory.mktemp(request.param) / "data")]


def test_every_experiment_has_tiny_data():
    assert set(TINY) == set(EXPERIMENTS)


@pytest.mark.parametrize("federation", ["none", "inprocess"])
def test_an_experiment_runs_to_its_report(arguments, federation, tmp_path):
    study = compose_study(*arguments, f"federation={federation}")
    result = execute(study, tmp_path / "run")
    assert result["status"] == "ok", (result["reason"], (tmp_path / "run" / "log.txt").read_text()[-2000:])
    assert f"test/pooled/{result['monitor']}" in result["metrics"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert study.name in report
    if study.manifest["notice"]:
        assert study.manifest["notice"] in report


def test_nothing_of_a_site_is_in_what_the_coordinator_writes(arguments, tmp_path):
    study = compose_study(*arguments, "federation=inprocess")
    execute(study, tmp_path / "run")
    roots = {site.root for site in study.sites.values()}
    asked = {
        column for column in ("person_id", "accession_id") if column in json.dumps(study.manifest)
    }  # of a database
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and (tmp_path / "run" / "sites") not in path.parents:
            content = path.read_bytes()
            assert not [root for root in roots if root.encode() in content], path
            for column in {"person_id", "accession_id"} - asked:
                assert column.encode() not in content, path


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["flower", "nvflare"])
def test_an_experiment_has_the_same_weights_on_a_backend_and_when_run_again(arguments, backend, tmp_path):
    if backend == "nvflare" and arguments[0] not in OVER_NVFLARE:
        pytest.skip("its parts run over Flower, and the backend's parity is that of other experiments")
    reference = execute(compose_study(*arguments, "federation=inprocess"), tmp_path / "reference")
    ran = flip(tmp_path, *arguments, f"federation={backend}")
    assert ran.status == 0, ran.err
    assert ran.result["digest"] == reference["digest"]
    again = flip(tmp_path, "--config-dir", str(ran.runs[0]), "--config-name", "run", *arguments[1:2])
    assert again.status == 0, again.err
    assert json.loads((again.runs[-1] / "result.json").read_text())["digest"] == reference["digest"]
