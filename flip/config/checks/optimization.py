"""Whether the steps of a module's training can be counted and taken up again: one optimizer, stepped by Lightning."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flip.config.schema import OptimizerState
from flip.config.study import Manifest
from flip.errors import UserError
from flip.strategies.fedavg import FedAvg

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


def optimization(manifest: Manifest, module: "TrainableModule", strategy: FedAvg) -> Iterator[str]:
    """What is wrong with how the study's module is trained in rounds, and kept between them."""
    import torch

    if reason := unfit_optimization(module):
        yield reason
        return
    problems: list[str] = []
    made = configured(manifest, module, problems)
    yield from problems
    if made is None:
        return
    optimizers, scheduled = made
    keep = manifest["trainer"]["optimizer_state"] == OptimizerState.keep.value
    if len(optimizers) != 1:
        found = f"{len(optimizers)} optimizers" if optimizers else "no optimizer"
        yield f"model: configure_optimizers of {type(module).__name__} gives {found}; a round steps one"
        return
    if keep and isinstance(optimizers[0], torch.optim.LBFGS):
        yield KEEPS_NOTHING.format(type(optimizers[0]).__name__)
    try:
        strategy.suits(optimizers[0], scheduled=scheduled)
    except UserError as error:
        yield from error.problems


def configured(
    manifest: Manifest, module: "TrainableModule", problems: list[str], *, centralized: bool = False
) -> "tuple[list[torch.optim.Optimizer], bool] | None":
    """The optimizers of a module, and whether their learning rates have a schedule; None where only a fit has them.

    What the optimizer's class refuses (a learning rate below 0) goes to `problems`.
    """
    own = centralized and manifest["trainer"]["centralized"]["optimizer"]
    key = "trainer.centralized.optimizer" if own else "model.optimizer"
    key = key if own or "optimizer" in manifest["model"] else "model"
    try:
        made = module.configure_optimizers()
    except Exception as error:  # whatever it raises is the cause to be named
        if "not attached to a `Trainer`" not in str(error):  # which only a fit has
            name = type(module).__name__
            problems.append(f"{key}: configure_optimizers of {name} raised {type(error).__name__}: {error}")
        return None
    optimizers, changes = optimizers_of(made), scheduled(made)
    rates = [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups if "lr" in group]
    if rates and not any(rates) and not changes:
        problems.append(f"{key}: the learning rate is 0, so that training would change nothing; give one above 0")
    return optimizers, changes


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


def scheduled(configured: object) -> bool:
    """Whether a learning rate has a schedule, in what `configure_optimizers` returned."""
    if isinstance(configured, Mapping):
        return bool(configured.get("lr_scheduler"))
    if isinstance(configured, list | tuple) and len(configured) == 2:
        return all(isinstance(each, list) for each in configured) and bool(configured[1])
    return False
