"""The arithmetic of the attacks of `make attacks`, on numbers made for it."""

import numpy as np
import pytest

from tests.benchmarks.attack_membership import confidences, likelihood_ratios, rates, scored


def test_a_row_is_the_surer_the_farther_it_is_on_its_own_side():
    rows, label = np.array([[2.0], [2.0], [-1.0]]), np.array([1.0, 0.0, 0.0])
    assert confidences(np.array([3.0]), 1.0, rows, label).tolist() == [7, -7, 2]


def test_rates_are_those_of_the_roc_curve():
    member = np.array([[True] * 50 + [False] * 200])
    scores = np.where(member, 1.0, 0.0)
    assert rates(scores, member) == (1.0, 1.0)
    scores[0, 50:53] = 2.0  # three of 200 are above all members: more than 1 %
    assert rates(scores, member)[1] == 0.0
    assert rates(scores, member, share=0.02)[1] == 1.0


@pytest.mark.parametrize(("moved", "least", "most"), [(0.0, 0.4, 0.6), (4.0, 0.95, 1.0)])
def test_the_attack_finds_who_moves_the_weights_and_nobody_where_no_row_does(moved, least, most):
    rng = np.random.default_rng(0)
    member = rng.random((32, 60)) < 0.5
    values = rng.normal(size=member.shape) + moved * member
    assert likelihood_ratios(values, member).shape == member.shape
    found = scored(values, member, resamples=20)
    assert least <= found.auc <= most
    assert found.low <= found.found <= found.high or moved == 0
