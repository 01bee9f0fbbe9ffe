"""Rules that hold against hostile sites: against Flower's own on fixed arrays, and what they promise beyond them."""

import math

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flip.errors import UserError
from flip.messages import Fault
from flip.strategies.krum import Krum
from flip.strategies.median import Median
from flip.strategies.trimmed_mean import TrimmedMean
from tests.strategies.fake_sites import reply
from tests.strategies.test_server_optimizers import assert_same, message

RULES = {"median": Median(rounds=1), "trimmed_mean": TrimmedMean(rounds=1), "krum": Krum(rounds=1)}
SHAPES = {"net.weight": (3, 2), "net.bias": (3,), "scale": ()}
FLOATS = st.floats(-1e3, 1e3, width=32)


def answers(sites: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """What sites return: fixed pseudo-random arrays."""
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(sites)]


def combined(strategy, sent, examples=None):
    """The new weights of one round."""
    sizes = examples or [1] * len(sent)
    replies = [reply(f"site{place}", each, sizes[place]) for place, each in enumerate(sent)]
    return strategy.combine({}, iter(replies), {}, len(sent))[0]


def flowers(strategy, sent):
    """The same by a strategy of Flower's, in which every client has the same number of examples."""
    after, _ = strategy.aggregate_train(1, [message(each, 1) for each in sent])
    return {name: array.numpy() for name, array in after.items()}


@pytest.mark.parametrize("sites", [5, 6])
def test_the_median_is_flowers(sites):
    assert_same([combined(RULES["median"], answers(sites))], [flowers(flower.FedMedian(), answers(sites))])


@pytest.mark.parametrize(("sites", "hostile"), [(5, 1), (6, 1), (7, 2), (7, 3)])
def test_the_trimmed_mean_is_flowers_of_the_share_that_comes_to_the_same_number(sites, hostile):
    theirs = flower.FedTrimmedAvg(beta=(hostile + 0.25) / sites)
    assert_same([combined(TrimmedMean(rounds=1, hostile=hostile), answers(sites))], [flowers(theirs, answers(sites))])


@pytest.mark.parametrize(("sites", "hostile", "keep"), [(5, 1, 1), (8, 2, 1), (8, 2, 3), (9, 3, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_krum_is_flowers(sites, hostile, keep, seed):
    sent = answers(sites, seed)
    theirs = flower.MultiKrum(num_malicious_nodes=hostile, num_nodes_to_select=keep)
    assert_same([combined(Krum(rounds=1, hostile=hostile, keep=keep), sent)], [flowers(theirs, sent)])


@pytest.mark.parametrize("strategy", RULES.values(), ids=RULES.keys())
def test_one_site_of_five_cannot_carry_the_weights_away(strategy):
    sent = answers(5)
    hostile = [*sent[:4], {name: np.full_like(array, 1e6) for name, array in sent[4].items()}]
    for name, array in combined(strategy, hostile).items():
        honest = np.stack([each[name] for each in sent[:4]])
        assert (array >= honest.min(axis=0)).all()
        assert (array <= honest.max(axis=0)).all()


@pytest.mark.parametrize("strategy", RULES.values(), ids=RULES.keys())
def test_a_site_cannot_choose_its_weight_by_its_number_of_examples(strategy):
    assert_same([combined(strategy, answers(5))], [combined(strategy, answers(5), examples=[1, 1, 1, 1, 10**6])])


@pytest.mark.parametrize("strategy", RULES.values(), ids=RULES.keys())
def test_sites_that_fail_or_have_no_examples_do_not_count(strategy):
    sent = answers(6)
    replies = [reply(f"site{place}", each) for place, each in enumerate(sent[:5])]
    others = [reply("site5", sent[5], examples=0), reply("site6", {}, fault=Fault.RAISED)]
    after, _ = strategy.combine({}, iter([*replies, *others]), {}, 7)
    assert_same([after], [combined(strategy, sent[:5])])


@pytest.mark.parametrize("strategy", RULES.values(), ids=RULES.keys())
def test_too_few_usable_replies_change_nothing(strategy):
    before = answers(1)[0]
    replies = [reply(f"site{place}", each) for place, each in enumerate(answers(strategy.least_sites - 1, seed=1))]
    after, _ = strategy.combine(before, iter(replies), {}, 5)
    assert after is before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("strategy", [*RULES.values(), Krum(rounds=1, keep=3)], ids=[*RULES, "multi-krum"])
def test_arrays_keep_type_and_shape_and_integers_are_one_sites(strategy, dtype):
    sent = [
        {"w": np.full((2, 1), place, dtype), "scalar": np.array(place, dtype), "bn.num_batches_tracked": np.array(7)}
        for place in range(5)
    ]
    after = combined(strategy, sent)
    assert {name: (each.dtype, each.shape) for name, each in after.items()} == {
        name: (each.dtype, each.shape) for name, each in sent[0].items()
    }
    assert after["bn.num_batches_tracked"] == 7


@pytest.mark.parametrize("strategy", RULES.values(), ids=RULES.keys())
def test_large_arrays_are_read_in_blocks_alike(strategy, monkeypatch):
    whole = combined(strategy, answers(5))
    monkeypatch.setattr("flip.strategies.robust.BLOCK", 7)
    monkeypatch.setattr("flip.strategies.krum.BLOCK", 7)
    assert_same([combined(strategy, answers(5))], [whole])


@given(arrays(np.float32, st.tuples(st.integers(5, 9), st.just(4)), elements=FLOATS))
@pytest.mark.parametrize("strategy", [*RULES.values(), Krum(rounds=1, keep=2)], ids=[*RULES, "multi-krum"])
def test_a_round_moves_the_weights_no_farther_than_sites_are_told(strategy, moved):
    change = math.sqrt(float((moved.astype(np.float64) ** 2).mean(axis=1).max()))
    after = combined(strategy, [{"w": each} for each in moved])["w"].astype(np.float64)
    assert math.sqrt(float((after**2).mean())) <= strategy.reach(change) * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("strategy", [Median(rounds=1), TrimmedMean(rounds=1, hostile=4)], ids=["median", "trimmed"])
def test_the_reach_of_a_number_that_most_sites_move_together_is_needed(strategy):
    """Each site moves 5 of 9 numbers, so that every number is moved by 5 of 9 sites: the round moves all of them."""
    moved = np.array([[float((number - site) % 9 < 5) for number in range(9)] for site in range(9)])
    change = math.sqrt(float((moved[0] ** 2).mean()))
    after = combined(strategy, [{"w": each} for each in moved])["w"]
    assert change < math.sqrt(float((after**2).mean())) <= strategy.reach(change)


@pytest.mark.parametrize(
    ("strategy", "key", "value"),
    [(TrimmedMean, "hostile", 0), (Krum, "hostile", -1), (Krum, "keep", 0), (Median, "site_weights", {"a": 1.0})],
)
def test_an_impossible_value_is_refused_by_its_key(strategy, key, value):
    with pytest.raises(UserError, match=rf"strategy\.{key}"):
        strategy(rounds=1, **{key: value})


def test_krum_needs_the_sites_of_its_proof_and_those_that_it_keeps():
    assert [Krum(rounds=1, hostile=each).least_sites for each in (1, 2)] == [5, 7]
    assert Krum(rounds=1, hostile=1, keep=6).least_sites == 7


def test_krum_counts_the_nearest_of_its_paper():
    """Of 5 sites with 1 hostile the 2 nearest: 0 has 1 + 1, the others more; over the 3 nearest it would be 1."""
    sent = [{"w": np.array([place], np.float32)} for place in (0, 1, -1, 5, 6)]
    assert combined(RULES["krum"], sent)["w"] == [0]
