"""A site under `local_dp` sends its clipped update under its own noise, that of one fit once, and nothing else."""

import numpy as np
import pytest
import torch

from flip.errors import UserError
from flip.messages import Fault, Reply, Task
from flip.privacy import Broken, Spent
from flip.privacy.local_dp import LocalDP
from tests.privacy.noised_parties import ROUNDS, Noised, along, local

SIZE = 4000


def test_what_leaves_is_the_clipped_update_under_noise_of_the_stated_deviation(tmp_path):
    sites = Noised(tmp_path, mechanism=local(clip=0.5, noise_multiplier=0.02), size=SIZE)
    sites.moves = {"a": along(SIZE, 7, 30.0)}
    moved = sites.released()
    assert moved[7] == pytest.approx(0.5, abs=5 * 0.02)
    assert np.delete(moved, 7).std() == pytest.approx(0.02 * 2 * 0.5, rel=0.05)


def test_an_update_within_the_clip_stays_as_long_as_it_is(tmp_path):
    sites = Noised(
        tmp_path, mechanism=local(clip=5.0, noise_multiplier=1e-3), size=SIZE, moves={"a": along(SIZE, 7, 2)}
    )
    assert sites.released()[7] == pytest.approx(2.0, abs=0.06)


def test_each_fit_is_in_the_ledger_before_and_has_noise_of_its_own(tmp_path):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE)
    first, again, second = sites.released(0), sites.released(0), sites.released(1)
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    entry = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 1.0, "law": "discrete", "unit": "site"}
    assert sites.spent == [entry] * 3


def test_another_update_of_the_same_fit_gets_no_noise_that_was_used(tmp_path):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE, moves={"a": along(SIZE, 0, 0.1)})
    sites.released()
    sites.moves = {"a": along(SIZE, 0, 0.2)}
    with pytest.raises(Broken, match="another update of the same fit"):
        sites.released()


def test_a_fit_that_nothing_is_paid_for_does_not_leave(tmp_path):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE)
    sites.prepare = lambda task, site: None  # type: ignore[method-assign]
    with pytest.raises(Broken, match="nothing in the ledger") as raised:
        sites.released()
    assert raised.value.fault is Fault.REFUSED_BUDGET


def test_what_is_not_trained_leaves_as_it_was_sent_or_not_at_all(tmp_path):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE)
    assert int(sites.answer(sites.task(), "a").weights["count"]) == 3
    with pytest.raises(Broken, match="count changes by itself"):
        Noised(tmp_path, mechanism=local(), size=SIZE, count=4).released(1)


def test_the_strategys_arrays_are_clipped_together_with_the_weights(tmp_path):
    sites = Noised(tmp_path, mechanism=local(clip=1.0, noise_multiplier=0.001), size=SIZE)
    sites.moves, sites.states = {"a": along(SIZE, 7, 30.0)}, {"control": np.full(1, 40.0, np.float32)}
    reply = sites.answer(sites.task(), "a")
    moved = reply.weights["net"] - sites.task().weights["net"]
    assert (float(moved[7]), float(reply.state["control"][0])) == pytest.approx((0.6, 0.8), abs=0.02)


def test_numbers_that_are_none_do_not_leave(tmp_path):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE, moves={"a": along(SIZE, 0, np.nan)})
    with pytest.raises(Broken, match="not finite"):
        sites.released()


@pytest.mark.parametrize("stage", ["alone", "fine_tuned"])
def test_a_training_that_is_no_round_does_not_leave(tmp_path, stage):
    sites = Noised(tmp_path, mechanism=local(), size=SIZE)
    task = Task("run", stage, 0, "fit", {}, {}, {}, "{}")
    with pytest.raises(Broken, match="is in no round"):
        sites.answer(task, "a")


def test_what_a_study_states_and_plans_is_of_a_whole_site():
    mechanism = local(noise_multiplier=None, target_epsilon=3.0)
    (planned,) = mechanism.plan(10, 800, ROUNDS)
    assert (planned["steps"], planned["unit"]) == (ROUNDS, "site")
    assert mechanism.stated() == Spent(3.0, 1e-5, "site")
    spent = mechanism.spent([planned])
    assert (spent.unit, spent.epsilon) == ("site", pytest.approx(3.0, rel=0.02))


def test_a_model_that_keeps_statistics_of_rows_is_refused_with_a_remedy():
    with pytest.raises(
        UserError, match=r"privacy=local_dp cannot protect a model with BatchNorm1d '0'.*use group norm"
    ):
        local().check(torch.nn.Sequential(torch.nn.BatchNorm1d(3)), {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": 0.0}, r"privacy.local_dp.clip=0.0: must be above 0"),
        ({"delta": 0.01}, r"privacy.local_dp.delta=0.01: must be above 0 and below 0.001 to hide a site"),
        ({"target_epsilon": 3.0}, "exactly one of noise_multiplier and target_epsilon"),
        ({"noise_multiplier": None, "target_epsilon": 0.01}, r"target_epsilon=0.01: must be above 0.01"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        local(**changes)


def test_a_fault_leaves_as_it_is(tmp_path):
    sites = Noised(tmp_path, mechanism=LocalDP(1.0, 1e-5, 1.0), size=SIZE)
    sites.trained = lambda task, site: Reply(site, task.digest, fault=Fault.DATA)  # type: ignore[method-assign]
    assert sites.answer(sites.task(), "a").fault is Fault.DATA
