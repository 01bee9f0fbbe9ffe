"""Fits by Lightning for a site's round, and the Trainer of every fit and evaluation."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch.utils.hooks import RemovableHandle

from flip.config.checks.optimization import unfit_optimization
from flip.errors import UserError
from flip.messages.weights import plain_name
from flip.site.environment import without_arguments
from flip.site.needs_trainer import countable, needs_trainer
from flip.site.optimizer_state import innermost, kept, put_back, refuse_still
from flip.site.persons import Drawn
from flip.site.plain_loop import PlainFit, Settings, configured, settings_of

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader

Hook = Callable[[Mapping[str, torch.nn.Parameter]], None]
# What Lightning says of every tiny fit (few batches, few workers, no validation loop), thousands of times in a run.
NOISE = (
    ".*does not have many workers.*",
    ".*The number of training batches.*",
    ".*val_dataloader.*",
    ".*validation_step.*",
    ".*LeafSpec.*",
    ".*Checkpoint directory.*",
    ".*`training_step` returned `None`.*",
)
_SETTINGS: dict[str, Settings | None] = {}  # by device, in one process


@dataclass(frozen=True)
class Device:
    """Where and how precisely a site computes; `settings` are the study's own arguments of Lightning's Trainer.

    `devices` train, a process each (`flip.site.devices`); `index` is the one of this process, None for the first.
    """

    accelerator: str
    precision: str | None
    settings: Mapping[str, Any]
    devices: int = 1
    index: int | None = None

    @property
    def accumulate(self) -> int:
        """Batches of one optimizer step."""
        return int(self.settings.get("accumulate_grad_batches", 1))

    @property
    def which(self) -> int | list[int]:
        """Of which device of the accelerator this process makes use, as Lightning is told it."""
        return 1 if self.index is None else [self.index]

    def trainer(self, **arguments: Any) -> lightning.Trainer:
        """A quiet Trainer on one device, which the environment does not change.

        Lightning would take arguments from PL_TRAINER_..., and processes from what SLURM, torchrun and others set.
        """
        quiet()
        merged: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        merged |= {"accelerator": self.accelerator, "devices": self.which, "num_sanity_val_steps": 0, **self.settings}
        if self.precision is not None:
            merged["precision"] = self.precision
        merged["plugins"] = [LightningEnvironment()]  # no other is looked for
        with without_arguments():
            return lightning.Trainer(**(merged | arguments))

    def plain_settings(self) -> Settings | None:
        """How the plain loop does what this device's Trainer would do; None where it does not.

        Remembered, since building a Trainer takes longer than a short fit.
        """
        key = repr((self.accelerator, self.precision, sorted(self.settings.items())))
        if key not in _SETTINGS:
            _SETTINGS[key] = settings_of(self.trainer())
        return _SETTINGS[key]


def quiet() -> None:
    """Keep Lightning's advice on every small fit out of the logs; its errors stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)


class RoundCallback(lightning.Callback):
    """One local fit as the strategy sees it: gradient correction, optimizer state, learning rate, loss, persons.

    Args:
        correct: changes the gradients before a step; None leaves them.
        keeps: whether the next round goes on from this one's optimizer and schedulers.
        before: what they were at the end of the round before; None begins anew.
        passes: whole passes over the data that a round makes, at the end of which a schedule by pass moves.

    Attributes:
        accumulate: batches of a step, by which a loss comes divided.
        optimizer_arrays: what the next round goes on from.
    """

    def __init__(
        self,
        correct: Hook | None = None,
        *,
        keeps: bool = False,
        before: Mapping[str, np.ndarray] | None = None,
        passes: int = 1,
    ) -> None:
        self.correct, self.keeps, self.before, self.passes = correct, keeps, before, passes
        self.accumulate, self.learning_rate = 1, float("nan")
        self.loss: torch.Tensor | float = 0.0
        self.batches, self.drawn, self.behind_loss = 0, Drawn(), Drawn()
        self.optimizer_arrays: dict[str, np.ndarray] = {}
        self._handles: list[RemovableHandle] = []
        self._parameters: dict[str, torch.nn.Parameter] = {}

    def start(
        self,
        module: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedules: Sequence[LRSchedulerConfig],
    ) -> None:
        """Load what optimizer and schedulers kept; under Opacus, hook the correction onto the innermost optimizer.

        Opacus writes the gradients inside its own step, so there the correction is a pre-hook of the optimizer that it
        wraps. Without Opacus torch calls a pre-hook before the closure has made the gradients: there `before_step`
        corrects them.
        """
        named = {plain_name(name): parameter for name, parameter in module.named_parameters()}
        self._parameters = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        inner = [innermost(optimizer) for optimizer in optimizers]
        if self.before is not None:
            put_back(inner[0], [each.scheduler for each in schedules], self.before)
        if self.keeps:
            refuse_still(schedules, self.passes)
        self.learning_rate = float(inner[0].param_groups[0]["lr"])
        for outer, optimizer in zip(optimizers, inner, strict=True):
            if self.correct is not None and optimizer is not outer:
                self._handles.append(optimizer.register_step_pre_hook(self._correct))

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Correct the gradients of a plain optimizer."""
        if self.correct is not None and innermost(optimizer) is optimizer:
            self.correct(self._parameters)

    def _correct(self, *_: object) -> None:
        if self.correct is not None:
            self.correct(self._parameters)

    def batch_done(self, batch: object, outputs: object) -> None:
        """Add the batch's loss, and whose it is."""
        self.drawn.add(batch)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and bool(torch.isfinite(loss)):
            self.loss, self.batches = self.loss + loss, self.batches + 1
            self.behind_loss.add(batch)

    def end(self, optimizers: Sequence[torch.optim.Optimizer], schedules: Sequence[LRSchedulerConfig]) -> None:
        """Keep the state of optimizer and schedulers, and take the hooks off again."""
        if self.keeps:
            self.optimizer_arrays = kept(innermost(optimizers[0]), [each.scheduler for each in schedules])
        for handle in self._handles:
            handle.remove()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """`start`, as Lightning calls it."""
        self.start(pl_module, trainer.optimizers, trainer.lr_scheduler_configs)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """`before_step`, as Lightning calls it."""
        self.before_step(optimizer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """`batch_done`, as Lightning calls it."""
        self.batch_done(batch, outputs)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """`end`, as Lightning calls it."""
        self.end(trainer.optimizers, trainer.lr_scheduler_configs)

    @property
    def mean_loss(self) -> float:
        """Mean loss over the batches of the fit, undivided."""
        return float(self.loss) * self.accumulate / self.batches if self.batches else float("nan")


def fit_round(
    module: lightning.LightningModule, loader: "Loader", *, steps: int, device: Device, callback: RoundCallback
) -> None:
    """Train for a number of optimizer steps: by the plain loop, or by Lightning's Trainer where it needs that.

    Raises UserError for a module whose steps cannot be counted.
    """
    if reason := unfit_optimization(module):
        raise UserError(reason)
    module.train()
    callback.accumulate = device.accumulate
    settings = device.plain_settings() if countable(loader) and steps > 0 and not needs_trainer(module) else None
    made = configured(module) if settings is not None else None
    if settings is not None and made is not None:
        PlainFit(module, *made, settings=settings, fit=callback).run(loader, steps)
        return
    trainer = device.trainer(max_steps=steps, max_epochs=-1, limit_val_batches=0, callbacks=[callback])
    trainer.fit(module, train_dataloaders=loader)


def updates(loader: "Loader", device: Device, *, steps: int | None, epochs: int | None) -> int:
    """Optimizer steps of one fit: as declared, or so many passes over the loader."""
    if steps is not None:
        return steps
    return (epochs or 1) * -(-len(loader) // device.accumulate)


def passes(loader: "Loader", device: Device, steps: int) -> int:
    """Whole passes over the loader in so many optimizer steps; 1 where they cannot be counted."""
    return steps // -(-len(loader) // device.accumulate) if countable(loader) else 1
