"""The unit of DP-SGD is a person: sampled with all rows, and clipped as one gradient, however many rows there are."""

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from scipy import stats

from flip.privacy.dp_sgd import DPSGD
from flip.privacy.poisson import PoissonBatches
from flip.privacy.whose import in_order
from tests.privacy.private_fits import KEY, Examples, Linear, private_fit, rows, seeded, train, weights

QUIET = DPSGD(max_grad_norm=0.05, delta=1e-5, noise_multiplier=1e-9)
NOISY = DPSGD(max_grad_norm=1.0, delta=1e-5, noise_multiplier=1.0)
CODES = np.array([7, 3, 7, 7, 5, 3, 9, 1, 5, 7, 2, 4])  # of 12 rows of seven persons, one of them with four


def persons(codes: np.ndarray = CODES, batch_codes: np.ndarray | None = None) -> Examples:
    """Rows that say whose they are."""
    own = rows(len(codes))
    own.tensors["person"] = torch.from_numpy(codes if batch_codes is None else batch_codes)
    return own


def fit_of(mechanism: DPSGD, data: Examples, codes: np.ndarray | None, module: Linear | None = None, **extra: object):
    return private_fit(mechanism, module or seeded(Linear), data, whose=codes, **extra)


def test_a_person_enters_a_batch_with_all_rows_at_the_rate_of_the_ledger():
    batches = list(PoissonBatches(len(CODES), 3, KEY, CODES)) + list(PoissonBatches(len(CODES), 3, KEY[::-1], CODES))
    for batch in batches:
        assert set(batch) == {row for row, code in enumerate(CODES) if code in CODES[batch]}
    many = np.repeat(np.arange(200), 5)
    drawn = [len(np.unique(many[batch])) for batch in PoissonBatches(1000, 100, KEY, many)]
    assert stats.binomtest(sum(drawn), 200 * 100, 1 / 100).pvalue > 0.01


def test_a_persons_gradients_are_added_up_before_they_are_clipped():
    data, module, found = persons(), seeded(Linear), []
    fit = fit_of(QUIET, data, CODES, module, steps=1)
    drawn = next(iter(PoissonBatches(len(CODES), len(fit.loader), KEY, CODES)))
    expected, single = [torch.zeros_like(each) for each in module.parameters()], seeded(Linear)
    for code in np.unique(CODES[drawn]):
        own = [torch.zeros_like(each) for each in single.parameters()]
        for row in np.flatnonzero(code == CODES):
            loss = single.training_step({name: each[row][None] for name, each in data.tensors.items()}, 0)
            for part, gradient in zip(own, torch.autograd.grad(loss, list(single.parameters())), strict=True):
                part += gradient
        length = float(torch.sqrt(sum(part.square().sum() for part in own)))
        for total, part in zip(expected, own, strict=True):
            total += part * min(1.0, 0.05 / (length + 1e-6)) / (len(CODES) / len(fit.loader))

    class Spy(lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            inner = trainer.optimizers[0].original_optimizer
            inner.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in pl_module.parameters()))

    train(fit, [Spy()])
    assert len(np.unique(CODES[drawn])) < len(drawn)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("number", [1, 4])
def test_a_person_moves_the_sum_by_the_clipping_norm_however_many_rows_they_have(number):
    codes = np.zeros(number, np.int64)
    data, module = persons(codes), seeded(Linear, rate=1.0)
    data.tensors["y"][:] = 1e6
    before = weights(module)
    train(fit_of(DPSGD(0.5, 1e-5, noise_multiplier=1e-9), data, codes, module, steps=1, batch=number))
    moved = torch.cat([(module.state_dict()[name] - before[name]).flatten() for name in before])
    assert float(moved.norm()) * number == pytest.approx(0.5, rel=1e-4)  # over the rows that a batch is to hold


def test_with_one_row_a_person_it_is_as_if_each_row_were_one():
    found = []
    for codes in (None, np.array([5, 2, 9, 1, 0, 3, 4, 8, 7, 6, 11, 10])):
        data = rows() if codes is None else persons(codes)
        fit = fit_of(NOISY, data, codes, steps=6)
        train(fit)
        found.append(weights(fit.module))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_without_clipping_or_noise_it_is_the_gradient_of_the_mean_loss_of_the_rows():
    data, module = persons(), seeded(Linear, rate=1.0)
    loss = torch.nn.functional.mse_loss(module.net(data.tensors["x"]), data.tensors["y"])
    wanted = torch.autograd.grad(loss, list(module.parameters()))
    before = [each.detach().clone() for each in module.parameters()]
    train(fit_of(DPSGD(1e6, 1e-5, noise_multiplier=1e-15), data, CODES, module, steps=1, batch=len(CODES)))
    for old, new, gradient in zip(before, module.parameters(), wanted, strict=True):
        torch.testing.assert_close(old - new.detach(), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (rows(), "does not say whose its rows are"),
        (persons(batch_codes=CODES[::-1].copy()), "a part of a person's rows alone"),
        (persons(batch_codes=np.arange(12)), "a part of a person's rows alone"),
    ],
    ids=["no key", "another order", "rows for persons"],
)
def test_a_dataset_that_does_not_say_in_order_whose_its_rows_are_trains_nothing(data, words):
    fit = fit_of(NOISY, data, CODES, steps=6)
    before = weights(fit.module)
    with pytest.raises(RuntimeError, match=words):
        train(fit)
    assert all(torch.equal(before[name], each) for name, each in fit.module.state_dict().items())


def test_codes_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="11 persons' codes of 12 examples"):
        PoissonBatches(12, 3, KEY, CODES[:-1])


def test_persons_are_numbered_as_they_occur():
    assert in_order(CODES).tolist() == [0, 1, 0, 0, 2, 1, 3, 4, 2, 0, 5, 6]
    assert in_order(np.zeros(0, np.int64)).tolist() == []
