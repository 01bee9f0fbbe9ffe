"""The attacks of `make attacks` on small data made for it: they find what is there, and nothing under noise."""

import numpy as np
import pytest
import torch

from tests.benchmarks.attack_image import DEVIATION, MEAN, Mechanism, gradients, invert, mechanisms, quality, smooth
from tests.benchmarks.attack_membership import confidences, likelihood_ratios, rates, scored
from tests.benchmarks.attack_row import heart, inverted, step_of
from tests.cohorts.heart import write_tiny_heart


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


def test_a_step_of_one_row_is_that_row_and_a_step_of_two_is_neither():
    rows = np.array([[1.0, 0.0, -2.0], [0.5, 3.0, 1.0]])
    before = {"linear.weight": np.zeros((1, 3)), "linear.bias": np.zeros(1)}
    errors = np.array([0.3, -0.4])
    one = {"linear.weight": errors[:1, None] * rows[:1], "linear.bias": errors[:1]}
    two = {"linear.weight": (errors @ rows)[None], "linear.bias": errors.sum(keepdims=True)}
    assert inverted(before, one, rows).found
    assert not inverted(before, two, rows).found
    assert not inverted(before, before, rows).found


@pytest.mark.parametrize(("privacy", "found"), [("none", True), ("local_dp", False)])
def test_a_run_of_one_row_a_step_tells_the_row_and_under_noise_tells_none(tmp_path, privacy, found):
    write_tiny_heart(tmp_path / "data")
    study = heart(tmp_path / "data", "sites=cleveland", "dataset.batch_size=1", f"privacy={privacy}")
    assert step_of(study, tmp_path).found is found


def test_a_smooth_network_tells_the_image_of_a_step_and_under_noise_does_not():
    place = np.linspace(-1, 1, 12)
    pixels = 0.3 + 0.5 * np.exp(-8 * ((place[:, None] - 0.3) ** 2 + (place[None] + 0.2) ** 2))
    image, label = torch.from_numpy((pixels - MEAN) / DEVIATION).float()[None, None], torch.ones(1)
    network = smooth(side=12)
    step = gradients(network, network, image, label)
    for seen, least, most in (
        (Mechanism(), 35, 121),
        (mechanisms()["dp_sgd 8, 1 image"], 0, quality(pixels, pixels.mean())),
    ):
        torch.manual_seed(0)
        start = torch.full((1, 12, 12), float(image.mean()))
        found = invert(network, network, seen.step([step]), label, start=start, iterations=60)
        assert least < quality(found[0], pixels) < most
