"""What a fit of one round leaves to the next, and what of a module's training a round can count."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MeanMetric

from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.checks.optimization import optimization
from flip.errors import UserError
from flip.messages import Task
from flip.messages.weights import to_arrays
from flip.site import trainer as training
from flip.site.batches import without_single
from flip.site.centralized import CentralizedFit, fit_centralized
from flip.site.silo import Silo
from flip.site.trainer import Device, RoundCallback, fit_round, passes
from flip.strategies.fedavg import FedAvg
from tests.studies import compose_study

CPU = Device("cpu", None, {})
LEARNING_RATE = 0.1


@pytest.fixture(params=["plain loop", "Trainer"])
def way(request, monkeypatch):
    """Both ways to fit."""
    if request.param == "Trainer":
        monkeypatch.setattr(training, "needs_trainer", lambda _: "is compared")
    return request.param


class Linear(lightning.LightningModule):
    """A linear model; `schedule` makes its scheduler."""

    metrics: Any
    schedule: Any = None
    optimizer: Any = partial(torch.optim.SGD, lr=LEARNING_RATE, momentum=0.9)

    def __init__(self, *norms: torch.nn.Module):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 2), *norms, torch.nn.Linear(2, 1))
        self.metrics = torch.nn.ModuleDict({"loss": MeanMetric()})
        self.rows: list[int] = []

    def training_step(self, batch, batch_idx):
        self.rows.append(len(batch[0]))
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = type(self).optimizer(self.parameters())
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}


def made(*norms: torch.nn.Module, **attributes: Any) -> Linear:
    """A module with the same first weights each time."""
    torch.manual_seed(0)
    return type("Own", (Linear,), attributes)(*norms)


def rows(number: int = 12, size: int = 4, **settings: Any) -> Any:
    """Rows in the same batches in every pass."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(*(torch.randn(number, width, generator=generator) for width in (3, 1)))
    return DataLoader(data, batch_size=size, **settings)


def fitted(module: Any, steps: int, loader: Any = None, device: Device = CPU, **how: Any) -> RoundCallback:
    """The callback after a fit."""
    callback = RoundCallback(**how)
    fit_round(module, loader or rows(), steps=steps, device=device, callback=callback)
    return callback


def weights(module: Any) -> list[float]:
    return [value for tensor in module.state_dict().values() for value in tensor.flatten().tolist()]


# The reported loss.


@pytest.mark.parametrize("batches", [2, 3])
def test_a_loss_is_of_a_batch_however_many_make_a_step(batches, way):
    still = {"optimizer": partial(torch.optim.SGD, lr=0.0)}
    once = fitted(made(**still), 3).mean_loss
    device = Device("cpu", None, {"accumulate_grad_batches": batches})
    steps = -(-3 // batches)
    assert fitted(made(**still), steps, device=device).mean_loss == pytest.approx(once, rel=1e-6)


def test_a_loss_without_federation_is_of_a_batch_too(tmp_path):
    still, found = {"optimizer": partial(torch.optim.SGD, lr=0.0)}, []
    for batches in (1, 3):
        device = Device("cpu", None, {"accumulate_grad_batches": batches})
        how = CentralizedFit(1, None, [], tmp_path)
        found.append(fit_centralized(made(**still), rows(), None, device=device, how=how).mean_loss)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


# Schedulers over rounds.

SCHEDULES = {
    "StepLR": lambda o: schedules.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 5], gamma=0.5),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.8),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda step: 1 / (1 + step)),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4),
    "OneCycleLR, which moves the momentum too": lambda o: schedules.OneCycleLR(o, 0.3, total_steps=8),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.2, step_size_up=3),
    "SequentialLR, a warm-up": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=3), schedules.MultiStepLR(o, [1, 2])], milestones=[3]
    ),
}


def two_rounds(keeps: bool, **attributes: Any) -> tuple[Any, list[float]]:
    """A module after two rounds of three steps, and the learning rate that each began with."""
    module, before, rates = made(**attributes), None, []
    for _ in range(2):
        callback = fitted(module, 3, keeps=keeps, before=before)
        before = callback.optimizer_arrays or None
        rates.append(callback.learning_rate)
    return module, rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_kept_optimizers_and_schedulers_go_on_as_if_the_rounds_were_one(name, way):
    whole = made(schedule=staticmethod(SCHEDULES[name]))
    fitted(whole, 6)
    parted, rates = two_rounds(True, schedule=staticmethod(SCHEDULES[name]))
    assert weights(parted) == weights(whole)
    assert rates[0] != rates[1]


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_reset_begins_anew(name, way):
    _, rates = two_rounds(False, schedule=staticmethod(SCHEDULES[name]))
    assert rates[0] == rates[1]


def test_without_a_scheduler_the_learning_rate_is_the_declared_one(way):
    whole = made()
    fitted(whole, 6)
    parted, rates = two_rounds(True)
    assert weights(parted) == weights(whole) and rates == [LEARNING_RATE] * 2


def test_a_scheduler_that_cannot_be_kept_is_refused(way):
    class Odd(schedules.StepLR):
        def state_dict(self):
            return {**super().state_dict(), "of": object()}

    module = made(schedule=staticmethod(lambda o: Odd(o, 2)))
    with pytest.raises(UserError, match="scheduler holds a object, which cannot be kept; choose reset"):
        fitted(module, 3, keeps=True)
    fitted(module, 3)


def by_pass(frequency: int) -> dict[str, Any]:
    """A module whose learning rate is halved after so many passes."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=LEARNING_RATE)
        scheduler = schedules.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "frequency": frequency}}

    return {"configure_optimizers": configure_optimizers}


@pytest.mark.parametrize(("frequency", "steps"), [(1, 2), (2, 3), (2, 9)])
def test_a_kept_schedule_by_pass_that_a_round_cannot_count_is_refused(frequency, steps, way):
    whole = passes(rows(), CPU, steps)
    with pytest.raises(UserError, match=f"every {frequency} passes .* a round here has {whole}"):
        fitted(made(**by_pass(frequency)), steps, keeps=True, passes=whole)
    fitted(made(**by_pass(frequency)), steps, passes=whole)


def test_a_kept_schedule_by_pass_goes_on(way):
    before, rates = None, []
    for _ in range(3):
        callback = fitted(made(**by_pass(2)), 6, keeps=True, before=before, passes=passes(rows(), CPU, 6))
        before = callback.optimizer_arrays
        rates.append(callback.learning_rate)
    assert rates == [0.1, 0.05, 0.025]


SCHEDULED = """
import torch
from acme.parts import Model


class Scheduled(Model):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
"""


def test_a_sites_scheduler_goes_on_over_the_rounds_of_a_study(acme, tmp_path):
    (acme.packages / "acme" / "scheduled.py").write_text(SCHEDULED)
    found = {}
    for keep in ("keep", "reset"):
        ours = ["federation=inprocess", "trainer.steps=4", "model._target_=acme.scheduled.Scheduled"]
        study = compose_study("experiment=acme", *ours, f"trainer.optimizer_state={keep}", config_dir=acme.conf)
        silo = Silo("va", replace(study.sites["south"], secret="simulated"), tmp_path / keep)
        task = Task("r", "study", 0, "fit", to_arrays(initial_module(study.manifest)), {}, {}, study.manifest_text)
        first = silo.answer(task)
        assert first.fault is None
        second = silo.answer(replace(task, round=1, weights=first.weights))
        found[keep] = np.abs(second.weights["linear.weight"] - first.weights["linear.weight"]).max()
    assert 0 < found["keep"] < found["reset"] / 8  # four steps of half the rate each


# What a round cannot count.


def by_hand(self, batch, batch_idx):
    for optimizer in self.optimizers():
        optimizer.step()


def several(self):
    return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


UNFIT = {
    "two optimizers by hand": (
        {"automatic_optimization": False, "configure_optimizers": several, "training_step": by_hand},
        "steps its optimizers by hand",
    ),
    "one by hand": ({"automatic_optimization": False}, "steps its optimizers by hand"),
    "two": ({"configure_optimizers": several}, "gives 2 optimizers; a round steps one"),
    "two in dicts": (
        {"configure_optimizers": lambda self: [{"optimizer": each} for each in several(self)]},
        "gives 2 optimizers; a round steps one",
    ),
    "none": ({"configure_optimizers": lambda self: None}, "gives no optimizer; a round steps one"),
    "one that raises": ({"optimizer": partial(torch.optim.SGD, lr=-1.0)}, "raised ValueError: Invalid learning rate"),
}


def checked(module: Any, keep: str = "reset") -> list[str]:
    """What the check says of how a module is trained."""
    manifest: Any = {"trainer": {"optimizer_state": keep}, "model": {"optimizer": {}}}
    return list(optimization(manifest, module, FedAvg(rounds=1)))


@pytest.mark.parametrize("name", UNFIT)
def test_a_module_whose_steps_a_round_cannot_count_is_refused_by_the_check(name):
    attributes, said = UNFIT[name]
    (problem,) = checked(made(**attributes))
    assert said in problem


@pytest.mark.parametrize("name", ["two optimizers by hand", "one by hand"])
def test_and_by_the_site(name):
    with pytest.raises(UserError, match="by hand"):
        fitted(made(**UNFIT[name][0]), 3)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"schedule": staticmethod(SCHEDULES["StepLR"])},
        {"configure_optimizers": lambda self: ([torch.optim.SGD(self.parameters(), lr=0.1)], [])},
        {"configure_optimizers": lambda self: [torch.optim.SGD(self.parameters(), lr=0.1)]},
        {"configure_optimizers": lambda self: torch.optim.SGD(self.parameters(), lr=self.trainer.max_steps)},
        {"optimizer": partial(torch.optim.LBFGS)},
    ],
    ids=["one", "with a scheduler", "two lists", "a list", "one that asks the Trainer", "LBFGS"],
)
def test_a_module_with_one_optimizer_passes(attributes):
    assert not checked(made(**attributes))


def test_an_optimizer_whose_memory_is_of_other_weights_is_kept_by_nobody(way):
    module = made(optimizer=torch.optim.LBFGS)
    (problem,) = checked(module, "keep")
    assert "what LBFGS remembers is of a site's own last weights" in problem
    with pytest.raises(UserError, match="what LBFGS remembers"):
        fitted(module, 3, keeps=True)
    fitted(made(optimizer=torch.optim.LBFGS), 3)


# The statistics of a batch.

NORMS = {
    "BatchNorm1d": (lambda: torch.nn.BatchNorm1d(2), [4, 4]),
    "none": (torch.nn.ReLU, [4, 4, 1]),
    "LayerNorm": (lambda: torch.nn.LayerNorm(2), [4, 4, 1]),
    "SyncBatchNorm": (lambda: torch.nn.SyncBatchNorm(2), [4, 4]),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_last_batch_of_one_row_is_dropped_where_the_statistics_of_a_batch_are_used(name):
    make, sizes = NORMS[name]
    found = without_single(made(make()).train(), rows(9))
    assert [len(batch[0]) for batch in found] == sizes
    assert len(found) == len(sizes)


@pytest.mark.parametrize(("number", "sizes"), [(10, [4, 4, 2]), (12, [4, 4, 4]), (1, [1])])
def test_other_last_batches_stay(number, sizes):
    found = without_single(made(torch.nn.BatchNorm1d(2)).train(), rows(number))
    assert [len(batch[0]) for batch in found] == sizes


def test_a_norm_that_is_frozen_uses_no_batchs_statistics():
    module = made(torch.nn.BatchNorm1d(2)).train()
    module.net[1].eval()
    assert len(without_single(module, rows(9))) == 3


def test_rows_come_in_the_same_order_with_and_without_the_last():
    def drawn(*norms: torch.nn.Module) -> list[list[float]]:
        torch.manual_seed(3)
        return [batch[1].flatten().tolist() for batch in without_single(made(*norms).train(), rows(9, shuffle=True))]

    torch.manual_seed(3)
    assert drawn(torch.nn.BatchNorm1d(2)) == drawn()[:2]


def test_rows_that_cannot_be_counted_are_left_as_they_are():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(())

    loader = DataLoader(Endless(), batch_size=4)
    assert without_single(made(torch.nn.BatchNorm1d(2)).train(), loader) is loader


NORMED = """
import torch
from acme.parts import Model


class Normed(Model):
    def __init__(self, optimizer, width=2):
        super().__init__(optimizer, width)
        self.linear = torch.nn.Sequential(OrderedDict(norm=torch.nn.BatchNorm1d(2), linear=self.linear))
"""


@pytest.mark.parametrize("federation", ["inprocess", "none"])
def test_a_study_with_batch_norm_trains_on_a_site_whose_last_batch_has_one_row(acme, federation, tmp_path):
    text = NORMED.replace("OrderedDict(", "__import__('collections').OrderedDict(")
    (acme.packages / "acme" / "normed.py").write_text(text)
    site = ["~sites.north", "federation=" + federation, "strategy.rounds=2", "trainer.steps=null", "trainer.epochs=1"]
    arguments = ["experiment=acme", "model._target_=acme.normed.Normed", *site]
    study = compose_study(*arguments, config_dir=acme.conf)
    silo = Silo("south", replace(study.sites["south"], secret="simulated"), tmp_path / "own")
    rows = silo.answer(Task("r", "study", 0, "statistics", {}, {}, {}, study.manifest_text)).metrics["train"]
    arguments.append(f"dataset.batch_size={int(rows) - 1}")
    result = execute(compose_study(*arguments, config_dir=acme.conf), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
