"""A round's fits and evaluations as a plain loop: Lightning's arithmetic to the bit, without what it does around it.

Lightning's Trainer costs more than a step of a small model: hooks, progress, results for loggers. A round has no
logger, no checkpoint and no callback but the engine's own, so the steps of a LightningModule are called here in the
Trainer's order: batch, `training_step`, `zero_grad`, backward, the engine's correction, clipping, optimizer,
schedulers. What needs more of Lightning (`flip.site.needs_trainer`) keeps the Trainer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule


class Fit(Protocol):
    """What the engine does in a fit besides training."""

    def start(
        self,
        module: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedules: Sequence[LRSchedulerConfig],
    ) -> None:
        """The optimizers and their schedules are made."""

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradients are made."""

    def batch_done(self, batch: object, outputs: object) -> None:
        """A batch was trained on; `outputs` holds its `loss`, divided by the batches of a step."""

    def end(self, optimizers: Sequence[torch.optim.Optimizer], schedules: Sequence[LRSchedulerConfig]) -> None:
        """The last step was done."""


@dataclass(frozen=True)
class Settings:
    """How a Trainer fits: precision, batches of a step, and clipping (at 0 none)."""

    precision: Precision
    accumulate: int
    clip: float
    clip_by: GradClipAlgorithmType


def settings_of(trainer: lightning.Trainer) -> Settings | None:
    """What a Trainer would do; None where that is not done here.

    These are another processor than the CPU, a precision that changes the module itself or scales the loss, and
    anomaly detection.
    """
    precision: Any = trainer.precision_plugin
    plain = type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None)
    if trainer.strategy.root_device.type != "cpu" or not plain or trainer._detect_anomaly:
        return None
    clip_by = trainer.gradient_clip_algorithm or GradClipAlgorithmType.NORM
    return Settings(precision, trainer.accumulate_grad_batches, trainer.gradient_clip_val or 0.0, clip_by)


def configured(module: lightning.LightningModule) -> tuple[torch.optim.Optimizer, list[LRSchedulerConfig]] | None:
    """The one optimizer of a module with its schedulers; None for what only a Trainer understands.

    A scheduler that waits for a metric (`ReduceLROnPlateau`) is such, since metrics are logged to a Trainer.
    """
    made: Any = module.configure_optimizers()
    schedulers: Any = []
    if isinstance(made, Mapping) and set(made) <= {"optimizer", "lr_scheduler"}:
        schedulers, made = [made["lr_scheduler"]] if "lr_scheduler" in made else [], made["optimizer"]
    elif isinstance(made, list | tuple) and len(made) == 2 and isinstance(made[0], list) and isinstance(made[1], list):
        made, schedulers = made
    if isinstance(made, list | tuple) and len(made) == 1:
        made = made[0]
    known = {"scheduler", "interval", "frequency", "name"}
    entries = [dict(each) if isinstance(each, Mapping) else {"scheduler": each} for each in schedulers]
    if not isinstance(made, torch.optim.Optimizer) or any(set(each) - known for each in entries):
        return None
    configs = [LRSchedulerConfig(**each) for each in entries]
    if any(
        not isinstance(each.scheduler, LRScheduler)
        or isinstance(each.scheduler, ReduceLROnPlateau)
        or each.scheduler.optimizer is not made
        or each.interval not in ("step", "epoch")
        for each in configs
    ):
        return None
    return made, configs


class PlainFit:
    """One fit of a module.

    Args:
        module: the LightningModule, in training mode.
        optimizer: its optimizer.
        schedulers: its learning rate schedulers.
        settings: what the Trainer would do.
        fit: what the engine does besides.
    """

    def __init__(
        self,
        module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
        schedulers: list[LRSchedulerConfig],
        *,
        settings: Settings,
        fit: Fit,
    ) -> None:
        self.module, self.optimizer, self.schedulers = module, optimizer, schedulers
        self.settings, self.fit = settings, fit
        self.step = step_of(module, "training_step")
        self.outputs: dict[str, Any] = {}

    def run(self, loader: "Loader", steps: int) -> None:
        """Pass over the loader until so many optimizer steps are done."""
        with unlogged(self.module):
            self.module.zero_grad()
            self.fit.start(self.module, [self.optimizer], self.schedulers)
            self._passes(loader, steps)
            self.fit.end([self.optimizer], self.schedulers)

    def _passes(self, loader: "Loader", steps: int) -> None:
        done, epoch, length, every = 0, 0, len(loader), self.settings.accumulate
        while True:
            for index, batch in enumerate(islice(loader, length)):
                last = index + 1 == length
                stepping = last or (index + 1) % every == 0
                self.outputs = {}
                if batch is not None:
                    backward = partial(self._backward, batch, index)
                    if stepping:
                        self.optimizer.step(closure=partial(self._closure, backward))  # type: ignore[arg-type]
                        done += 1
                    else:
                        backward()
                self._schedule(index, epoch, stepping=stepping, last=last)
                self.fit.batch_done(batch, self.outputs)
                if done == steps:
                    return
            epoch += 1

    def _backward(self, batch: object, index: int) -> torch.Tensor | None:
        """The loss of a batch, its gradients added up since the last step; a step may return no loss."""
        with self.settings.precision.forward_context():
            output = self.step(batch, index)
        extra = {key: value for key, value in output.items() if key != "loss"} if isinstance(output, Mapping) else {}
        loss = output["loss"] if isinstance(output, Mapping) else output
        if loss is not None:
            loss = loss / self.settings.accumulate
            self.outputs = {"loss": loss.detach().clone(), **extra}
        if index % self.settings.accumulate == 0:
            self.optimizer.zero_grad()
        if loss is not None:
            loss.backward()
        return self.outputs.get("loss")

    @torch.enable_grad()
    def _closure(self, backward: Callable[[], torch.Tensor | None]) -> torch.Tensor | None:
        """What the optimizer calls for its gradients."""
        loss = backward()
        self.fit.before_step(self.optimizer)
        if self.settings.clip > 0:
            self.settings.precision.clip_gradients(self.optimizer, self.settings.clip, self.settings.clip_by)
        return loss

    def _schedule(self, index: int, epoch: int, *, stepping: bool, last: bool) -> None:
        """Step the schedulers whose time has come."""
        for config in self.schedulers:
            due, count = (stepping, index + 1) if config.interval == "step" else (last, epoch + 1)
            if due and count % config.frequency == 0:
                config.scheduler.step()  # type: ignore[call-arg] # never ReduceLROnPlateau: `configured`


class Scoring(Protocol):
    """What the engine does in an evaluation besides calling the module's step."""

    def batch_done(self, batch: object) -> None:
        """A batch was scored."""

    def epoch_done(self, module: "TrainableModule", split: str) -> None:
        """All were; the module has not yet computed and reset its metrics."""


def score_batches(
    module: "TrainableModule", loader: "Loader", *, split: str, precision: Precision, scoring: Scoring
) -> None:
    """Score a module on the batches of a loader, by its `validation_step` or, of the split "test", `test_step`."""
    name = "test" if split == "test" else "validation"
    step, modes = step_of(module, f"{name}_step"), [(each, each.training) for each in module.modules()]
    module.zero_grad()
    module.eval()
    with unlogged(module), torch.inference_mode():
        for index, batch in enumerate(islice(loader, len(loader))):
            with precision.forward_context():
                step(batch, index)
            scoring.batch_done(batch)
        scoring.epoch_done(module, split)
        getattr(module, f"on_{name}_epoch_end")()
    for each, mode in modes:
        each.training = mode


def step_of(module: lightning.LightningModule, name: str) -> Callable[[object, int], Any]:
    """A step of a module, called with a batch and its number whether it wants the number or not."""
    step = getattr(module, name)
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        return partial(step)
    return lambda batch, _: step(batch)


@contextmanager
def unlogged(module: lightning.LightningModule) -> Iterator[None]:
    """Nothing listens to what a module logs meanwhile; a metric that it logs is reset afterwards, as a Trainer does."""
    metrics: list[Metric] = []

    def ignore(named: object, value: object = None, *_: object, **__: object) -> None:
        values = named.values() if isinstance(named, Mapping) else [value]
        metrics.extend(each for each in values if isinstance(each, Metric))

    for name in ("log", "log_dict"):
        setattr(module, name, ignore)
    try:
        yield
    finally:
        del module.log, module.log_dict
        for metric in {id(each): each for each in metrics}.values():
            metric.reset()
