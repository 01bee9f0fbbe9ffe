"""What goes on between rounds with `trainer.optimizer_state: keep`: an optimizer's moments, its schedulers' place."""

import io
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import LRScheduler

from flip.config.checks.optimization import KEEPS_NOTHING
from flip.errors import UserError

SETTINGS = "settings"  # the one array that is no `parameter/entry`: learning rates and schedulers, as torch saves them


@runtime_checkable
class WrapsOptimizer(Protocol):
    """An optimizer of Opacus."""

    original_optimizer: torch.optim.Optimizer


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that writes the parameters, inside whatever Opacus has put around it."""
    while isinstance(optimizer, WrapsOptimizer):
        optimizer = optimizer.original_optimizer
    return optimizer


def kept(optimizer: torch.optim.Optimizer, schedulers: Sequence[LRScheduler]) -> dict[str, np.ndarray]:
    """An optimizer's state (moments, step counts) as arrays named `parameter/entry`; with schedulers also `settings`.

    Raises UserError for state that a round cannot go on from.
    """
    state = optimizer.state_dict()
    arrays = {
        f"{index}/{key}": _array(type(optimizer).__name__, value)
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    if schedulers:
        groups = [{name: value for name, value in each.items() if name != "params"} for each in state["param_groups"]]
        arrays[SETTINGS] = _saved({"groups": groups, "schedulers": [each.state_dict() for each in schedulers]})
    return arrays


def put_back(
    optimizer: torch.optim.Optimizer, schedulers: Sequence[LRScheduler], arrays: Mapping[str, np.ndarray]
) -> None:
    """Put back what `kept` took. Without schedulers the learning rates are as they are configured."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        if name != SETTINGS:
            index, key = name.split("/", 1)
            state.setdefault(int(index), {})[key] = torch.from_numpy(np.array(array))
    groups = optimizer.state_dict()["param_groups"]
    if SETTINGS in arrays:
        settings = torch.load(io.BytesIO(arrays[SETTINGS].tobytes()), weights_only=True)
        groups = [{**now, **before} for now, before in zip(groups, settings["groups"], strict=True)]
        for scheduler, before in zip(schedulers, settings["schedulers"], strict=True):
            scheduler.load_state_dict(before)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def refuse_still(schedules: Sequence[LRSchedulerConfig], passes: int) -> None:
    """Raise UserError for a kept schedule by pass that would not move as declared: a round counts its passes anew."""
    for each in schedules:
        if each.interval == "epoch" and (passes == 0 or passes % each.frequency):
            raise UserError(
                f"model: its learning rate moves every {each.frequency} passes over the data (interval: epoch), and a "
                f"round here has {passes}, each counted anew, so trainer.optimizer_state=keep cannot keep its pace; "
                "take interval: step, or a multiple of it (trainer.epochs, with trainer.steps=null)"
            )


def _array(optimizer: str, value: object) -> np.ndarray:
    if not isinstance(value, torch.Tensor | int | float):
        raise UserError(KEEPS_NOTHING.format(optimizer))
    return torch.as_tensor(value).cpu().numpy()


def _saved(settings: Mapping[str, object]) -> np.ndarray:
    """Numbers and texts as torch saves them, which keeps what JSON does not (a Counter, whole numbers as keys)."""
    if other := _no_number(settings):
        raise UserError(
            f"trainer.optimizer_state=keep: the state of the learning rate scheduler holds a {other}, which cannot be "
            "kept; choose reset, or a scheduler whose state_dict holds numbers"
        )
    saved = io.BytesIO()
    torch.save(settings, saved)
    return np.frombuffer(saved.getvalue(), np.uint8)


def _no_number(value: object) -> str:
    """The type of something within that is neither a number nor a text; empty where all is."""
    if isinstance(value, Mapping):
        return next((other for pair in value.items() for each in pair if (other := _no_number(each))), "")
    if isinstance(value, list | tuple):
        return next((other for each in value if (other := _no_number(each))), "")
    return "" if isinstance(value, torch.Tensor | int | float | str | None) else type(value).__name__
