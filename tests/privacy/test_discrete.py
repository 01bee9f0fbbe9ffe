"""Draws of the discrete Gaussian are of its distribution, exact where floats cannot tell, and private."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from flip.privacy import discrete
from flip.privacy.discrete import LEAST, MOST, discrete_gaussian
from flip.privacy.noise import Stream

KEY = bytes(range(32))


def draws(number: int, deviation: int, purpose: str = "a") -> np.ndarray:
    return discrete_gaussian(Stream(KEY, purpose), number, deviation)


def test_each_whole_number_is_as_frequent_as_the_distribution_says():
    number, deviation = 200_000, LEAST
    drawn, places = draws(number, deviation), np.arange(-10 * deviation, 10 * deviation + 1)
    chance = np.exp(-(places**2) / (2 * deviation**2))
    chance /= chance.sum()
    counts = (drawn[:, None] == places[None, 110:211]).sum(0)
    expected = chance[110:211] * number
    found = chisquare([*counts, number - counts.sum()], [*expected, number - expected.sum()])
    assert found.pvalue > 1e-3


@pytest.mark.parametrize("deviation", [1000, MOST])
def test_of_a_large_deviation_it_is_nearly_the_gaussian(deviation):
    assert kstest(draws(100_000, deviation) / deviation, "norm").pvalue > 1e-3


def test_the_same_key_and_purpose_give_the_same_draws_and_others_give_others():
    assert np.array_equal(draws(50, 1000), draws(50, 1000))
    assert not np.array_equal(draws(50, 1000), draws(50, 1000, "b"))


@pytest.mark.parametrize("deviation", [LEAST - 1, MOST + 1])
def test_another_deviation_is_refused(deviation):
    with pytest.raises(ValueError, match="must be from 16 to"):
        draws(1, deviation)


@pytest.mark.parametrize(("above", "below"), [(1, 3), (2, 3), (12345, 99991)])
def test_where_a_float_cannot_tell_whole_numbers_do(above, below):
    word = (above << 64) // below  # the very word within which the probability lies
    later = [int.from_bytes(Stream(KEY, "later").take(8), "little")]
    assert word < Fraction(above << 64, below) < word + 1
    held = discrete._is_below(Stream(KEY, "later"), word, above, below)
    assert held == (Fraction((word << 64) + later[0], 2**128) < Fraction(above, below))
    assert discrete._is_below(Stream(KEY, "later"), word - 1, above, below)
    assert not discrete._is_below(Stream(KEY, "later"), word + 1, above, below)


def test_floats_and_whole_numbers_agree(monkeypatch):
    by_floats = draws(200, 1000)
    monkeypatch.setattr(discrete, "CLOSE", 2.0)  # nothing is far enough apart
    assert np.array_equal(draws(200, 1000), by_floats)
