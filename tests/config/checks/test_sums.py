"""Studies whose sums over sites would show what one of them trained are refused before any site is asked."""

import pytest

from flip.config.checks.study import check
from flip.errors import UserError
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

SECURE = ("federation=inprocess", "privacy=secure_aggregation")
WEIGHTS = "strategy.site_weights={cleveland: %s, hungarian: 1, switzerland: 1, va: 1}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=cyclic"], "needs every site's reply apart, which SecureAggregation does not show; choose another"),
        (["strategy=median"], "needs every site's reply apart, which SecureAggregation does not show; choose another"),
        (["strategy=ditto"], "has each site fit a second model in a round"),
        (["baselines.alone=true"], "baselines.alone.*shows each site's model by itself.*set baselines.alone=false"),
        (["baselines.centralized=true"], "baselines.centralized.*set baselines.centralized=false"),
        (["baselines.fine_tuned=1"], "baselines.fine_tuned.*set baselines.fine_tuned=null"),
        ([WEIGHTS % 0], r"strategy.site_weights.*cleveland would be in no sum at a weight of 0"),
        ([WEIGHTS % 9], r"strategy.site_weights.*one site can be 0.75 of a sum"),
        (
            ["strategy.site_weights={cleveland: 40, hungarian: 40, switzerland: 1, va: 19}"],
            r"strategy.site_weights.*two sites can be 0.8 of a sum.*give no two sites more than 0.75",
        ),
        (["strategy.fraction=0.5"], "privacy.secure_aggregation: 2 sites of 4 train in a round, and a sum has 3"),
        (["sites=[cleveland,va]"], "privacy.secure_aggregation: 2 sites of 2 train in a round"),
        (["privacy.secure_aggregation.scale=3"], "privacy.secure_aggregation.scale=3: must be from 8 to 40"),
    ],
)
def test_what_would_show_one_sites_part_is_refused_with_key_and_remedy(tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        check(tiny_heart_study(write_tiny_heart(tmp_path), *SECURE, *overrides))


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "scaffold"])
def test_a_strategy_that_needs_a_sum_is_taken(tmp_path, strategy):
    check(tiny_heart_study(write_tiny_heart(tmp_path), *SECURE, f"strategy={strategy}"))
