"""Epsilon is PRV's where RDP agrees, and RDP's where it does not; noise for a target keeps it."""

import math

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from flip.errors import UserError
from flip.privacy import accounting
from flip.privacy.accounting import affordable, epsilon, noise_for, prv_epsilon, rdp_epsilon

DELTA = 1e-5
ONE = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10.0}
CLEVELAND = {"noise_multiplier": 1.0, "sample_rate": 1 / 50, "steps": 1500.0}  # 15 rounds of 100 steps, 4 of 199 rows


@pytest.fixture(autouse=True)
def fresh():
    accounting._smaller.cache_clear()
    yield
    accounting._smaller.cache_clear()


def opacus(kind, groups):
    accountant = kind()
    accountant.history = list(groups)
    return float(accountant.get_epsilon(DELTA))


def test_the_figures_of_a_real_hospital():
    group = ((1.0, 1 / 50, 1500),)
    assert (rdp_epsilon(group, DELTA), prv_epsilon(group, DELTA)) == pytest.approx((5.33, 4.85), abs=0.05)
    assert epsilon([CLEVELAND], DELTA) == prv_epsilon(group, DELTA)


def test_both_are_opacus_own():
    groups = ((1.0, 0.1, 10), (2.0, 0.2, 5))
    assert rdp_epsilon(groups, DELTA) == pytest.approx(opacus(RDPAccountant, groups), rel=1e-12)
    assert prv_epsilon(groups, DELTA) == opacus(PRVAccountant, groups)


def test_entries_of_one_kind_are_one_however_they_are_cut_and_ordered():
    other = {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 1.0}
    cut = [{**ONE, "steps": 4.0}, other, {**ONE, "steps": 6.0}]
    assert epsilon(cut, DELTA) == epsilon([other, ONE], DELTA) > epsilon([ONE], DELTA)


@pytest.mark.parametrize("found", [math.nan, -1.0, 0.0, 99.0])
def test_where_prv_does_not_hold_together_rdp_stands(monkeypatch, found):
    monkeypatch.setattr(accounting, "prv_epsilon", lambda groups, delta: found)
    assert epsilon([ONE], DELTA) == rdp_epsilon(((1.0, 0.1, 10),), DELTA)


def test_an_error_of_prvs_own_is_no_number(monkeypatch):
    def fails(*_: object, **__: object) -> float:
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    monkeypatch.setattr(PRVAccountant, "get_epsilon", fails)
    assert math.isnan(prv_epsilon(((1.0, 0.1, 10),), DELTA))


def test_many_kinds_and_large_epsilons_are_rdps_alone(monkeypatch):
    monkeypatch.setattr(accounting, "prv_epsilon", lambda *_: pytest.fail("takes minutes"))
    assert epsilon([{**ONE, "noise_multiplier": 2 + number} for number in range(20)], DELTA) > 0
    assert epsilon([{**ONE, "steps": 1000.0}], DELTA) > accounting.PRV_TO


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"steps": -1.0},
        {"steps": 1.5},
        {"steps": math.inf},
        {"steps": "3"},
    ],
)
def test_an_entry_that_cannot_be_counted_protects_nothing(wrong):
    assert epsilon([ONE, ONE | wrong], DELTA) == math.inf
    assert not affordable([ONE | wrong], DELTA, 1e9)
    assert epsilon([ONE, {"spent": 1.0}], DELTA) == math.inf


def test_nothing_spends_nothing():
    assert epsilon([], DELTA) == epsilon([{**ONE, "steps": 0.0}], DELTA) == 0


def test_a_budget_between_the_two_accountants_is_kept_by_the_closer_one():
    assert affordable([CLEVELAND], DELTA, 5.0)
    assert not affordable([CLEVELAND], DELTA, 4.8)


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(1.0, 1 / 50, 1500), (8.0, 0.25, 60), (0.05, 0.25, 10), (30, 1.0, 5)]
)
def test_the_noise_for_a_target_keeps_it_and_is_hardly_more(target, rate, steps):
    entry = {"noise_multiplier": noise_for(target, DELTA, rate, steps), "sample_rate": rate, "steps": steps}
    assert 0.98 * target < epsilon([entry], DELTA) <= target


@pytest.mark.slow
def test_where_one_accountant_takes_over_from_the_other_the_target_is_still_kept():
    entry = {"noise_multiplier": noise_for(19.9, DELTA, 0.25, 20), "sample_rate": 0.25, "steps": 20}
    assert 17 < epsilon([entry], DELTA) <= 19.9


def test_a_target_that_no_noise_reaches_is_refused_by_its_key():
    with pytest.raises(UserError, match=r"privacy\.dp_sgd\.target_epsilon=0\.005: no noise gives it"):
        noise_for(0.005, DELTA, 0.1, 10)


def test_a_single_noised_number_spends_what_the_gaussian_mechanism_does():
    """Balle and Wang (ICML 2018), theorem 8."""
    from scipy.stats import norm

    found = epsilon([{"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 1.0}], DELTA)
    a, b = 1 / (2 * 2.0), found * 2.0
    delta = norm.cdf(a - b) - np.exp(found) * norm.cdf(-a - b)
    assert delta <= DELTA
    assert delta == pytest.approx(DELTA, rel=0.15)  # .01 of epsilon


@pytest.mark.slow
def test_a_large_delta_spends_nothing_below_0_and_a_target_is_found():
    entry = {"noise_multiplier": 50.0, "sample_rate": 0.1, "steps": 10.0}
    assert epsilon([entry], 0.5) == 0
    assert noise_for(0.02, 0.5, 0.1, 10) > 0
