import numpy as np
import pytest
import torch

from flip.errors import UserError
from flip.messages.weights import to_arrays
from flip.strategies.fedprox import FedProx
from tests.strategies.fake_sites import task
from tests.strategies.site_half import MemoryLocal, data, fit, linear


def test_the_gradient_gains_mu_times_the_distance_from_the_sent_weights():
    module, strategy = linear(), FedProx(rounds=1, mu=0.3)
    sent = {name: array + np.float32(0.5) for name, array in to_arrays(module).items()}
    strategy.before_fit(MemoryLocal(), task(sent))
    parameters = dict(module.named_parameters())
    loss = torch.nn.functional.mse_loss(module(data()[0]), data()[1])
    plain = torch.autograd.grad(loss, list(parameters.values()))
    for parameter, gradient in zip(parameters.values(), plain, strict=True):
        parameter.grad = gradient.clone()
    strategy.correct(parameters)
    for (name, parameter), gradient in zip(parameters.items(), plain, strict=True):
        pull = 0.3 * (parameter.detach() - torch.from_numpy(sent[name]))
        torch.testing.assert_close(parameter.grad, gradient + pull)


def test_it_trains_as_sgd_on_the_loss_with_the_proximal_term():
    module, strategy = linear(), FedProx(rounds=1, mu=0.7)
    sent = to_arrays(module)
    after, _ = fit(strategy, module, task(sent), MemoryLocal(steps=5))

    reference = linear()
    anchor = [parameter.detach().clone() for parameter in reference.parameters()]
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(reference(data()[0]), data()[1])
        distance = sum(
            (parameter - start).square().sum() for parameter, start in zip(reference.parameters(), anchor, strict=True)
        )
        (loss + 0.35 * distance).backward()
        optimizer.step()
    for name, array in to_arrays(reference).items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-6)


def test_mu_zero_is_fedavg_to_the_bit():
    module = linear()
    after, _ = fit(FedProx(rounds=1, mu=0.0), module, task(to_arrays(module)), MemoryLocal(steps=3))
    plain = linear()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(plain(data()[0]), data()[1]).backward()
        optimizer.step()
    assert all(after[name].tobytes() == array.tobytes() for name, array in to_arrays(plain).items())


def test_each_fit_is_held_to_the_weights_of_its_own_task():
    module, strategy = linear(), FedProx(rounds=1, mu=1.0)
    for shift in (1.0, 2.0):
        sent = {name: array - np.float32(shift) for name, array in to_arrays(module).items()}
        strategy.before_fit(MemoryLocal(), task(sent))
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        strategy.correct(dict(module.named_parameters()))
        torch.testing.assert_close(module.weight.grad, torch.full_like(module.weight, shift))


def test_parameters_that_do_not_travel_or_have_no_gradient_are_left_alone():
    module, strategy = linear(), FedProx(rounds=1, mu=1.0)
    strategy.before_fit(MemoryLocal(), task({"weight": to_arrays(module)["weight"] + 1}))
    module.bias.grad = torch.zeros_like(module.bias)
    strategy.correct(dict(module.named_parameters()))
    assert module.weight.grad is None
    assert not module.bias.grad.any()


def test_a_negative_mu_is_refused():
    with pytest.raises(UserError, match=r"strategy\.mu=-1"):
        FedProx(rounds=1, mu=-1)
