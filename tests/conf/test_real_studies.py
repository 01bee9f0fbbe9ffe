"""The studies on real data reach, federated, what their README rows say."""

from pathlib import Path
from statistics import mean

import pytest

from tests.commands import flip
from tests.conf.stated import TOLERANCE, alone, stated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("experiment", ["clinical_notes", "dermatology", "lung_survival"])
def test_the_main_metric_is_what_the_readme_states(experiment: str, data_dir: Path, tmp_path: Path) -> None:
    ran = flip(tmp_path, f"experiment={experiment}", "federation=inprocess", FLIP_DATA_DIR=str(data_dir))
    assert ran.status == 0, ran.err
    main, said = ran.result["monitor"], stated(experiment)
    assert main.startswith(said.metric.split(",")[0].lower().replace(" ", "_").replace("-", "_"))
    assert ran.result["metrics"][f"test/pooled/{main}"] == pytest.approx(said.federated, abs=TOLERANCE)


def test_chest_radiographs_reach_every_number_of_their_row(data_dir: Path, tmp_path: Path) -> None:
    baselines = ["baselines.centralized=true", "baselines.alone=true"]
    ran = flip(tmp_path, "experiment=chest_xray", "federation=inprocess", *baselines, FLIP_DATA_DIR=str(data_dir))
    assert ran.status == 0, ran.err
    metrics, said, name = ran.result["metrics"], stated("chest_xray"), ran.result["monitor"]
    assert (said.metric, name) == ("AUROC", "auroc_binned")
    found = [metrics[f"{prefix}test/pooled/{name}"] for prefix in ("", "baseline/centralized/")]
    assert found == pytest.approx([said.federated, said.centralized], abs=TOLERANCE)
    assert alone(metrics, name) == pytest.approx(said.alone, abs=TOLERANCE)


def test_federated_cox_ranks_patients_as_well_as_the_pooled_fit(tmp_path: Path) -> None:
    # 91 patients of 18 institutions are tested on: one split tells the two apart by chance alone.
    ran = flip(
        tmp_path, "-m", "experiment=lung_survival", "federation=inprocess", "baselines.centralized=true",
        "dataset.split.seed=0,1,2,3", f"paths.data_dir={tmp_path}",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    found = [each["metrics"] for each in ran.results]
    federated, pooled = (
        mean(each[f"{prefix}test/pooled/c_index_weighted"] for each in found)
        for prefix in ("", "baseline/centralized/")
    )
    print(f"federated {federated:.3f}, pooled {pooled:.3f}")
    assert federated > 0.6
    assert federated > pooled - 0.01
