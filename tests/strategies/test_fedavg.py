import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flip.errors import UserError
from flip.messages import Fault
from flip.strategies.fedavg import FedAvg
from tests.strategies.fake_sites import Sites, reply, task

FLOATS = st.floats(-1e3, 1e3, width=32)
ARRAY = arrays(np.float32, (3,), elements=FLOATS)
MANY = st.lists(st.tuples(ARRAY, st.integers(1, 5000)), min_size=1, max_size=6)


def replies(many):
    return [reply(f"site{index}", {"w": array}, examples) for index, (array, examples) in enumerate(many)]


@given(MANY)
def test_sites_weigh_by_their_number_of_examples(many):
    mean, total = FedAvg(rounds=1).mean(iter(replies(many)))
    expected = np.average(
        [array.astype(float) for array, _ in many], axis=0, weights=[examples for _, examples in many]
    )
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-5, atol=1e-3)
    assert total == sum(examples for _, examples in many)


@given(ARRAY, st.integers(1, 10**6))
def test_one_site_keeps_its_own_weights_to_the_bit(array, examples):
    mean, _ = FedAvg(rounds=1).mean(iter(replies([(array, examples)])))
    assert mean["w"].tobytes() == array.tobytes()


@given(ARRAY, st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_sites_that_agree_keep_what_they_agree_on_to_the_bit(array, sizes):
    mean, _ = FedAvg(rounds=1).mean(iter(replies([(array, size) for size in sizes])))
    assert np.array_equal(mean["w"], array)


@given(MANY, st.sampled_from([0.5, 2.0, 1024.0]))
def test_only_the_proportion_of_the_weights_matters(many, scale):
    sent = replies(many)
    weights = {one.site: float(one.examples) for one in sent}
    scaled = {site: weight * scale for site, weight in weights.items()}
    mean, _ = FedAvg(rounds=1, site_weights=weights).mean(iter(sent))
    same, _ = FedAvg(rounds=1, site_weights=scaled).mean(iter(sent))
    assert mean["w"].tobytes() == same["w"].tobytes()


@given(MANY, st.randoms())
def test_another_order_of_the_sites_changes_rounding_alone(many, random):
    sent = replies(many)
    shuffled = random.sample(sent, len(sent))
    first, second = (FedAvg(rounds=1).mean(iter(order))[0]["w"] for order in (sent, shuffled))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-2)


def test_replies_are_folded_one_at_a_time():
    alive = []

    def stream():
        for index in range(3):
            alive.append(index)
            yield reply(f"site{index}", {"w": np.full(2, index, np.float32)})
            alive.remove(index)
            assert not alive

    mean, _ = FedAvg(rounds=1).mean(stream())
    np.testing.assert_allclose(mean["w"], [1, 1])


def test_replies_are_not_changed():
    sent = [reply("a", {"w": np.zeros(2, np.float32)}), reply("b", {"w": np.ones(2, np.float32)})]
    FedAvg(rounds=1).mean(iter(sent))
    assert sent[0].weights["w"].tolist() == [0, 0]


def test_integer_buffers_are_the_first_sites():
    sent = [reply("a", {"count": np.array(3)}, 1), reply("b", {"count": np.array(8)}, 100)]
    assert FedAvg(rounds=1).mean(iter(sent))[0]["count"] == 3


def test_half_precision_does_not_overflow_with_many_examples():
    sent = [reply(site, {"w": np.full(2, 60.0, np.float16)}, 5000) for site in ("a", "b")]
    mean, _ = FedAvg(rounds=1).mean(iter(sent))
    assert mean["w"].dtype == np.float16
    assert mean["w"].tolist() == [60.0, 60.0]


def test_given_weights_replace_the_number_of_examples():
    sent = [reply("a", {"w": np.zeros(1, np.float32)}, 1000), reply("b", {"w": np.ones(1, np.float32)}, 1)]
    mean, _ = FedAvg(rounds=1, site_weights={"a": 1.0, "b": 3.0}).mean(iter(sent))
    assert mean["w"] == pytest.approx(0.75)


def test_a_site_of_weight_zero_and_a_site_with_a_fault_do_not_count():
    ones = {"w": np.ones(1, np.float32)}
    sent = [reply("a", {"w": np.zeros(1, np.float32)}), reply("b", ones), reply("c", {}, fault=Fault.LOST)]
    mean, total = FedAvg(rounds=1, site_weights={"a": 0.0, "b": 2.0}).mean(iter(sent))
    assert (mean["w"].tolist(), total) == ([1.0], 2.0)


def test_a_site_without_a_given_weight_is_named():
    with pytest.raises(UserError, match="no weight for site 'b'"):
        FedAvg(rounds=1, site_weights={"a": 1.0}).mean(iter([reply("b", {"w": np.ones(1)})]))


def test_no_usable_reply_leaves_the_weights():
    before = {"w": np.ones(1, np.float32)}
    sites = Sites({"a": lambda _: reply("a", {}, fault=Fault.TIMEOUT)})
    after, _ = FedAvg(rounds=1).round(sites, task(before), ["a"], {}, np.random.default_rng(0))
    assert after is before


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1, "fraction": 0.0}, "fraction"),
        ({"rounds": 1, "min_sites": 0}, "min_sites"),
        ({"rounds": 1, "site_weights": {"a": -1.0}}, r"site_weights\.a"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(arguments, key):
    with pytest.raises(UserError, match=rf"strategy\.{key}"):
        FedAvg(**arguments)


def test_the_same_generator_selects_the_same_sites_whatever_order_they_are_named_in():
    strategy = FedAvg(rounds=1, fraction=0.5)
    one = strategy.select(["a", "b", "c", "d"], np.random.default_rng(3))
    other = strategy.select(["d", "b", "a", "c"], np.random.default_rng(3))
    assert one == other == sorted(one)
    assert len(one) == 2


def test_patterns_choose_what_travels():
    module = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    assert FedAvg(rounds=1, share=["encoder.*"]).shared(module) == ["encoder.bias", "encoder.weight"]
