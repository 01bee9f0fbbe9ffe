"""How much noise an epsilon needs on what a site sends: constants of the theorems, against values of others."""

import math

import numpy as np
import pytest

from flip.privacy import Broken
from flip.privacy.accounting import epsilon
from flip.privacy.discrete import LEAST
from flip.privacy.released import Settings, change_of, deviation_of

SITE = {"sample_rate": 1.0, "law": "discrete", "unit": "site"}


@pytest.mark.parametrize(
    ("noise", "rounds", "delta", "known"),
    [(2.0, 15, 1e-5, 10.3130), (5.0, 15, 1e-5, 3.53447), (1.0, 1, 1e-6, 5.22154), (16.0, 60, 1e-5, 2.08967)],
)
def test_epsilon_is_that_of_googles_accountant_for_concentrated_privacy(noise, rounds, delta, known):
    # dp_accounting 0.6: RdpAccountant().compose(ZCDpEvent(rounds / (2 noise^2))).get_epsilon(delta)
    found = epsilon([{**SITE, "noise_multiplier": noise, "steps": float(rounds)}], delta)
    assert known * 0.999 <= found <= known * 1.01


def delta_by_hand(law: np.ndarray, change: int, epsilon: float) -> float:
    """The probability by which epsilon does not hold of whole numbers of a law, moved by a change: summed up."""
    return float(np.maximum(law[change:] - math.exp(epsilon) * law[:-change], 0).sum())


@pytest.mark.parametrize("shares", [1, 3])
def test_of_one_number_the_distribution_itself_keeps_epsilon_at_its_delta(shares):
    noise, delta, change = 1.5, 1e-5, 64
    deviation = deviation_of(noise, change, shares)
    one = np.exp(-(np.arange(-15 * deviation, 15 * deviation + 1) ** 2) / (2 * deviation**2))
    law = one / one.sum()
    for _ in range(shares - 1):
        law = np.convolve(law, one / one.sum())
    found = epsilon([{**SITE, "noise_multiplier": noise, "steps": 1.0}], delta)
    assert delta_by_hand(law, change, found) <= delta
    assert delta_by_hand(law, change, 0.85 * found) > delta  # and says something


def test_with_the_noise_of_a_share_too_few_it_would_not():
    noise, delta, change = 1.5, 1e-5, 64
    deviation = deviation_of(noise, change, 3)
    one = np.exp(-(np.arange(-15 * deviation, 15 * deviation + 1) ** 2) / (2 * deviation**2))
    two = np.convolve(one / one.sum(), one / one.sum())
    found = epsilon([{**SITE, "noise_multiplier": noise, "steps": 1.0}], delta)
    assert delta_by_hand(two, change, found) > delta


def test_a_change_counts_both_sides_and_the_rounding_of_every_number():
    assert change_of(0.5, 2.0**20, 10_000, sides=2) == pytest.approx(2**20 + 100, rel=1e-8)
    assert change_of(0.5, 2.0**20, 10_000, sides=1) == pytest.approx(2**19 + 100, rel=1e-8)


def test_shares_together_have_the_whole_noise():
    deviation = deviation_of(2.0, 1000.0, 7)
    assert 2000.0 <= deviation * math.sqrt(7) < 2000.0 * 1.01


@pytest.mark.parametrize("change", [1.0, 2.0**30])
def test_noise_that_the_ring_cannot_hold_is_refused_with_a_remedy(change):
    with pytest.raises(Broken, match="choose another scale"):
        deviation_of(1.0, change, 1)


@pytest.mark.parametrize("rounds", [1, 15, 60])
def test_a_target_is_kept_over_all_rounds_and_hardly_undercut(rounds):
    entry = Settings("local_dp", "site", 1e-5, None, 3.0).entry(rounds, rounds)
    assert 2.9 < epsilon([entry], 1e-5) <= 3.0
    assert (entry["law"], entry["unit"], entry["sample_rate"]) == ("discrete", "site", 1.0)


def test_sampling_of_discrete_noise_is_not_counted():
    assert epsilon([{**SITE, "noise_multiplier": 1.0, "steps": 1.0, "sample_rate": 0.1}], 1e-5) == math.inf
    assert epsilon([{**SITE, "noise_multiplier": 1.0, "steps": 1.0, "law": "round"}], 1e-5) == math.inf


def test_one_ledger_adds_noise_of_persons_and_of_the_site():
    person = {"noise_multiplier": 1.0, "sample_rate": 0.02, "steps": 100.0}
    site = {**SITE, "noise_multiplier": 5.0, "steps": 15.0}
    assert epsilon([person, site], 1e-5) > max(epsilon([person], 1e-5), epsilon([site], 1e-5))


def test_what_the_theorem_adds_for_a_sum_of_shares_is_nothing_at_the_least_deviation():
    # Kairouz, Liu and Steinke, theorem 1: tau = 10 sum over k < shares of exp(-2 pi^2 s^2 k / (k + 1)), times d numbers
    shares, numbers = 1_000, 1e12
    largest = max(-2 * (math.pi * LEAST) ** 2 * k / (k + 1) for k in range(1, shares))
    assert math.log10(10 * shares * numbers) + largest / math.log(10) < -1000
