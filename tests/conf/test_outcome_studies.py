"""Death in intensive care, simulated, is predicted as README.md states; on measured muscle: test_sarcopenia_demo.py."""

import pytest

from datamodules.critical_care import generate as simulate_stays
from datamodules.critical_care import published
from tests.commands import flip
from tests.conf.stated import TOLERANCE, alone, score, stated

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_death_in_intensive_care_is_predicted_as_well_federated_as_pooled(tmp_path):
    simulate_stays(published(), tmp_path / "demo" / "icu")
    baselines = ("baselines.centralized=true", "baselines.alone=true")
    words = ("experiment=icu_outcome", "federation=inprocess", f"paths.demo_dir={tmp_path / 'demo'}")
    both = flip(tmp_path, *words, *baselines)
    low, federated, _ = score(both, "auroc_binned")
    _, pooled, _ = score(both, "auroc_binned", "baseline/centralized/test/pooled/")
    score(both, "auroc_binned", "baseline/alone/unit_0/test/pooled/")
    assert low > 0.6
    said = stated("icu_outcome")
    assert (federated, pooled) == pytest.approx((said.federated, said.centralized), abs=TOLERANCE)
    assert alone(both.result["metrics"], "auroc_binned") == pytest.approx(said.alone, abs=TOLERANCE)
