"""What an audit of differential privacy found beyond its noise and its ledger: bits, rows and arrays that tell."""

import math

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from opacus.accountants import RDPAccountant

from flip.errors import UserError
from flip.privacy.dp_sgd import DPSGD
from flip.privacy.opacus_training import PrivateOptimizer, Protection
from models.heads.survival import Cox
from tests.privacy.one_run_audit import lower_bound
from tests.privacy.private_fits import KEY, Examples, Linear, private_fit, rows, train

# The last bits of a float: a sum is rounded by its larger part, so that they tell what a small one was made of.

CANARIES, NOISE, DELTA = 4_000, 4.0, 1e-6


def last_bits(numbers: np.ndarray) -> np.ndarray:
    """The exponent of the lowest bit of each number that is set."""
    mantissa, exponent = np.frexp(np.float64(numbers))
    whole = (np.abs(mantissa) * 2**53).astype(np.int64)
    return exponent - 53 + np.log2(np.maximum(whole & -whole, 1)).astype(int)


def test_the_last_bits_of_a_weight_do_not_tell_whose_gradients_it_has_moved_by():
    included = np.random.default_rng(0).random(CANARIES) < 0.5
    weights = torch.nn.Parameter(torch.zeros(CANARIES))
    optimizer = PrivateOptimizer(torch.optim.SGD([weights], lr=1.0), Protection(NOISE, 1.0, 1.0, KEY))
    weights.grad_sample = torch.diag(torch.from_numpy(included).float() * math.pi)[included]
    optimizer.step()
    accountant = RDPAccountant()
    accountant.step(noise_multiplier=NOISE, sample_rate=1.0)
    order = np.argsort(last_bits(weights.detach().numpy()), kind="stable")
    guesses = order[: CANARIES // 20]  # the finest: only noise that was added to 0 is so
    right = int((~included[guesses]).sum())
    assert lower_bound(len(guesses), right, CANARIES, DELTA, 0.95) < accountant.get_epsilon(DELTA)


# A loss that compares the rows of a batch: one that is clipped by itself still moves the gradients of all others.


class Survival(lightning.LightningModule):
    """Cox's regression, which says of itself that it compares rows, or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Cox(2)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.head.loss(self.head(batch["x"]), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def summed(first: int) -> torch.Tensor:
    """The sum of clipped gradients of twenty patients, the first of whom died; without those before `first`."""
    patients = {"x": torch.tensor([[0.0, 1e3]] + [[1e3, 0.0]] * 19), "time": torch.arange(1.0, 21.0)}
    data = Examples(**{name: each[first:] for name, each in patients.items()}, event=torch.eye(20)[0, first:])
    module = Survival()
    train(private_fit(DPSGD(max_grad_norm=1.0, delta=DELTA, noise_multiplier=1e-9), module, data, steps=1, batch=20))
    return -module.head.linear.weight.detach()[0] * len(data)


def test_one_patient_would_move_the_gradients_of_all_others_of_coxs_regression():
    assert float((summed(0) - summed(1)).norm()) > 15  # clipped to 1


def test_a_model_that_compares_rows_is_refused():
    module = Survival()
    module.compares_examples = True
    with pytest.raises(UserError, match="compares the examples of a batch"):
        DPSGD(max_grad_norm=1.0, delta=DELTA, noise_multiplier=1.0).check(module, {})


# What is not trained, and leaves with the weights.


class Centered(torch.nn.Module):
    """Takes the running mean off: a layer without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.data.lerp_(rows.detach().mean(0), 0.1)
        return rows - self.mean


def test_a_running_mean_of_the_rows_does_not_leave_beside_the_noised_weights():
    module = Linear()
    module.net = torch.nn.Sequential(Centered(), torch.nn.Linear(3, 1))
    noisy = DPSGD(max_grad_norm=1.0, delta=DELTA, noise_multiplier=1.0)
    noisy.check(module, {})
    with pytest.raises(UserError, match=r"changes 'net\.0\.mean' by itself"):
        train(private_fit(noisy, module, rows()))


def test_what_does_not_change_may_be_untrained_even_where_it_is_no_number():
    module = Linear()
    module.register_buffer("unknown", torch.full((2,), torch.nan))
    module.net.bias.requires_grad = False
    train(private_fit(DPSGD(max_grad_norm=1.0, delta=DELTA, noise_multiplier=1.0), module, rows()))
