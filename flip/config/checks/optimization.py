"""Whether the steps of a module's training can be counted and taken up again: one optimizer, stepped by Lightning."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flip.config.schema import OptimizerState
from flip.config.study import Manifest

if TYPE_CHECKING:
    import torch
    from pytorch_lightning import LightningModule

    from flip.contracts.model import TrainableModule


KEEPS_NOTHING = (
    "trainer.optimizer_state=keep: what {} remembers is of a site's own last weights, not of the shared ones that a "
    "round begins with; choose reset, or another optimizer"
)


def unfit_optimization(module: "LightningModule") -> str:
    """Why a round cannot count a module's steps; empty where it can."""
    if module.automatic_optimization:
        return ""
    return (
        f"model: {type(module).__name__} steps its optimizers by hand (automatic_optimization is False), so that a "
        "round could not count its steps; let training_step return the loss"
    )


def optimization(manifest: Manifest, module: "TrainableModule") -> Iterator[str]:
    """What is wrong with how the study's module is trained in rounds, and kept between them."""
    import torch

    if reason := unfit_optimization(module):
        yield reason
        return
    keep = manifest["trainer"]["optimizer_state"] == OptimizerState.keep.value
    try:
        optimizers = optimizers_of(module.configure_optimizers())
    except Exception as error:  # whatever it raises is the cause to be named
        if "not attached to a `Trainer`" not in str(error):  # which only a fit has
            yield f"model: configure_optimizers of {type(module).__name__} raised {type(error).__name__}: {error}"
        return
    if len(optimizers) != 1:
        found = f"{len(optimizers)} optimizers" if optimizers else "no optimizer"
        yield f"model: configure_optimizers of {type(module).__name__} gives {found}; a round steps one"
    elif keep and isinstance(optimizers[0], torch.optim.LBFGS):
        yield KEEPS_NOTHING.format(type(optimizers[0]).__name__)


def optimizers_of(configured: object) -> "list[torch.optim.Optimizer]":
    """The optimizers in what `configure_optimizers` returned, in any of Lightning's forms."""
    import torch

    if isinstance(configured, torch.optim.Optimizer):
        return [configured]
    if isinstance(configured, Mapping):
        return optimizers_of(configured.get("optimizer"))
    if isinstance(configured, list | tuple):
        if len(configured) == 2 and all(isinstance(each, list) for each in configured):  # optimizers, schedulers
            return optimizers_of(configured[0])
        return [optimizer for each in configured for optimizer in optimizers_of(each)]
    return []
