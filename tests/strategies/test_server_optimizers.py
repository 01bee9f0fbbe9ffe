"""Server optimizers against Flower's own classes, on fixed arrays over several rounds, to 1e-6."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.serverapp import strategy as flower

from flip.errors import UserError
from flip.messages import Fault
from flip.strategies.fedadagrad import FedAdagrad
from flip.strategies.fedadam import FedAdam
from flip.strategies.fedavg import FedAvg
from flip.strategies.fedavgm import FedAvgM
from flip.strategies.fedyogi import FedYogi
from tests.strategies.fake_sites import fixed_rounds, reply

OPTIMIZERS = {
    "fedavgm": FedAvgM(rounds=1, server_lr=0.7, momentum=0.8),
    "fedadam": FedAdam(rounds=1, server_lr=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3),
    "fedadagrad": FedAdagrad(rounds=1, server_lr=0.2, beta_1=0.0, tau=1e-3),
    "fedyogi": FedYogi(rounds=1, server_lr=0.05, beta_1=0.8, beta_2=0.97, tau=1e-2),
}


def ours(strategy):
    """The weights after each round."""
    weights, rounds = fixed_rounds()
    state, history = strategy.start(weights), []
    for answers in rounds:
        replies = [reply(site, arrays, examples) for site, arrays, examples in answers]
        weights, state = strategy.combine(weights, iter(replies), state, len(replies))
        history.append(weights)
    return history


def flowers(strategy):
    """The same by a strategy of Flower's, from the messages that its clients would have sent."""
    weights, rounds = fixed_rounds()
    history = []
    for number, answers in enumerate(rounds, start=1):
        current = ArrayRecord({name: Array(array) for name, array in weights.items()})
        if hasattr(strategy, "v_t"):
            strategy.current_arrays = weights
        elif getattr(strategy, "current_arrays", 0) is None:
            strategy.current_arrays = current
        messages = [message(arrays, examples) for _, arrays, examples in answers]
        after, _ = strategy.aggregate_train(number, messages)
        weights = {name: array.numpy() for name, array in after.items()}
        history.append(weights)
    return history


def message(arrays, examples):
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": examples})})
    return make_message(Metadata(1, "", 1, 0, "", "", 0.0, 60.0, "train"), content)


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-6, atol=1e-6)


def test_fedavg_is_flowers():
    assert_same(ours(FedAvg(rounds=1)), flowers(flower.FedAvg()))


def test_fedavgm_is_flowers():
    assert_same(ours(OPTIMIZERS["fedavgm"]), flowers(flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.8)))


def test_fedadagrad_is_flowers():
    assert_same(ours(OPTIMIZERS["fedadagrad"]), flowers(flower.FedAdagrad(eta=0.2, tau=1e-3)))


def test_fedyogi_is_flowers():
    theirs = flower.FedYogi(eta=0.05, beta_1=0.8, beta_2=0.97, tau=1e-2)
    assert_same(ours(OPTIMIZERS["fedyogi"]), flowers(theirs))


def test_fedadam_is_flowers_but_for_the_bias_correction_of_its_learning_rate():
    class Uncorrected(flower.FedAdam):
        def aggregate_train(self, server_round, replies):
            self.eta = 0.1 * (1 - 0.9 ** (server_round + 1)) / np.sqrt(1 - 0.99 ** (server_round + 1))
            return super().aggregate_train(server_round, replies)

    assert_same(ours(OPTIMIZERS["fedadam"]), flowers(Uncorrected(beta_1=0.9, beta_2=0.99, tau=1e-3)))
    with pytest.raises(AssertionError):
        assert_same(ours(OPTIMIZERS["fedadam"]), flowers(flower.FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3)))


def test_momentum_zero_at_rate_one_is_fedavg():
    assert_same(ours(FedAvgM(rounds=1, server_lr=1.0, momentum=0.0)), ours(FedAvg(rounds=1)))


@pytest.mark.parametrize("strategy", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_buffers_are_averaged_and_not_optimized(strategy):
    before = {"bn.num_batches_tracked": np.array(5), "bn.running_var": np.ones(2, np.float32), "mask": np.array([True])}
    replies = [
        reply(
            site,
            {
                "bn.num_batches_tracked": np.array(9),
                "bn.running_var": np.full(2, var, np.float32),
                "mask": np.array([False]),
            },
        )
        for site, var in (("a", 0.1), ("b", 0.3))
    ]
    state = strategy.start(before)
    after, _ = strategy.combine(before, iter(replies), state, 2)
    assert state == {}
    assert (after["bn.num_batches_tracked"], after["mask"].tolist()) == (9, [False])
    np.testing.assert_allclose(after["bn.running_var"], 0.2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("strategy", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_weights_and_moments_keep_their_type_and_shape(strategy, dtype):
    before = {"w": np.zeros((2, 1), dtype), "scalar": np.zeros((), dtype)}
    replies = [reply("a", {"w": np.ones((2, 1), dtype), "scalar": np.ones((), dtype)}, 3)]
    state = strategy.start(before)
    after, moments = strategy.combine(before, iter(replies), state, 1)
    assert {name: (type(a), a.dtype, a.shape) for name, a in after.items()} == {
        name: (np.ndarray, np.dtype(dtype), a.shape) for name, a in before.items()
    }
    assert {name: (a.dtype, a.shape) for name, a in moments.items()} == {
        name: (a.dtype, a.shape) for name, a in state.items()
    }


@pytest.mark.parametrize("strategy", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_round_without_a_usable_reply_changes_nothing(strategy):
    before = {"w": np.ones(2, np.float32)}
    state = strategy.start(before)
    after, same = strategy.combine(before, iter([reply("a", {}, fault=Fault.RAISED)]), state, 1)
    assert after is before
    assert same is state


@pytest.mark.parametrize(
    ("strategy", "key", "value"),
    [
        (FedAvgM, "momentum", 1.0),
        (FedAvgM, "server_lr", 0.0),
        (FedAdam, "beta_1", -0.1),
        (FedAdam, "beta_2", 1.0),
        (FedYogi, "beta_2", 2.0),
        (FedAdagrad, "tau", 0.0),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(strategy, key, value):
    with pytest.raises(UserError, match=rf"strategy\.{key}={value}"):
        strategy(rounds=1, **{key: value})
