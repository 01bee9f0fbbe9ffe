"""Training without federation by Lightning: passes over the data, with the study's callbacks and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as lightning

from flip.errors import StudyUnfit
from flip.site.batches import without_single
from flip.site.persons import Drawn
from flip.site.trainer import Device, RoundCallback

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader, Split


@dataclass(frozen=True)
class CentralizedFit:
    """How to train without federation (`trainer.centralized`).

    `record` is told of each pass: its number, examples, training and validation metrics.
    """

    max_epochs: int
    resume: str | None
    callbacks: Sequence[lightning.Callback]
    folder: Path
    record: Callable[[int, int, Mapping[str, float], Mapping[str, float]], None] = lambda *_: None


class EpochCallback(RoundCallback):
    """Tells of each pass over the data: mean training loss, and what the module logged in validation."""

    def __init__(self, how: CentralizedFit) -> None:
        super().__init__()
        self.how = how

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start a new mean."""
        self.loss, self.batches, self.behind_loss = 0.0, 0, Drawn()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validation ran inside the epoch, so its metrics are there."""
        logged = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        loader: Any = trainer.train_dataloader
        self.how.record(trainer.current_epoch, len(loader.dataset), {"loss": self.mean_loss}, logged)


def fit_centralized(
    module: lightning.LightningModule,
    train: "Loader | None",
    validate: "Split | None",
    *,
    device: Device,
    how: CentralizedFit,
) -> RoundCallback:
    """Train for so many passes over the data; returns the mean training loss of the last, and the persons of all.

    Checkpoints, early stopping and resume are Lightning's own: `trainer.callbacks`, `resume_from`. Raises StudyUnfit
    where one of them watches validation data and there are none.
    """
    watched = sorted({str(getattr(callback, "monitor", "")) for callback in how.callbacks} - {"", "None"})
    if not validate and (of_validation := [name for name in watched if name.startswith("val/")]):
        raise StudyUnfit(
            f"trainer.callbacks: {of_validation[0]} is watched, and there are no validation data; declare a validation "
            "split, or leave the callback out"
        )
    module.train()
    train = None if train is None else without_single(module, train)
    losses = EpochCallback(how)
    losses.accumulate = device.accumulate
    checkpoints = any(isinstance(callback, lightning.callbacks.Checkpoint) for callback in how.callbacks)
    trainer = device.trainer(
        max_epochs=how.max_epochs,
        callbacks=[*how.callbacks, losses],
        default_root_dir=str(how.folder),
        enable_checkpointing=checkpoints,
    )
    trainer.fit(module, train_dataloaders=train, val_dataloaders=validate, ckpt_path=how.resume, weights_only=True)
    return losses
