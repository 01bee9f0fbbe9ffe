"""The studies on real data reach, federated, what their README rows say."""

from pathlib import Path
from statistics import mean

import pytest

from tests.commands import Finished, flip
from tests.conf.stated import TOLERANCE, alone, stated

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


LARGEST = ("chest_xray", "dermatology")
BASELINES = ("baselines.centralized=true", "baselines.alone=true")


@pytest.fixture(scope="module")
def ran(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An experiment with its baselines."""
    words = [f"experiment={request.param}", "federation=inprocess", *BASELINES]
    ended = flip(tmp_path_factory.mktemp(request.param), *words, FLIP_DATA_DIR=str(data_dir))
    assert ended.status == 0, ended.err
    return ended


@pytest.mark.parametrize("ran", [*LARGEST, "clinical_notes", "lung_survival"], indirect=True, scope="module")
def test_every_number_of_the_row_is_what_the_readme_states(ran: Finished, request: pytest.FixtureRequest) -> None:
    metrics, main = ran.result["metrics"], ran.result["monitor"]
    said = stated(request.node.callspec.params["ran"])
    assert main.startswith(said.metric.split(",")[0].lower().replace(" ", "_").replace("-", "_"))
    found = [metrics[f"{prefix}test/pooled/{main}"] for prefix in ("", "baseline/centralized/")]
    assert found == pytest.approx([said.federated, said.centralized], abs=TOLERANCE)
    assert alone(metrics, main) == pytest.approx(said.alone, abs=TOLERANCE)


def test_federated_radiographs_are_classified_as_well_as_the_readme_states(data_dir: Path, tmp_path: Path) -> None:
    ran = flip(tmp_path, "experiment=chest_xray", "federation=inprocess", FLIP_DATA_DIR=str(data_dir))
    assert ran.status == 0, ran.err
    found = ran.result["metrics"][f"test/pooled/{ran.result['monitor']}"]
    assert found == pytest.approx(stated("chest_xray").federated, abs=TOLERANCE)


@pytest.mark.parametrize("ran", ["lung_survival"], indirect=True, scope="module")
def test_federated_cox_ranks_patients_as_well_as_the_pooled_fit(ran: Finished, tmp_path: Path) -> None:
    # 91 patients of 18 institutions are tested on: one split tells the two apart by chance alone.
    more = flip(
        tmp_path, "-m", "experiment=lung_survival", "federation=inprocess", "baselines.centralized=true",
        "dataset.split.seed=1,2,3", f"paths.data_dir={tmp_path}",
    )  # fmt: skip
    assert more.status == 0, more.err
    found = [each["metrics"] for each in (ran.result, *more.results)]  # the experiment's own split has seed 0
    assert len(found) == 4
    federated, pooled = (
        mean(each[f"{prefix}test/pooled/c_index_weighted"] for each in found)
        for prefix in ("", "baseline/centralized/")
    )
    print(f"federated {federated:.3f}, pooled {pooled:.3f}")
    assert federated > 0.6
    assert federated > pooled - 0.01
