"""The same study gives the same weights, to the bit, on every backend and when it is run again."""

import re
from pathlib import Path

import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.errors import UserError
from tests.cohorts.heart import write_tiny_heart
from tests.commands import Finished, flip
from tests.studies import SMALL_HEART, compose_study, tiny_heart_study

SMALL = ("experiment=heart_disease", *SMALL_HEART)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def digest(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the reference transport."""
    study = tiny_heart_study(data, "federation=inprocess")
    return str(execute(study, tmp_path_factory.mktemp("reference") / "run")["digest"])


@pytest.fixture(scope="module")
def flower(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return flip(tmp_path_factory.mktemp("flower"), *SMALL, "federation=flower", FLIP_DATA_DIR=str(data))


@pytest.fixture(scope="module")
def nvflare(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return flip(tmp_path_factory.mktemp("nvflare"), *SMALL, "federation=nvflare", FLIP_DATA_DIR=str(data))


def again(finished: Finished, data: Path, *arguments: str) -> Finished:
    """Run a finished run again from its folder."""
    folder = str(finished.runs[0])
    return flip(finished.folder, "--config-dir", folder, "--config-name", "run", *arguments, FLIP_DATA_DIR=str(data))


@pytest.mark.slow
def test_flower_gives_the_weights_of_the_reference(flower, digest):
    assert flower.status == 0, flower.err
    assert flower.result["digest"] == digest


@pytest.mark.slow
def test_nvflare_gives_the_weights_of_the_reference(nvflare, digest):
    assert nvflare.status == 0, nvflare.err
    assert nvflare.result["digest"] == digest


@pytest.mark.slow
def test_what_nvflare_says_is_in_the_log_of_the_run_and_not_on_the_screen(nvflare):
    log = (nvflare.runs[0] / "log.txt").read_text()
    assert len(re.findall(r"getTask: flip size", log)) == 4 * (
        1 + 1 + 3 + 1
    )  # sites * (meet, statistics, rounds, test)
    assert "nvflare." not in nvflare.out + nvflare.err
    assert sorted(path.name for path in nvflare.folder.iterdir()) == ["runs"]


@pytest.mark.slow
def test_a_finished_nvflare_run_swaps_its_backend(nvflare, digest, data):
    swapped = again(nvflare, data, "federation=flower")
    assert swapped.status == 0, swapped.err
    assert swapped.result["digest"] == digest


@pytest.mark.slow
def test_a_finished_flower_run_swaps_its_backend(flower, digest, data):
    swapped = again(flower, data, "federation=inprocess")
    assert swapped.status == 0, swapped.err
    assert len(swapped.runs) == 2
    assert swapped.result["digest"] == digest


@pytest.mark.slow
def test_workers_in_parallel_give_the_weights_of_one_process(data, digest, tmp_path):
    study = tiny_heart_study(data, "federation=inprocess", "federation.workers=3")
    assert execute(study, tmp_path / "run")["digest"] == digest


def test_an_inprocess_run_gives_the_same_weights_when_run_again(data, digest, tmp_path):
    first = execute(tiny_heart_study(data, "federation=inprocess"), tmp_path / "first")
    rerun = compose_study(config_dir=tmp_path / "first", config_name="run")
    assert execute(rerun, tmp_path / "second")["digest"] == first["digest"] == digest


@pytest.mark.slow
def test_a_local_run_gives_the_same_weights_when_run_again(data, tmp_path):
    first = execute(tiny_heart_study(data), tmp_path / "first")
    rerun = compose_study(config_dir=tmp_path / "first", config_name="run")
    assert execute(rerun, tmp_path / "second")["digest"] == first["digest"]


@pytest.mark.slow
def test_a_local_run_can_be_federated_afterwards(data, digest, tmp_path):
    execute(tiny_heart_study(data), tmp_path / "first")
    rerun = compose_study("federation=inprocess", config_dir=tmp_path / "first", config_name="run")
    assert execute(rerun, tmp_path / "second")["digest"] == digest


def test_another_seed_gives_other_weights(data, digest, tmp_path):
    assert execute(tiny_heart_study(data, "federation=inprocess", "seed=7"), tmp_path / "run")["digest"] != digest


@pytest.mark.parametrize("federation", ["none", "inprocess"])
def test_pooled_scaling_trains_on_every_backend(data, federation, tmp_path):
    study = tiny_heart_study(data, "dataset.scaling=pooled", f"federation={federation}")
    assert execute(study, tmp_path / "run")["status"] == "ok"


def test_pooled_scaling_with_a_validation_split_passes_the_check(data):
    split = "{_target_: datamodules.splits.ByPerson, train: 0.6, validate: 0.2}"
    check(tiny_heart_study(data, "dataset.scaling=pooled", "federation=inprocess", f"dataset.split={split}"))


@pytest.mark.slow
def test_a_private_study_is_the_same_when_run_again_in_simulation(data, tmp_path):
    study = tiny_heart_study(data, "federation=inprocess", "privacy=dp_sgd")
    first, second = (execute(study, tmp_path / name) for name in ("first", "second"))
    assert first["digest"] == second["digest"]
    assert 8.0 < first["privacy"]["epsilon"] <= 8.0 + 1.0  # of training, and of the test metrics


def test_a_folder_that_holds_a_run_is_not_written_again(data, tmp_path):
    study = tiny_heart_study(data, "federation=inprocess", "strategy.rounds=1")
    execute(study, tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"):
        execute(study, tmp_path / "run")


@pytest.mark.long
def test_the_real_hospitals_give_the_same_weights_on_every_backend(data_dir, tmp_path):
    digests = {}
    for federation in ("inprocess", "flower", "nvflare"):
        (tmp_path / federation).mkdir()
        ran = flip(
            tmp_path / federation, "experiment=heart_disease", f"federation={federation}", FLIP_DATA_DIR=str(data_dir)
        )
        assert ran.status == 0, ran.err
        digests[federation] = ran.result["digest"]
    assert len(set(digests.values())) == 1, digests


@pytest.mark.long
def test_a_strategy_that_needs_each_reply_gives_flower_the_weights_of_the_reference(data, tmp_path):
    overrides = ("strategy=median", "strategy.rounds=2", "trainer.steps=5")
    here = execute(tiny_heart_study(data, "federation=inprocess", *overrides), tmp_path / "run")
    there = flip(tmp_path, *SMALL, "federation=flower", *overrides, FLIP_DATA_DIR=str(data))
    assert there.status == 0, there.err
    assert there.result["digest"] == here["digest"]
