"""Studies whose noise would not hide what it says are refused before any site is asked."""

import pytest

from flip.config.checks.noise import moved_by, rounded_up
from flip.config.checks.study import check
from flip.errors import UserError
from flip.privacy.local_dp import LocalDP
from flip.strategies.cyclic import Cyclic
from flip.strategies.fedavg import FedAvg
from flip.strategies.krum import Krum
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

SCALED = ("federation=inprocess", "dataset.scaling=declared")
IN_SUM = (*SCALED, "privacy=distributed_dp")
LOCAL = (*SCALED, "privacy=local_dp")
PERSON = (*IN_SUM, "privacy.distributed_dp.unit=person", "privacy.distributed_dp.batch=10")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (PERSON, r"trainer.steps.*hides a person in one step between two sums, not in 5; set trainer.steps=1"),
        ((*PERSON, "trainer.steps=1", "model.optimizer._target_=torch.optim.Adam"), "unit=person needs plain SGD"),
        ((*IN_SUM, "strategy=median"), "needs every site's reply apart, which DistributedDP does not show"),
        ((*IN_SUM, "strategy=cyclic"), "needs every site's reply apart"),
        ((*IN_SUM, "strategy=ditto"), "has each site fit a second model in a round"),
        ((*LOCAL, "strategy=ditto"), "has each site fit a second model in a round"),
        ((*IN_SUM, "sites=[cleveland,va]"), "privacy.distributed_dp: 2 sites of 2 train in a round"),
        ((*IN_SUM, "privacy.distributed_dp.colluding=3"), "3 of 3 sites leave nobody whose noise is unknown"),
        (
            (*IN_SUM, "strategy.site_weights={cleveland: 1, hungarian: 1, switzerland: 1, va: 1}"),
            "strategy.site_weights.*all sites weigh the same.*set it to null",
        ),
        ((*SCALED, "privacy=[distributed_dp,secure_aggregation]"), "makes sums and has noise in them already; leave"),
        ((*SCALED, "privacy=[local_dp,dp_sgd]"), "protects persons already; leave one of them out"),
        (("federation=inprocess", "privacy=local_dp"), "privacy.local_dp gives no noise"),
        ((*LOCAL, "baselines.alone=true"), "set baselines.alone=false"),
    ],
)
def test_what_its_noise_would_not_hide_is_refused_with_key_and_remedy(tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        check(tiny_heart_study(write_tiny_heart(tmp_path), *overrides))


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam", "scaffold"])
@pytest.mark.parametrize("mechanism", [IN_SUM, LOCAL])
def test_a_strategy_of_sums_is_taken(tmp_path, mechanism, strategy):
    check(tiny_heart_study(write_tiny_heart(tmp_path), *mechanism, f"strategy={strategy}"))


BOUNDED = "strategy.most_change=0.05"


@pytest.mark.parametrize("mechanism", [IN_SUM, LOCAL])
def test_noise_that_moves_the_weights_farther_than_sites_take_is_refused_with_the_bound_that_is_needed(
    tmp_path, mechanism
):
    study = [*mechanism, BOUNDED]
    data = write_tiny_heart(tmp_path)
    with pytest.raises(
        UserError, match=r"the noise of privacy.*moves the weights.*sites take 0\.05; set it to"
    ) as told:
        check(tiny_heart_study(data, *study))
    needed = str(told.value).split("set it to ")[1].split()[0]
    check(tiny_heart_study(data, *mechanism, f"strategy.most_change={needed}"))
    name = mechanism[-1].removeprefix("privacy=")
    check(tiny_heart_study(data, *study, f"privacy.{name}.clip=0.01"))


def test_a_server_optimizer_makes_its_own_step_of_the_noise(tmp_path):
    check(tiny_heart_study(write_tiny_heart(tmp_path), *LOCAL, BOUNDED, "strategy=fedadam"))


def test_robust_rules_are_taken_where_each_reply_has_its_own_noise(tmp_path):
    check(tiny_heart_study(write_tiny_heart(tmp_path), *LOCAL, "strategy=median"))


@pytest.mark.parametrize(
    ("strategy", "times"),
    [(FedAvg(rounds=2), 1 / 3), (Krum(rounds=2), 1), (Krum(rounds=2, keep=4), 1 / 2),
     (Cyclic(rounds=2), 3), (Cyclic(rounds=2, visits=4), 1 / 2)],
)  # fmt: skip
def test_noise_is_counted_in_what_a_strategy_makes_of_nine_replies(strategy, times):
    noise = LocalDP(clip=1.0, delta=1e-5, noise_multiplier=0.5)  # deviation 1 in what one site sends
    assert moved_by(noise, strategy, 9) == pytest.approx(times)


@pytest.mark.parametrize(("number", "told"), [(1.241, 1.3), (1.2, 1.2), (0.0921, 0.093), (996.0, 1000.0), (12.0, 12.0)])
def test_a_bound_that_is_told_is_not_rounded_down(number, told):
    assert rounded_up(number) == told
