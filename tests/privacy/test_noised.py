"""Noise on the sums behind test metrics: how far one person moves them, how large it is, and which metrics have it."""

import math

import numpy as np
import pytest
import torch

from flip.errors import UserError
from flip.privacy.accounting import epsilon
from flip.privacy.dp_sgd import DPSGD
from flip.privacy.noised import clipped, counts_of, deviation, likeliest, with_noise
from models.metrics.binned import BinnedAUROC
from models.metrics.classes import Accuracy, BalancedAccuracy, Brier, ClassAccuracy, Sensitivity, Specificity

DRAWS = 200


def mechanism(metrics_epsilon: float | None) -> DPSGD:
    return DPSGD(1.0, 1e-5, noise_multiplier=1.0, metrics_epsilon=metrics_epsilon)


def test_metrics_of_the_same_counts_share_them_and_what_has_no_bound_has_no_noise():
    metrics = {
        "accuracy": Accuracy(0.5), "auroc": BinnedAUROC(), "sensitivity": Sensitivity(0.5), "brier": Brier(),
        "late": Specificity(0.9), "balanced": BalancedAccuracy(3),
    }  # fmt: skip
    found = counts_of(metrics)
    assert [each.metrics for each in found] == [("accuracy", "sensitivity"), ("late",), ("balanced",)]
    assert [each.bound for each in found] == [1.0, 1.0, pytest.approx(math.sqrt(3))]


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", [BalancedAccuracy, ClassAccuracy])
def test_no_row_adds_more_to_the_states_than_its_metric_says(kind, classes):
    for true in range(classes):
        for predicted in range(classes):
            metric = kind(classes)
            metric.update(torch.eye(classes)[[predicted]], torch.tensor([true]))
            states = torch.cat([getattr(metric, name).flatten().double() for name in metric._defaults])
            assert states.norm() <= metric.row_norm + 1e-9


@pytest.mark.parametrize("part", [[3.0, 4.0], [1e300, 0.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [0.3, 0.4]])
def test_a_person_moves_the_sums_by_the_bound_at_most(part):
    assert np.linalg.norm(clipped(np.array(part), 1.0)) <= 1.0 + 1e-12


def test_a_part_within_the_bound_is_as_it_was():
    assert clipped(np.array([0.0, 1.0, 0.0]), 1.0).tolist() == [0, 1, 0]


def test_noise_is_of_the_stated_deviation_and_leaves_the_sums_where_they_are():
    counts = counts_of({"accuracy": Accuracy(0.5), "balanced": BalancedAccuracy(3)})
    sums = [np.array([10.0, 20, 30, 40]), np.arange(12.0)]
    for each, flat in zip(counts, sums, strict=True):
        draws = np.array([
            np.concatenate([array.ravel() for name, array in with_noise(counts, sums, 2.0, bytes([k]) * 32).items()
                            if name.startswith(each.metrics[0])])
            for k in range(DRAWS)
        ])  # fmt: skip
        size = deviation(each, counts, 2.0)
        assert size == pytest.approx(2.0 * math.sqrt(2) * each.bound)
        errors = draws - flat
        assert abs(errors.mean()) < 4 * size / math.sqrt(errors.size)
        assert np.abs(errors.mean(0)).max() < 4 * size / math.sqrt(DRAWS)
        assert errors.std() == pytest.approx(size, rel=4 / math.sqrt(2 * errors.size))


def test_the_same_key_gives_the_same_noise():
    counts, sums = counts_of({"accuracy": Accuracy(0.5)}), [np.zeros(4)]
    one, again, other = (with_noise(counts, sums, 1.0, key * 32)["accuracy/tp"] for key in (b"a", b"a", b"b"))
    assert one.tolist() == again.tolist() != other.tolist()


def test_counts_under_noise_are_read_as_whole_numbers_of_which_none_is_below_0():
    like = {"a": np.zeros(3, np.int64), "b": np.zeros(1, np.float32)}
    found = likeliest({"a": np.array([-3.2, 0.6, 7.4]), "b": np.array([-0.5])}, like)
    assert (found["a"].tolist(), found["b"].tolist()) == ([0, 1, 7], [-0.5])


@pytest.mark.parametrize("target", [0.5, 1.0, 3.0])
def test_the_noise_of_metrics_spends_what_the_study_says(target):
    entry = mechanism(target).metrics_noise()
    assert (entry["sample_rate"], entry["steps"]) == (1.0, 1.0)
    assert 0.98 * target <= epsilon([entry], 1e-5) <= target


def test_what_a_study_plans_and_states_holds_its_metrics():
    assert mechanism(None).metrics_noise() is None
    assert len(mechanism(None).plan(4, 12, 3)) == 1
    assert mechanism(1.0).plan(4, 12, 3)[1] == mechanism(1.0).metrics_noise()
    assert DPSGD(1.0, 1e-5, target_epsilon=2.0, metrics_epsilon=1.0).stated().epsilon == 3.0


@pytest.mark.parametrize("number", [0.0, -1.0, 0.005])
def test_an_epsilon_that_no_noise_gives_is_refused_by_its_key(number):
    with pytest.raises(UserError, match=r"privacy\.dp_sgd\.metrics_epsilon"):
        mechanism(number)
