"""Each mechanism protects a segmentation of CT slices from DICOM: what the network sends, and what then leaves."""

from pathlib import Path

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.messages.model_file import load_model
from flip.messages.weights import LAST_WEIGHTS
from tests.cohorts.studies import TINY
from tests.studies import compose_study

SMALL = (
    "strategy.rounds=1",
    "trainer.steps=1",
    "dataset.grid.size=32",
    "dataset.grid.spacing_mm=15.0",
    "outcomes=null",
)
NETWORK = ("model.network.channels=[4,8]", "model.network.strides=[2]", "model.network.num_res_units=0")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a study of four hospitals of six phantoms."""
    return TINY["sarcopenia"](tmp_path_factory.mktemp("phantoms"))


def run(cohort: list[str], folder: Path, *words: str) -> dict:
    study = compose_study("experiment=sarcopenia", *cohort, *SMALL, *NETWORK, "federation=inprocess", *words)
    check(study)
    return execute(study, folder)


@pytest.mark.slow
def test_a_secure_sum_of_a_network_is_the_mean_of_the_plain_study_but_for_rounding(cohort, tmp_path):
    weights = []
    for name, words in {"plain": (), "summed": ("privacy=secure_aggregation",)}.items():
        assert run(cohort, tmp_path / name, *words)["status"] == "ok"
        weights.append(load_model(tmp_path / name / LAST_WEIGHTS).weights)
    plain, summed = weights
    assert {*plain} == {*summed}
    for name, array in plain.items():
        np.testing.assert_allclose(summed[name], array, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "unit"), [("local_dp", "site"), ("distributed_dp", "site"), ("dp_sgd", "person")]
)
def test_under_noise_a_network_is_trained_for_an_epsilon_and_no_score_of_it_leaves(cohort, mechanism, unit, tmp_path):
    result = run(cohort, tmp_path / "run", f"privacy={mechanism}")
    assert (result["status"], result["privacy"]["unit"], result["rounds"]) == ("ok", unit, 1)
    assert 0 < result["privacy"]["epsilon"] <= 8.0 + (1.0 if unit == "person" else 0)  # its metrics' own beside it
    assert [name for name in result["metrics"] if not name.startswith("privacy/")] == []
