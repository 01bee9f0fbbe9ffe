"""The plain loop trains and scores to the bit as Lightning's Trainer does, and leaves to that what it does not do."""

import copy
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch.optim.lr_scheduler import CyclicLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, SumMetric

from flip.cli.execute import execute
from flip.files import conf_folder
from flip.site import evaluate as evaluation
from flip.site import trainer as training
from flip.site.evaluate import evaluate
from flip.site.needs_trainer import needs_trainer
from flip.site.trainer import Device, RoundCallback, fit_round
from tests.cohorts.heart import write_tiny_heart
from tests.cohorts.studies import TINY
from tests.studies import compose_study, tiny_heart_study

CPU = Device("cpu", None, {})


@pytest.fixture
def by_trainer(monkeypatch):
    """From the call on, Lightning's Trainer does what the plain loop would; until then it must not."""

    def use() -> None:
        monkeypatch.undo()
        for module in (training, evaluation):
            monkeypatch.setattr(module, "needs_trainer", lambda _: "is compared")

    for name in ("fit", "validate", "test"):
        monkeypatch.setattr(lightning.Trainer, name, lambda *_, **__: pytest.fail("the plain loop was not taken"))
    return use


# Whole studies.


def same_study(study: Any, folder: Any, by_trainer: Any) -> None:
    """A study has the same weights and metrics in both ways."""
    plainly = execute(study, folder / "plain")
    assert plainly["status"] == "ok", plainly["reason"]
    by_trainer()
    lightnings = execute(study, folder / "trainer")
    assert (lightnings["digest"], lightnings["metrics"]) == (plainly["digest"], plainly["metrics"])


def quick(names: Any, *fast: Any) -> list[Any]:
    """Each as a parameter; all but these are slow, since each trains a study twice."""
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", quick(sorted(TINY), "heart_disease"))
def test_every_experiment_has_the_same_weights_and_metrics(experiment, tmp_path, by_trainer):
    tiny = TINY[experiment](tmp_path / "data")
    strategy = "fedbn" if experiment == "sarcopenia" else "fedavg"  # its network has norm layers that stay at the site
    overrides = ["federation=inprocess", f"strategy={strategy}", "strategy.rounds=2"]
    same_study(compose_study(f"experiment={experiment}", *tiny, *overrides), tmp_path, by_trainer)


STRATEGIES = sorted({path.stem for path in (conf_folder() / "strategy").glob("*.yaml")} - {"fedbn"})
WAYS = [
    *([f"strategy={name}"] for name in STRATEGIES),
    ["privacy=dp_sgd"],
    ["privacy=dp_sgd", "strategy=scaffold"],
    ["trainer.optimizer_state=keep", "model.optimizer._target_=torch.optim.Adam"],
    ["trainer.lightning.accumulate_grad_batches=3"],
    ["trainer.lightning.accumulate_grad_batches=2", "trainer.steps=null", "trainer.epochs=2"],
    ["trainer.lightning.gradient_clip_val=0.1"],
    ["trainer.lightning.gradient_clip_val=0.01", "trainer.lightning.gradient_clip_algorithm=value"],
    ["trainer.lightning.precision=bf16-mixed"],
    ["trainer.lightning.precision=16-mixed"],
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", quick(WAYS, ["strategy=scaffold"]), ids=" ".join)
def test_every_way_to_train_has_the_same_weights_and_metrics(overrides, tmp_path, by_trainer):
    data = write_tiny_heart(tmp_path / "data")
    same_study(tiny_heart_study(data, "federation=inprocess", *overrides), tmp_path, by_trainer)


# One module.


class Module(lightning.LightningModule):
    """A linear model with dropout; `make` makes its optimizer."""

    make: Any = staticmethod(lambda parameters: torch.optim.Adam(parameters, lr=0.05))

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.metrics = torch.nn.ModuleDict({"loss": MeanMetric()})

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.metrics["loss"].update(self.training_step(batch, batch_idx), weight=len(batch[0]))

    def on_validation_epoch_end(self):
        self.log("val/loss", self.metrics["loss"].compute())

    def configure_optimizers(self):
        return self.make(self.parameters())


def loader(**settings: Any) -> Any:
    """Eleven rows in batches of 3, drawn by torch's generator."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(11, width, generator=generator) for width in (3, 1)]
    return DataLoader(TensorDataset(*rows), **({"batch_size": 3, "shuffle": True} | settings))


def seeded(kind: Any) -> Any:
    """A module with its weights by seed."""
    torch.manual_seed(0)
    return kind()


def fitted(module: Any, device: Device = CPU, *, steps: int = 7, batches: Any = None) -> tuple[Any, ...]:
    """Weights, optimizer state, loss and learning rate after a fit."""
    callback = RoundCallback()
    torch.manual_seed(5)
    fit_round(module, batches() if batches else loader(), steps=steps, device=device, callback=callback)
    weights = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
    state = {name: array.tolist() for name, array in callback.optimizer_arrays.items()}
    return weights, state, callback.mean_loss, callback.learning_rate, torch.rand(1).item()


def same_fit(module: Any, by_trainer: Any, **settings: Any) -> None:
    """A module ends with the same weights, optimizer state, loss and generator in both ways."""
    other = copy.deepcopy(module)
    found = fitted(module, **settings)
    by_trainer()
    assert fitted(other, **settings) == found


def scheduled(make: Any, **entry: Any) -> Any:
    """A module whose learning rate is scheduled."""

    class Scheduled(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer), **entry}}

    return Scheduled


SCHEDULES = [{"interval": "step"}, {"interval": "step", "frequency": 3}, {"interval": "epoch"}, {"frequency": 2}]


@pytest.mark.parametrize("entry", SCHEDULES, ids=str)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_schedulers_step_when_the_trainer_steps_them(entry, accumulate, by_trainer):
    module = seeded(scheduled(lambda optimizer: StepLR(optimizer, 1, gamma=0.7), **entry))
    same_fit(module, by_trainer, steps=17, device=Device("cpu", None, {"accumulate_grad_batches": accumulate}))


def test_a_scheduler_that_moves_momentum_too_has_the_same_effect(by_trainer):
    make = lambda optimizer: CyclicLR(optimizer, 0.01, 0.1, step_size_up=2, cycle_momentum=False)  # noqa: E731
    same_fit(seeded(scheduled(make, interval="step")), by_trainer)


@pytest.mark.parametrize(
    ("entry", "said"),
    [({"monitor": "loss"}, "conditioned on metric loss"), ({}, "must include a monitor")],
    ids=["a metric", "no metric"],
)
def test_a_scheduler_that_waits_for_a_metric_keeps_the_trainer(entry, said):
    with pytest.raises(Exception, match=said):
        fitted(seeded(scheduled(ReduceLROnPlateau, **entry)))


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: [torch.optim.SGD(parameters, lr=0.1)],
        lambda parameters: {"optimizer": torch.optim.AdamW(parameters)},
        lambda parameters: ([o := torch.optim.SGD(parameters, lr=0.1)], [StepLR(o, 1)]),
    ],
    ids=["a list", "a dict", "two lists"],
)
def test_what_configures_an_optimizer_is_understood(make, by_trainer):
    kind = type("Own", (Module,), {"make": staticmethod(make)})
    same_fit(seeded(kind), by_trainer)


def returns(make: Any) -> Any:
    """A module whose training step returns what `make` makes of its loss and the number of the batch."""

    class Returns(Module):
        def training_step(self, batch, batch_idx):
            return make(super().training_step(batch, batch_idx), batch_idx)

    return Returns


@pytest.mark.parametrize(
    "make",
    [
        lambda loss, index: {"loss": loss, "more": 1},
        lambda loss, index: None if index % 2 else loss,
        lambda loss, index: loss * float("nan") if index == 1 else loss,
    ],
    ids=["a dict", "nothing", "not a number"],
)
def test_what_a_training_step_returns_is_taken_as_the_trainer_takes_it(make, by_trainer):
    module = seeded(returns(make))
    other = copy.deepcopy(module)
    found = fitted(module)
    by_trainer()
    assert repr(fitted(other)) == repr(found)


def test_a_training_step_may_leave_the_batchs_number_out(by_trainer):
    class Short(Module):
        def training_step(self, batch):
            return super().training_step(batch, 0)

    same_fit(seeded(Short), by_trainer)


def test_a_loader_with_workers_draws_the_same(by_trainer):
    same_fit(seeded(Module), by_trainer, batches=lambda: loader(num_workers=1, persistent_workers=True))


def test_a_batch_that_is_none_is_passed_over(by_trainer):
    collate = torch.utils.data.default_collate
    batches = loader(shuffle=False, collate_fn=lambda rows: None if len(rows) == 2 else collate(rows))
    same_fit(seeded(Module), by_trainer, batches=lambda: batches)


def test_an_evaluation_has_the_same_scores_and_leaves_the_module_in_its_mode(by_trainer):
    module = seeded(Module).train()
    module.net[1].eval()
    torch.manual_seed(0)
    found = evaluate(module, loader(), split="validate", device=CPU)
    assert (module.training, module.net[1].training, module._trainer) == (True, False, None)
    assert not module.metrics["loss"].update_called
    by_trainer()
    torch.manual_seed(0)
    assert evaluate(module, loader(), split="validate", device=CPU) == found


def test_a_metric_that_is_logged_is_reset_after_the_fit(by_trainer):
    class Logs(Module):
        def __init__(self):
            super().__init__()
            self.seen = SumMetric()

        def training_step(self, batch, batch_idx):
            self.seen.update(len(batch[0]))
            self.log("seen", self.seen)
            self.log_dict({"twice": self.seen})
            return super().training_step(batch, batch_idx)

    module = seeded(Logs)
    fitted(module)
    assert not module.seen.update_called
    assert module.log.__func__ is lightning.LightningModule.log


# Who keeps the Trainer.


def with_method(name: str, method: Any) -> Any:
    return type("Own", (Module,), {name: method})


class Aged:
    """A base that comes after Lightning's in the order of bases."""

    def age(self) -> Any:
        return self.current_epoch  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (with_method("on_train_batch_start", lambda self, batch, batch_idx: None), "overrides on_train_batch_start"),
        (with_method("transfer_batch_to_device", lambda self, batch, *_: batch), "overrides transfer_batch_to_device"),
        (with_method("setup", lambda self, stage: None), "overrides setup"),
        (with_method("log", lambda self, *_: None), "overrides log"),
        (with_method("backward", lambda self, loss: loss.backward()), "overrides backward"),
        (with_method("configure_callbacks", lambda self: []), "overrides configure_callbacks"),
        (with_method("rate", property(lambda self: self.trainer.max_steps)), "reads trainer in rate"),
        (with_method("age", lambda self: [self.current_epoch for _ in "ab"]), "reads current_epoch in age"),
        (type("Own", (Module, Aged), {}), "reads current_epoch in age"),
        (with_method("automatic_optimization", False), "optimizes by hand"),
        (with_method("on_predict_start", lambda self: None), ""),
        (with_method("helper", lambda self: print("trainer")), ""),
        (Module, ""),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_module_that_needs_the_trainer_says_why(kind, reason):
    assert needs_trainer(kind()) == reason


def test_a_hook_that_is_set_on_the_module_itself_keeps_the_trainer():
    module = Module()
    module.on_train_start = lambda: None
    assert needs_trainer(module) == "has its own on_train_start"


def test_a_module_inside_keeps_the_trainer_for_all():
    module = Module()
    module.inner = with_method("age", lambda self: self.global_step)()
    assert needs_trainer(module) == "reads global_step in age"


def test_a_hook_of_the_modules_own_is_called_in_a_round():
    called = []
    fitted(seeded(with_method("on_train_epoch_end", lambda self: called.append(1))))
    assert called


@pytest.mark.parametrize("settings", [{"detect_anomaly": True}, {"precision": "64-true"}, {"precision": "bf16-true"}])
def test_what_changes_more_than_the_arithmetic_of_a_step_keeps_the_trainer(settings):
    assert Device("cpu", None, settings).plain_settings() is None


def test_a_sampler_with_epochs_of_its_own_keeps_the_trainer():
    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch):
            self.epoch = epoch

    rows, module = loader().dataset, seeded(Module)
    fitted(module, batches=lambda: DataLoader(rows, batch_size=3, sampler=Sampler(rows)))
    assert module._trainer is not None


def test_an_interrupt_in_a_fit_is_an_interrupt():
    class Interrupted(Module):
        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    module = seeded(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(module)
    assert "log" not in vars(module)
