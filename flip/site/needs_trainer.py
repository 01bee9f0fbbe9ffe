"""Which module needs Lightning's Trainer in a round, and which one the plain loop trains to the same bit."""

import dis
import inspect
from functools import cache
from types import CodeType
from typing import Any

import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

CALLED = frozenset(
    {
        "forward", "training_step", "configure_optimizers",
        "validation_step", "on_validation_epoch_end", "test_step", "on_test_epoch_end",
    }
)  # fmt: skip
"""What a module may override of Lightning's and is called here."""
UNUSED = frozenset(
    {
        "predict_step", "on_predict_batch_end", "on_predict_batch_start", "on_predict_end", "on_predict_epoch_end",
        "on_predict_epoch_start", "on_predict_start", "on_save_checkpoint", "on_load_checkpoint",
        "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader",
    }
)  # fmt: skip
"""What a module may override and a round's Trainer does not call either."""
OF_TRAINER = frozenset(
    {
        "trainer", "fabric", "current_epoch", "global_step", "optimizers", "lr_schedulers", "all_gather", "print",
        "clip_gradients", "manual_backward", "toggle_optimizer", "toggled_optimizer", "untoggle_optimizer",
    }
)  # fmt: skip
"""Attributes of a module that only a Trainer gives a meaning."""


def needs_trainer(module: object) -> str:
    """Why a module needs Lightning's Trainer, in words; empty where the plain loop does the same."""
    if not isinstance(module, lightning.LightningModule):
        return "is no LightningModule"
    if not module.automatic_optimization:
        return "optimizes by hand"
    own = [name for name in vars(module) if name in hooks() and name not in CALLED | UNUSED]
    inner: set[type] = {type(each) for each in module.modules() if isinstance(each, lightning.LightningModule)}
    if own:
        return f"has its own {own[0]}"
    return next((reason for each in inner if (reason := _class_needs_trainer(each))), "")


@cache
def hooks() -> frozenset[str]:
    """The names that Lightning gives a module, without those of torch's own."""
    named = dir(lightning.LightningModule)
    return frozenset(name for name in named if not name.startswith("_") and not hasattr(torch.nn.Module, name))


@cache
def _class_needs_trainer(kind: type) -> str:
    for base in [each for each in kind.__mro__ if each not in lightning.LightningModule.__mro__]:
        for name, value in vars(base).items():
            if name in hooks() - CALLED - UNUSED:
                return f"overrides {name}"
            if used := sorted(_attributes(value) & OF_TRAINER):
                return f"reads {used[0]} in {name}"
    return ""


def _attributes(value: object) -> set[str]:
    """The attributes that the code of a method or property reads, functions inside it too."""
    method: Any = getattr(value, "fget", None) or getattr(value, "__func__", value)
    function = inspect.unwrap(method)
    codes, found = [getattr(function, "__code__", None)], set()
    for code in codes:
        if isinstance(code, CodeType):
            codes += code.co_consts
            found |= {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    return found


def countable(loader: object) -> bool:
    """Whether a loader is one of torch's whose batches can be counted, with at least one, and no epochs of its own."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not len(loader):
        return False
    samplers = (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    return not any(hasattr(sampler, "set_epoch") for sampler in samplers)
