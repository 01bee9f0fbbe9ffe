import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from opacus.accountants import PRVAccountant
from scipy import stats

from flip.errors import UserError
from flip.messages import Task
from flip.messages.weights import to_arrays
from flip.privacy.dp_sgd import DPSGD
from flip.privacy.opacus_training import PrivateOptimizer, Protection
from flip.privacy.poisson import PoissonBatches, poisson_loader
from flip.site.trainer import RoundCallback
from flip.strategies.fedavg import FedAvg
from flip.strategies.fedprox import FedProx
from flip.strategies.scaffold import Scaffold
from tests.privacy.private_fits import (
    KEY,
    Examples,
    Linear,
    Segmenter,
    images,
    private_fit,
    rows,
    seeded,
    train,
    weights,
)

QUIET = DPSGD(max_grad_norm=1.0, delta=1e-5, noise_multiplier=1e-9)
NOISY = DPSGD(max_grad_norm=1.0, delta=1e-5, noise_multiplier=1.0)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The arithmetic of a step.


def clipped_sum(module, data, indices, norm):
    """The sum of clipped per-example gradients, by a loop."""
    total = [torch.zeros_like(parameter) for parameter in module.parameters()]
    for index in indices:
        example = {name: tensor[None] for name, tensor in data[index].items()}
        gradients = torch.autograd.grad(module.training_step(example, 0), list(module.parameters()))
        length = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        for part, gradient in zip(total, gradients, strict=True):
            part += gradient * min(1.0, norm / (float(length) + 1e-6))
    return total


@pytest.mark.parametrize(("kind", "data"), [(Linear, rows()), (Segmenter, images())], ids=["linear", "monai"])
def test_a_step_follows_the_sum_of_clipped_gradients_over_the_expected_batch(kind, data):
    module, gradients = seeded(kind), []
    mechanism = DPSGD(max_grad_norm=0.05, delta=1e-5, noise_multiplier=1e-9)
    fit = private_fit(mechanism, module, data, steps=1)
    indices = next(iter(PoissonBatches(len(data), len(fit.loader), KEY)))
    expected = [part * len(fit.loader) / len(data) for part in clipped_sum(seeded(kind), data, indices, 0.05)]

    class Spy(lightning.Callback):
        def on_train_start(self, trainer, pl_module):
            inner = trainer.optimizers[0].original_optimizer
            inner.register_step_pre_hook(lambda *_: gradients.extend(p.grad.clone() for p in pl_module.parameters()))

    train(fit, [Spy()])
    assert len(indices) > 1
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_one_example_moves_the_sum_by_the_clipping_norm_at_most():
    data = rows()
    data.tensors["y"][0] = 1e6
    module = seeded(Linear, rate=1.0)
    mechanism = DPSGD(max_grad_norm=0.5, delta=1e-5, noise_multiplier=1e-9)
    before = weights(module)
    fit = private_fit(
        mechanism, module, Examples(**{name: tensor[:1] for name, tensor in data.tensors.items()}), steps=1, batch=1
    )
    train(fit)
    moved = torch.cat([(module.state_dict()[name] - before[name]).flatten() for name in before])
    assert module.seen == [1]
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)


def test_the_noise_has_the_stated_deviation():
    parameter = torch.nn.Parameter(torch.zeros(50_000))
    protection = Protection(noise_multiplier=1.5, max_grad_norm=2.0, expected_batch=4.0, key=KEY)
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), protection)
    parameter.grad_sample = torch.zeros(0, 50_000)
    optimizer.step()
    assert stats.kstest(-parameter.detach().numpy(), "norm", args=(0, 1.5 * 2.0 / 4.0)).pvalue > 0.01


# Randomness.


def test_the_same_task_data_and_secret_give_the_same_bits():
    results = []
    for _ in range(2):
        module = seeded(Linear)
        torch.manual_seed(7)
        train(private_fit(NOISY, module, rows()))
        results.append(weights(module))
    assert same(*results)


def test_torchs_seed_has_no_say_in_noise_or_batches():
    results = []
    for seed in (1, 2):
        module = seeded(Linear)
        fit = private_fit(NOISY, module, rows())
        torch.manual_seed(seed)
        train(fit)
        results.append((weights(module), module.seen))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_another_key_gives_other_noise_and_other_batches():
    results = []
    for key in (KEY, KEY[::-1]):
        module = seeded(Linear)
        train(private_fit(NOISY, module, rows(40), key=key, steps=6))
        results.append((weights(module), module.seen))
    assert not same(results[0][0], results[1][0])
    assert results[0][1] != results[1][1]


def test_batches_are_poisson_samples():
    batches = list(PoissonBatches(50, 2000, KEY))
    entered = np.zeros((2000, 50))
    for number, batch in enumerate(batches):
        entered[number, batch] = 1
    assert len(batches) == 2000
    assert stats.binomtest(int(entered.sum()), entered.size, 1 / 2000).pvalue > 0.01
    assert any(not batch for batch in batches)


def test_each_pass_draws_new_batches():
    sampler = PoissonBatches(100, 4, KEY)
    assert list(sampler) != list(sampler)


def test_a_loader_keeps_its_settings_and_number_of_batches():
    loader = torch.utils.data.DataLoader(
        rows(), batch_size=5, num_workers=1, collate_fn=lambda examples: {"n": torch.tensor(len(examples))}
    )
    private = poisson_loader(loader, KEY)
    assert (len(private), private.num_workers) == (3, 1)
    assert private.collate_fn([rows()[0]] * 4)["n"] == 4


# Batches without examples.


@pytest.mark.parametrize(("kind", "data"), [(Linear, rows(3)), (Segmenter, images(3))], ids=["linear", "monai"])
def test_a_batch_without_examples_is_a_step_of_noise_alone(kind, data, monkeypatch):
    monkeypatch.setattr(PoissonBatches, "__iter__", lambda sampler: iter([[]] * len(sampler)))
    module = seeded(kind)
    before = weights(module)
    trainer = train(private_fit(NOISY, module, data, steps=2))
    assert trainer.global_step == 2
    assert all(torch.isfinite(tensor).all() for tensor in module.state_dict().values())
    assert not same(before, weights(module))


def test_an_empty_batch_has_the_structure_of_a_full_one():
    loader = torch.utils.data.DataLoader(
        Examples(x=torch.ones(4, 3), y=torch.ones(4, 1, dtype=torch.long)), batch_size=2
    )
    empty = poisson_loader(loader, KEY).collate_fn([])
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in empty.items()} == {
        "x": ((0, 3), torch.float32),
        "y": ((0, 1), torch.int64),
    }


# The module stays itself.


def test_a_module_is_prepared_again_each_round_without_stacking_hooks():
    once, often = seeded(Linear), seeded(Linear)
    for _ in range(3):
        fit = private_fit(NOISY, often, rows())
    train(private_fit(NOISY, once, rows()))
    train(fit)
    assert same(weights(once), weights(often))
    assert len(often.net._forward_hooks) == 1
    assert isinstance(often.configure_optimizers().original_optimizer, torch.optim.SGD)


def test_two_rounds_with_one_module_are_two_rounds_with_fresh_ones():
    kept = seeded(Segmenter)
    for key in (KEY, KEY[::-1]):
        train(private_fit(NOISY, kept, images(), key=key, steps=2))
    fresh = seeded(Segmenter)
    train(private_fit(NOISY, fresh, images(), steps=2))
    second = seeded(Segmenter)
    second.load_state_dict(fresh.state_dict())
    train(private_fit(NOISY, second, images(), key=KEY[::-1], steps=2))
    assert same(weights(kept), weights(second))


def test_the_names_of_the_state_do_not_change():
    module = seeded(Segmenter)
    names = list(module.state_dict())
    train(private_fit(NOISY, module, images(), steps=1))
    assert list(module.state_dict()) == names


def test_nothing_per_example_outlives_the_fit_or_an_evaluation():
    module = seeded(Segmenter)
    train(private_fit(NOISY, module, images(), steps=2))
    module.eval()
    with torch.no_grad():
        module.net(images().tensors["image"])
    assert all(parameter.grad_sample is None for parameter in module.parameters())
    assert not any(getattr(layer, "activations", None) for layer in module.modules())


def test_a_fit_that_broke_off_does_not_spoil_the_next():
    module = seeded(Linear)
    private_fit(NOISY, module, rows())
    module.train()
    module.net(rows().tensors["x"])  # a forward pass whose backward pass never came
    train(private_fit(NOISY, module, rows()))
    undisturbed = seeded(Linear)
    train(private_fit(NOISY, undisturbed, rows()))
    assert same(weights(module), weights(undisturbed))


def test_a_scheduler_goes_on_setting_the_learning_rate():
    module = seeded(Linear, scheduled=True)
    trainer = train(private_fit(NOISY, module, rows(), steps=3))
    assert trainer.optimizers[0].original_optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_several_optimizers_are_refused():
    module = seeded(Linear)
    module.configure_optimizers = lambda: [
        torch.optim.SGD(module.parameters(), lr=0.1),
        torch.optim.SGD(module.parameters(), lr=0.1),
    ]
    private_fit(NOISY, module, rows())
    with pytest.raises(UserError, match="one optimizer"):
        module.configure_optimizers()


# Strategies act under it.


class Memory:
    steps, learning_rate = 3, 0.1

    def load(self, name):
        return None

    def save(self, name, arrays):
        pass


@pytest.mark.parametrize("strategy", [FedProx(rounds=1, mu=5.0), Scaffold(rounds=1)], ids=["fedprox", "scaffold"])
def test_a_strategys_correction_still_acts(strategy):
    results = []
    for chosen in (FedAvg(rounds=1), strategy):
        module = seeded(Linear)
        sent = to_arrays(module)
        state = {f"control/{name}": np.full_like(array, 0.5) for name, array in sent.items()}
        chosen.before_fit(Memory(), Task("run", "study", 0, "fit", sent, state, {}, "{}"))
        train(private_fit(NOISY, module, rows()), [RoundCallback(chosen.correct)])
        results.append(weights(module))
    assert not same(*results)


# Epsilon.


def test_epsilon_is_opacus_own_over_all_fits():
    ledger = []
    mechanism = DPSGD(max_grad_norm=1.0, delta=1e-5, noise_multiplier=1.3)
    for _ in range(4):
        private_fit(mechanism, seeded(Linear), rows(), steps=25, ledger=ledger)
    accountant = PRVAccountant()
    for _ in range(100):
        accountant.step(noise_multiplier=1.3, sample_rate=1 / 3)
    spent = mechanism.spent(ledger)
    assert spent.epsilon == accountant.get_epsilon(1e-5)
    assert (spent.delta, spent.unit) == (1e-5, "person")


def test_fits_of_different_rate_compose():
    ledger = [
        {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10.0},
        {"noise_multiplier": 2.0, "sample_rate": 0.2, "steps": 5.0},
    ]
    accountant = PRVAccountant()
    accountant.history = [(1.0, 0.1, 10), (2.0, 0.2, 5)]
    assert NOISY.spent(ledger).epsilon == accountant.get_epsilon(1e-5)


def test_before_the_first_fit_nothing_is_spent():
    assert NOISY.spent([]).epsilon == 0


def test_all_fits_of_a_study_have_the_noise_of_its_plan_and_the_target_is_kept():
    ledger = []
    mechanism = DPSGD(max_grad_norm=1.0, delta=1e-5, target_epsilon=3.0)
    for _ in range(5):
        private_fit(mechanism, seeded(Linear), rows(40), steps=20, planned=100, ledger=ledger)
    (planned,) = mechanism.plan(10, 100, 5)
    assert {entry["noise_multiplier"] for entry in ledger} == {planned["noise_multiplier"]}
    assert mechanism.spent(ledger) == mechanism.spent([planned])
    assert 2.9 < mechanism.spent(ledger).epsilon <= 3.0


def test_a_step_that_was_not_paid_for_is_not_taken():
    fit = private_fit(NOISY, seeded(Linear), rows(), steps=2)
    fit.steps = 3
    with pytest.raises(RuntimeError, match="a step more than the privacy ledger holds"):
        train(fit)


# What cannot be private.


class Holder(lightning.LightningModule):
    def __init__(self, *layers):
        super().__init__()
        self.net = torch.nn.Sequential(*layers)


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.BatchNorm2d(3),
        torch.nn.BatchNorm1d(3, affine=False),
        torch.nn.InstanceNorm2d(3, track_running_stats=True),
        torch.nn.LSTM(3, 3),
    ],
    ids=type,
)
def test_a_layer_that_cannot_be_private_is_named_in_one_sentence(layer):
    with pytest.raises(
        UserError, match=rf"privacy=dp_sgd cannot protect a model with {type(layer).__name__} 'net\.1'"
    ) as refused:
        NOISY.check(Holder(torch.nn.Linear(3, 3), layer), {})
    assert len(refused.value.problems) == 1


def test_a_model_that_can_be_private_passes_in_either_mode():
    NOISY.check(seeded(Segmenter).eval(), {})
    NOISY.check(seeded(Linear), {})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "exactly one"),
        ({"noise_multiplier": 1.0, "target_epsilon": 1.0}, "exactly one"),
        ({"noise_multiplier": 0.0}, r"noise_multiplier=0\.0"),
        ({"target_epsilon": -1.0}, "target_epsilon"),
        ({"target_epsilon": 0.01}, r"target_epsilon=0\.01: no noise gives it"),
        ({"noise_multiplier": 1.0, "max_grad_norm": 0.0}, "max_grad_norm"),
        ({"noise_multiplier": 1.0, "delta": 1.0}, r"delta=1\.0"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(changes, key):
    with pytest.raises(UserError, match=key):
        DPSGD(**{"max_grad_norm": 1.0, "delta": 1e-5, **changes})


def test_naming_the_mechanism_imports_neither_torch_nor_opacus():
    code = "import flip.privacy.dp_sgd, sys; assert not {'torch', 'opacus', 'cryptography'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("setting", ["accumulate_grad_batches", "gradient_clip_val", "precision"])
def test_settings_that_change_gradients_are_refused(setting):
    with pytest.raises(UserError, match=f"trainer.lightning.{setting}"):
        NOISY.check(seeded(Linear), {setting: 2})
