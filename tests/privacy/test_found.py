"""What an audit of differential privacy found beyond its noise and its ledger: bits, rows and arrays that tell."""

import math

import numpy as np
import torch
from opacus.accountants import RDPAccountant

from flip.privacy.opacus_training import PrivateOptimizer, Protection
from tests.privacy.one_run_audit import lower_bound
from tests.privacy.private_fits import KEY

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
