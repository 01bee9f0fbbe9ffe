"""Ditto: the shared weights are FedAvg's, and each site is scored on a model of its own that never leaves it."""

import json
from pathlib import Path

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.errors import UserError
from flip.messages.model_file import load_model
from flip.messages.safetensors import load_file
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

TRAINED = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("heart") / "data")


def run(data: Path, folder: Path, *overrides: str) -> dict:
    study = tiny_heart_study(
        data, "federation=inprocess", "strategy.rounds=3", "trainer.steps=10", "model.optimizer.lr=0.1", *overrides
    )
    check(study)
    result = execute(study, folder)
    assert result["status"] == "ok", result["reason"]
    return result


def own_models(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The last of each site's own models, by site."""
    found = {}
    for home in sorted((folder / "sites").iterdir()):
        if versions := sorted(home.glob("state/*/own-model.*.safetensors")):
            found[home.name] = load_file(versions[-1])[0]
    return found


@pytest.fixture(scope="module")
def fedavg(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return run(data, tmp_path_factory.mktemp("fedavg") / "run", "strategy=fedavg")


@pytest.fixture(scope="module")
def ditto(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ditto") / "run"
    run(data, folder, "strategy=ditto", "strategy.mu=0")
    return folder


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_the_shared_weights_are_those_of_fedavg(ditto, fedavg):
    assert result_of(ditto)["digest"] == fedavg["digest"]


def test_each_site_is_scored_on_its_own_model(ditto, fedavg):
    ours, theirs = result_of(ditto)["metrics"], fedavg["metrics"]
    losses = [f"test/site/{site}/loss" for site in TRAINED]
    assert all(ours[name] != theirs[name] for name in losses)


def test_without_a_pull_a_sites_own_model_is_one_that_went_on_alone(ditto, data, tmp_path):
    """Three rounds of ten steps from the seeded start, whatever the other sites bring: mu is 0."""
    alone = tmp_path / "run"
    run(
        data,
        alone,
        "strategy=ditto",
        "strategy.mu=0",
        "strategy.site_weights={cleveland:1,hungarian:1,va:9,switzerland:1}",
    )
    ours, others = own_models(ditto), own_models(alone)
    assert set(ours) == set(TRAINED)
    for site in TRAINED:
        for name, array in ours[site].items():
            np.testing.assert_array_equal(array, others[site][name])


def test_the_pull_holds_the_own_model_near_the_shared_one(ditto, data, tmp_path):
    near = tmp_path / "run"
    run(data, near, "strategy=ditto", "strategy.mu=5")

    def distance(folder: Path, site: str) -> float:
        shared = load_model(folder).weights
        own = own_models(folder)[site]
        return float(sum(((own[name] - shared[name]) ** 2).sum() for name in own))

    assert all(distance(near, site) < 0.7 * distance(ditto, site) for site in TRAINED)


def test_own_models_do_not_travel(ditto):
    lines = [json.loads(line) for line in (ditto / "rounds.jsonl").read_text().splitlines()]
    sent = {line["bytes_up"] for line in lines if line["phase"] == "fit"}
    shared = sum(array.nbytes for array in load_model(ditto).weights.values())
    assert max(sent) < 2 * shared + 2000


@pytest.mark.slow
def test_a_site_that_only_tests_is_scored_on_the_shared_model(data, tmp_path):
    words = ("sites.va.trains=false", "strategy.min_sites=3")
    ours = run(data, tmp_path / "ditto", "strategy=ditto", *words)
    theirs = run(data, tmp_path / "fedavg", "strategy=fedavg", *words)
    assert ours["metrics"]["test/site/va/loss"] == theirs["metrics"]["test/site/va/loss"]


def test_a_privacy_mechanism_that_counts_one_fit_is_refused(data):
    study = tiny_heart_study(
        data, "federation=inprocess", "strategy=ditto", "privacy=dp_sgd", "dataset.scaling=declared"
    )
    with pytest.raises(UserError, match=r"strategy and privacy\.dp_sgd: Ditto has each site fit a second model"):
        check(study)


def test_a_negative_pull_is_refused(data):
    with pytest.raises(UserError, match=r"strategy\.mu=-1: must be 0 or more"):
        check(tiny_heart_study(data, "federation=inprocess", "strategy=ditto", "strategy.mu=-1"))
