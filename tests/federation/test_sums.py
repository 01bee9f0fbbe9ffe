"""A study of secure sums gives the same weights, to the bit, on every backend, and those of the plain study nearly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.messages.model_file import load_model
from flip.messages.weights import LAST_WEIGHTS
from tests.cohorts.heart import write_tiny_heart
from tests.commands import flip
from tests.federation.test_parity import SMALL
from tests.studies import tiny_heart_study

SECURE = "privacy=secure_aggregation"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def secure(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the reference transport."""
    folder = tmp_path_factory.mktemp("secure") / "run"
    assert execute(tiny_heart_study(data, "federation=inprocess", SECURE), folder)["status"] == "ok"
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_model(folder / LAST_WEIGHTS).weights)


@pytest.mark.slow
def test_the_weights_are_those_of_the_plain_study_but_for_rounding(data, secure, tmp_path):
    execute(tiny_heart_study(data, "federation=inprocess"), tmp_path / "run")
    plain, summed = weights(tmp_path / "run"), weights(secure)
    assert {*plain} == {*summed}
    for name, array in plain.items():
        np.testing.assert_allclose(summed[name], array, atol=1e-6, rtol=0)
    assert ": no privacy claim" in (secure / "report.html").read_text()


@pytest.mark.slow
def test_rounded_counts_weigh_in_a_sum_as_they_do_in_a_plain_mean(data, tmp_path):
    rules = {"minimum_persons": 2, "minimum_cell": 1, "rounding": 5}
    for name, words in {"plain": (), "summed": (SECURE,)}.items():
        study = tiny_heart_study(data, "federation=inprocess", *words)
        sites = {site: replace(each, policy=rules) for site, each in study.sites.items()}
        result = execute(replace(study, sites=sites), tmp_path / name)
        assert result["status"] == "ok", result["reason"]
    plain, summed = weights(tmp_path / "plain"), weights(tmp_path / "summed")
    for name, array in plain.items():
        np.testing.assert_allclose(summed[name], array, atol=1e-6, rtol=0)
    lines = [json.loads(line) for line in (tmp_path / "summed" / "rounds.jsonl").read_text().splitlines()]
    assert {each["examples"] % 5 for each in lines} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["flower", "nvflare"])
def test_a_backend_gives_the_weights_of_the_reference(data, secure, backend, tmp_path):
    ran = flip(tmp_path, *SMALL, f"federation={backend}", SECURE, FLIP_DATA_DIR=str(data))
    assert ran.status == 0, ran.err
    found = weights(ran.runs[0])
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in weights(secure).items()
    }
