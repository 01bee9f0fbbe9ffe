"""Cox's survival in time is scored from each site's own baseline hazard, which takes no part in training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from flip.errors import UserError
from flip.messages.model_file import load_model
from tests.cohorts.lung_survival import lung_survival
from tests.studies import compose_study

BRIER = "test/pooled/integrated_brier_weighted"


def run(folder: Path, *overrides: str, status: str = "ok") -> dict:
    (folder / "data").mkdir(parents=True)
    tiny = ["experiment=lung_survival", "federation=inprocess", *lung_survival(folder / "data")]
    result = execute(compose_study(*tiny, *overrides), folder / "run")
    assert result["status"] == status, result["reason"]
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lung")


@pytest.fixture(scope="module")
def scored(folder) -> dict:
    return run(folder, "model.head.times=[180,365]")


def test_the_pooled_brier_score_is_the_mean_over_the_sites_patients(scored):
    metrics = scored["metrics"]
    assert 0 < metrics[f"{BRIER}/low"] < metrics[BRIER] < metrics[f"{BRIER}/high"] < 0.3
    by_site = [value for name, value in metrics.items() if name.count("/") == 3 and name.endswith(Path(BRIER).name)]
    assert len(by_site) == 4 and min(by_site) < metrics[BRIER] < max(by_site)


def test_survival_at_declared_times_is_predicted_from_the_hazard_over_all_sites_in_the_models_file(
    scored, folder, tmp_path
):
    known = load_model(folder / "run").scores
    words = ["experiment=lung_survival", "federation=inprocess", *lung_survival(folder / "data"), "job=predict"]
    study = compose_study(*words, "model.head.times=[180,365]", f"model_from={folder / 'run'}")
    check(study)
    assert execute(study, tmp_path / "out")["status"] == "ok"
    found = pd.concat([pd.read_csv(each) for each in (tmp_path / "out").glob("sites/*/predictions.csv")])
    assert len(found) > 90 and found["relative_hazard"].nunique() > 50
    for time in (180, 365):
        hazard = known[f"baseline_hazard_{time}"]
        assert hazard == scored["metrics"][f"test/pooled/baseline_hazard_{time}"] > 0
        wanted = np.exp(-hazard * found["relative_hazard"])
        np.testing.assert_allclose(found[f"survival_{time}"], wanted, rtol=1e-4)


def test_scoring_survival_changes_no_weight(scored, tmp_path):
    assert run(tmp_path)["digest"] == scored["digest"]


def test_a_study_whose_numbers_are_scaled_by_sums_over_persons_is_refused_under_a_mechanism(tmp_path):
    words = ["experiment=lung_survival", "federation=inprocess", *lung_survival(tmp_path), "privacy=dp_sgd"]
    with pytest.raises(UserError, match=r"dataset.tabular.scaling.*gives no noise.*dataset.tabular.ranges"):
        check(compose_study(*words))


def test_cox_is_refused_where_noise_is_to_protect_each_row_since_one_moves_the_gradients_of_all(tmp_path):
    words = ["experiment=lung_survival", "federation=inprocess", *lung_survival(tmp_path), "privacy=dp_sgd"]
    with pytest.raises(UserError, match="compares the examples of a batch"):
        check(compose_study(*words))
