import numpy as np
import pytest
import torch

from flip.errors import UserError
from flip.messages import Fault
from flip.messages.weights import to_arrays
from flip.strategies.fedavg import FedAvg
from flip.strategies.scaffold import Scaffold
from tests.strategies.fake_sites import Sites, reply, task
from tests.strategies.site_half import MemoryLocal, data, fit, linear

SIZES = {"a": 10, "b": 30, "c": 60}
SEEDS = {"a": 1, "b": 2, "c": 5}


class Federation:
    """Three sites with real fits of a small module."""

    def __init__(self, strategy, steps=4):
        self.strategy, self.module = strategy, linear()
        self.locals = {site: MemoryLocal(steps=steps) for site in SIZES}
        self.lost = set()
        self.weights = to_arrays(self.module)
        self.state = strategy.start(self.weights)

    def answer(self, site):
        def answered(asked):
            if site in self.lost:
                return reply(site, {}, fault=Fault.LOST)
            weights, state = fit(self.strategy, self.module, asked, self.locals[site], site=SEEDS[site])
            return reply(site, weights, SIZES[site], state)

        return answered

    def run(self, rounds):
        asked = Sites({site: self.answer(site) for site in SIZES})
        for number in range(rounds):
            sent = task(self.weights, round=number)
            self.weights, self.state = self.strategy.round(
                asked, sent, sorted(SIZES), self.state, np.random.default_rng(number)
            )
        return self


def loss_everywhere(weights):
    """The objective of the federation: mean loss over the sites, weighted by their examples."""
    module = linear()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        losses = [
            float(torch.nn.functional.mse_loss(module(data(SEEDS[site])[0]), data(SEEDS[site])[1])) for site in SIZES
        ]
    return np.average(losses, weights=list(SIZES.values()))


def test_the_gradient_gains_the_difference_of_the_controls():
    module, strategy, local = linear(), Scaffold(rounds=1), MemoryLocal()
    local.save(
        "control", {"control/weight": np.full((1, 3), 0.25, np.float32), "control/bias": np.zeros(1, np.float32)}
    )
    control = {"control/weight": np.ones((1, 3), np.float32), "control/bias": np.full(1, 2.0, np.float32)}
    strategy.before_fit(local, task(to_arrays(module), {**control, "statistics/mean": np.ones(3)}))
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    strategy.correct(dict(module.named_parameters()))
    torch.testing.assert_close(module.weight.grad, torch.full((1, 3), 10.75))
    torch.testing.assert_close(module.bias.grad, torch.full((1,), 12.0))


def test_a_site_control_becomes_its_mean_gradient():
    module, strategy, local = linear(), Scaffold(rounds=1), MemoryLocal(steps=1)
    before = to_arrays(module)
    fit(strategy, module, task(before, strategy.start(before)), local)
    again = linear()
    torch.nn.functional.mse_loss(again(data()[0]), data()[1]).backward()
    np.testing.assert_allclose(local.kept["control"]["control/weight"], again.weight.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_first_round_is_fedavg():
    one, other = Federation(Scaffold(rounds=1)).run(1), Federation(FedAvg(rounds=1)).run(1)
    for name in one.weights:
        np.testing.assert_allclose(one.weights[name], other.weights[name], rtol=1e-6, atol=1e-7)


def test_after_full_participation_the_control_is_the_mean_of_the_sites_controls():
    federation = Federation(Scaffold(rounds=1)).run(3)
    for name, control in federation.state.items():
        own = [federation.locals[site].kept["control"][name] for site in SIZES]
        np.testing.assert_allclose(control, np.average(own, axis=0, weights=list(SIZES.values())), rtol=1e-4, atol=1e-5)


def test_equal_weights_give_the_papers_plain_mean():
    federation = Federation(Scaffold(rounds=1, site_weights=dict.fromkeys(SIZES, 1.0))).run(2)
    own = [federation.locals[site].kept["control"]["control/weight"] for site in SIZES]
    np.testing.assert_allclose(federation.state["control/weight"], np.mean(own, axis=0), rtol=1e-4, atol=1e-5)


def test_it_finds_the_common_optimum_that_fedavg_misses():
    averaged, controlled = (
        Federation(FedAvg(rounds=1), steps=20).run(60),
        Federation(Scaffold(rounds=1), steps=20).run(60),
    )
    inputs = torch.cat([data(SEEDS[site])[0] for site in SIZES])
    targets = torch.cat([data(SEEDS[site])[1] for site in SIZES])
    root = torch.tensor([SIZES[site] / len(data()[0]) for site in SIZES for _ in data()[0]]).sqrt()[:, None]
    design = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(root * design, root * targets).solution
    best = loss_everywhere({"weight": solution[:3].T.numpy(), "bias": solution[3].numpy()})
    assert loss_everywhere(controlled.weights) == pytest.approx(best, abs=1e-4)
    assert loss_everywhere(averaged.weights) > best + 1e-3


def test_the_control_moves_by_the_part_of_the_sites_that_answered():
    strategy = Scaffold(rounds=1)
    weights = {"w": np.zeros(1, np.float32)}
    replies = [reply("a", weights, 5, {"control/w": np.ones(1, np.float32)}), reply("b", {}, fault=Fault.TIMEOUT)]
    _, state = strategy.combine(weights, iter(replies), strategy.start(weights), 4)
    assert state["control/w"] == pytest.approx(0.25)


def test_the_server_rate_scales_the_step():
    strategy, before = Scaffold(rounds=1, server_lr=0.5), {"w": np.ones(1, np.float32)}
    replies = [reply("a", {"w": np.full(1, 3.0, np.float32)}, 5, {"control/w": np.zeros(1, np.float32)})]
    after, _ = strategy.combine(before, iter(replies), strategy.start(before), 1)
    assert after["w"] == pytest.approx(2.0)


def test_buffers_are_averaged_and_have_no_control():
    strategy = Scaffold(rounds=1, server_lr=0.5)
    before = {"bn.running_mean": np.zeros(1, np.float32), "bn.num_batches_tracked": np.array(3)}
    replies = [reply("a", {"bn.running_mean": np.ones(1, np.float32), "bn.num_batches_tracked": np.array(7)})]
    state = strategy.start(before)
    after, _ = strategy.combine(before, iter(replies), state, 1)
    assert state == {}
    assert (after["bn.running_mean"], after["bn.num_batches_tracked"]) == (1, 7)


def test_a_lost_site_keeps_its_control_and_the_others_go_on():
    federation = Federation(Scaffold(rounds=1)).run(1)
    kept = federation.locals["b"].kept["control"]["control/weight"].copy()
    federation.lost = {"b"}
    federation.run(1)
    assert np.array_equal(federation.locals["b"].kept["control"]["control/weight"], kept)
    assert not np.array_equal(federation.locals["a"].kept["control"]["control/weight"], kept)


def test_a_server_rate_of_zero_is_refused():
    with pytest.raises(UserError, match=r"strategy\.server_lr=0"):
        Scaffold(rounds=1, server_lr=0)
