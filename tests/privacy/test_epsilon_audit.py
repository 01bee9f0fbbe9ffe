"""The engine audits the epsilon that it reports: below it with its own noise, above it where something is broken."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from flip.config import build, resolve
from flip.privacy.noise import Stream
from flip.privacy.opacus_training import PrivateOptimizer
from tests.privacy.canaries import Study, run, write_hospital
from tests.privacy.one_run_audit import Bound, audit, lower_bound, rarity

STUDY = Study(canaries=20_000, rounds=8, steps=32, batches=64, noise=1.0, delta=1e-6)

Patch = pytest.MonkeyPatch


def audited(folder: Path, monkeypatch: Patch, seed: int = 0) -> tuple[Bound, float]:
    """The auditor's lower bound and the epsilon that the site reports; the same each time."""
    monkeypatch.chdir(folder)
    for module in (build, resolve):  # of which the noise depends, so that it would change with every line of the code
        monkeypatch.setattr(module, "code_digest", lambda names: "0" * 64)
    included = write_hospital(folder, STUDY.canaries, seed=seed)
    seen, told = run(folder, STUDY)
    return audit(seen, included, STUDY.delta), told


# The bound itself.


def exact_rarity(guesses: int, right: int, canaries: int, odds: int, delta: Fraction) -> Fraction:
    """The p-value of Theorem 5.2 term by term in whole numbers, for e^epsilon = `odds`."""
    chances = [comb(guesses, k) * Fraction(odds**k, (1 + odds) ** guesses) for k in range(guesses + 1)]
    tail = [sum(chances[max(k, 0) :], Fraction(0)) for k in range(guesses + 1)]
    steps = [(tail[max(right - i, 0)] - tail[right]) / i for i in range(1, canaries + 1)]
    return min(Fraction(1), tail[right] + 2 * canaries * delta * max(steps))


@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 1000)])
@pytest.mark.parametrize(("guesses", "right", "canaries"), [(10, 9, 12), (7, 0, 7), (20, 20, 30), (9, 5, 40)])
def test_the_p_value_is_that_of_the_theorem_term_by_term(guesses, right, canaries, delta):
    for odds in (1, 2, 7):
        exact = exact_rarity(guesses, right, canaries, odds, delta)
        assert rarity(guesses, right, canaries, math.log(odds), float(delta)) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("guesses", [1, 4, 5, 100, 1000])
def test_where_all_guesses_are_right_the_bound_has_a_formula(guesses):
    # (e^epsilon / (1 + e^epsilon))^guesses = 0.05; below five guesses even a coin is right that often.
    chance = 0.05 ** (1 / guesses)
    expected = max(math.log(chance / (1 - chance)), 0.0)
    assert lower_bound(guesses, guesses, 1000, 0.0, 0.95) == pytest.approx(expected, abs=1e-5)


def test_guesses_that_a_coin_makes_too_say_nothing():
    assert lower_bound(100, 50, 100, 0.0, 0.95) == lower_bound(100, 0, 100, 0.0, 0.95) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1e-4])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_of_randomized_response_the_bound_is_too_high_with_a_probability_of_five_percent_at_most(epsilon, delta):
    canaries = 200  # each shows its coin as it is with the probability delta, else by randomized response
    chance = delta + (1 - delta) / (1 + math.exp(-epsilon))
    right = np.arange(canaries + 1)
    wrong = [lower_bound(canaries, int(each), canaries, delta, 0.95) > epsilon for each in right]
    assert 0 < binom.pmf(right, canaries, chance)[wrong].sum() <= 0.05


def test_the_bound_rises_with_what_is_right_and_falls_with_what_makes_it_easier():
    def falls(bounds: list[float]) -> bool:
        return all(one > other > 0 for one, other in itertools.pairwise(bounds))

    assert falls([lower_bound(100, right, 1000, 1e-5, 0.95) for right in (100, 99, 90, 70)])
    assert falls([lower_bound(100, 95, 1000, delta, 0.95) for delta in (0.0, 1e-6, 1e-5, 1e-4)])
    assert falls([lower_bound(100, 95, canaries, 1e-5, 0.95) for canaries in (100, 1000, 10_000)])
    assert falls([lower_bound(100, 95, 1000, 1e-5, confidence) for confidence in (0.9, 0.95, 0.99)])


def test_more_right_guesses_than_guesses_are_a_mistake():
    with pytest.raises(ValueError, match="11 right of 10"):
        rarity(10, 11, 20, 1.0, 0.0)


# The engine.


@pytest.mark.slow
def test_the_lower_bound_lies_below_the_epsilon_that_a_site_reports_and_says_something(tmp_path, monkeypatch):
    bound, told = audited(tmp_path, monkeypatch)
    assert 0.15 * told < bound.epsilon <= told


# What is broken between the ledger and the weights, each in one place of the engine.


def scaled(monkeypatch: Patch, method: str, attribute: str, by: float) -> None:
    """A method of the optimizer sees an attribute that is so many times what the ledger says."""
    whole = getattr(PrivateOptimizer, method)

    def changed(self: PrivateOptimizer, *arguments: object) -> object:
        stated = getattr(self, attribute)
        setattr(self, attribute, stated * by)
        try:
            return whole(self, *arguments)
        finally:
            setattr(self, attribute, stated)

    monkeypatch.setattr(PrivateOptimizer, method, changed)


def same_draw(monkeypatch: Patch) -> None:
    """Every step draws the noise of the first one."""
    whole = Stream.gaussians

    def gaussians(self: Stream, number: int) -> object:
        self._draws = 0
        return whole(self, number)

    monkeypatch.setattr(Stream, "gaussians", gaussians)


def same_key(monkeypatch: Patch) -> None:
    """Every round has the same key, for its noise and for its batches."""
    whole = Stream.__init__
    monkeypatch.setattr(Stream, "__init__", lambda self, key, purpose: whole(self, bytes(32), purpose))


BROKEN: dict[str, Callable[[Patch], None]] = {
    "no noise": lambda patch: scaled(patch, "add_noise", "noise_multiplier", 0.0),
    "half the noise": lambda patch: scaled(patch, "add_noise", "noise_multiplier", 0.5),
    "noise of half the clipping norm": lambda patch: scaled(patch, "clip_and_accumulate", "max_grad_norm", 2.0),
    "one draw for all steps": same_draw,
    "one key for all rounds": same_key,
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.slow
def test_the_lower_bound_lies_above_the_epsilon_of_a_broken_site(what, tmp_path, monkeypatch):
    BROKEN[what](monkeypatch)
    bound, told = audited(tmp_path, monkeypatch)
    assert bound.epsilon > told
