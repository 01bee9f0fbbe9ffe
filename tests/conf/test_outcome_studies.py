"""The two studies on simulated outcomes reach what their README rows say, with and without their second part."""

from pathlib import Path

import pytest

from datamodules.critical_care import generate as simulate_stays
from datamodules.critical_care import published
from datamodules.phantom.cohort import main as simulate_scans
from tests.commands import Finished, flip
from tests.conf.stated import TOLERANCE, alone, stated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OF_FEW = 0.04  # the C-index of 60 persons, by muscle that a model of six rounds measured
CLINICAL = ("dataset.tabular.numeric=[age,sex,height_m,weight_kg]",)


def score(ran: Finished, name: str, prefix: str = "test/pooled/") -> tuple[float, float, float]:
    """A score of a finished run with the two ends of its interval."""
    assert ran.status == 0, ran.err
    low, value, high = (ran.result["metrics"][f"{prefix}{name}{end}"] for end in ("/low", "", "/high"))
    print(f"{prefix}{name} {value:.3f} ({low:.3f} to {high:.3f})")
    assert low < value < high
    return low, value, high


def run(folder: Path, name: str, demo: Path, *arguments: str) -> Finished:
    """An experiment of these, on data below `demo`."""
    folder.mkdir()
    return flip(folder, f"experiment={name}", "federation=inprocess", f"paths.demo_dir={demo}", *arguments)


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated critical care."""
    folder = tmp_path_factory.mktemp("demo")
    simulate_stays(published(), folder / "icu")
    return folder


@pytest.fixture(scope="module")
def muscles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biomarkers that a trained model measured in persons that it was not trained on."""
    folder = tmp_path_factory.mktemp("demo")
    scans, small = folder / "measured", ["dataset.demo_patients=12", "strategy.rounds=6"]
    trained = run(folder / "trained", "sarcopenia", folder, "federation.workers=2", *small)
    assert trained.status == 0, trained.err
    assert simulate_scans([str(scans), "--patients", "30", "--seed", "1"]) == 0
    out = f"hydra.run.dir={folder / 'biomarkers'}"
    measured = run(folder / "measuring", "sarcopenia", scans, "job=measure", f"model_from={trained.runs[-1]}", out)
    assert measured.status == 0, measured.err
    return folder


def test_death_in_intensive_care_is_predicted_as_well_federated_as_pooled(stays, tmp_path):
    both = run(tmp_path / "both", "icu_outcome", stays, "baselines.centralized=true", "baselines.alone=true")
    low, federated, _ = score(both, "auroc_binned")
    _, pooled, _ = score(both, "auroc_binned", "baseline/centralized/test/pooled/")
    score(both, "auroc_binned", "baseline/alone/unit_0/test/pooled/")
    assert low > 0.6
    said = stated("icu_outcome")
    assert (federated, pooled) == pytest.approx((said.federated, said.centralized), abs=TOLERANCE)
    assert alone(both.result["metrics"], "auroc_binned") == pytest.approx(said.alone, abs=TOLERANCE)


def test_measured_muscle_and_clinical_data_rank_survival(muscles, tmp_path):
    baselines, name = ("baselines.centralized=true", "baselines.alone=true"), "c_index_weighted"
    survival = run(tmp_path / "both", "sarcopenia_outcome", muscles, *baselines)
    clinical = run(tmp_path / "clinical", "sarcopenia_outcome", muscles, *CLINICAL)
    said = stated("sarcopenia_outcome")
    found = [score(survival, name, prefix)[1] for prefix in ("test/pooled/", "baseline/centralized/test/pooled/")]
    assert found == pytest.approx([said.federated, said.centralized], abs=OF_FEW)
    assert alone(survival.result["metrics"], name) == pytest.approx(said.alone, abs=OF_FEW)
    assert score(clinical, name)[1] < found[0] - OF_FEW
