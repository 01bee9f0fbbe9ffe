"""What a private fit adds and what its accountant counts are one thing: tested from the weights to the ledger."""

import numpy as np
import pytest
import torch
from opacus.accountants import PRVAccountant
from scipy import stats

from flip.privacy.dp_sgd import DPSGD
from tests.privacy.private_fits import Examples, Linear, private_fit, seeded, train

WIDTH, NORM, DELTA = 20_000, 2.0, 1e-5
MECHANISMS = {
    "a multiplier": DPSGD(max_grad_norm=NORM, delta=DELTA, noise_multiplier=1.5),
    "a target": DPSGD(max_grad_norm=NORM, delta=DELTA, target_epsilon=3.0),
}


def wide() -> Linear:
    """A linear layer at 0, whose gradient is 0 too: what moves it is noise alone."""
    module = seeded(Linear, rate=1.0)
    module.net = torch.nn.Linear(WIDTH, 1, bias=False)
    torch.nn.init.zeros_(module.net.weight)
    return module


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_noise_in_the_weights_is_that_of_the_ledger(name):
    module, examples, batch = wide(), 12, 4
    data = Examples(x=torch.zeros(examples, WIDTH), y=torch.zeros(examples, 1))
    steps = 3
    fit = private_fit(MECHANISMS[name], module, data, steps=steps, batch=batch)
    trainer = train(fit)
    (entry,) = fit.ledger
    # The weights are the sum of the steps' noise, each divided by the expected batch of 4 and times the rate of 1.
    deviation = entry["noise_multiplier"] * NORM / batch * np.sqrt(steps)
    moved = module.net.weight.detach().numpy().ravel()
    assert moved.std() == pytest.approx(deviation, rel=0.03)  # 20,000 draws: six standard errors
    assert stats.kstest(moved, "norm", args=(0, deviation)).pvalue > 1e-3
    assert (entry["steps"], entry["sample_rate"]) == (steps, batch / examples)
    assert trainer.global_step == len(module.seen) == steps


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_epsilon_that_is_reported_is_opacus_own_of_what_was_done(name):
    module = wide()
    data = Examples(x=torch.zeros(12, WIDTH), y=torch.zeros(12, 1))
    ledger: list = []
    for _ in range(2):
        fit = private_fit(MECHANISMS[name], module, data, steps=3, planned=6, ledger=ledger)
        ledger = fit.ledger
    accountant = PRVAccountant()
    for _ in range(6):
        accountant.step(noise_multiplier=ledger[0]["noise_multiplier"], sample_rate=4 / 12)
    spent = MECHANISMS[name].spent(ledger)
    assert spent.epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)
    if name == "a target":
        assert 2.9 < spent.epsilon <= 3.0
