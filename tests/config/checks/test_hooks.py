"""A misspelt hook is found before the run: the class, the name, and the hook that it may mean."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torchmetrics import Metric

import datamodules
import flip.privacy
import flip.strategies
import models
from flip.config.base_classes import base
from flip.config.checks.hooks import in_part, misspelt
from flip.contracts import KINDS, hooks

# Asked of what Python, torch and Lightning make, and of a backend's class.
OF_LIBRARIES = {
    "_is_protocol", "_is_runtime_protocol", "buffer", "fget", "inplace", "name", "raw", "sampler", "set_epoch",
    "shape", "sparse", "submit",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "parent", "name", "meant"),
    [
        ("dataset", LightningDataModule, "REASON", "REASONS"),
        ("dataset", LightningDataModule, "skiped", "skipped"),
        ("dataset", LightningDataModule, "fingerprints", "fingerprint"),
        ("dataset", LightningDataModule, "descibe", "describe"),
        ("model", LightningModule, "decides_at", "decide_at"),
        ("model", LightningModule, "higher_is_beter", "higher_is_better"),
        ("model", LightningModule, "subgroups_metrics", "subgroup_metrics"),
        ("metric", Metric, "intervals", "interval"),
        ("metric", Metric, "witheld", "withheld"),
        ("dataset", LightningDataModule, "skiped_persons", "skipped_persons"),
        ("strategy", base("strategy"), "visit", "visits"),
        ("strategy", base("strategy"), "before_fits", "before_fit"),
        ("privacy", base("privacy"), "wrap_answers", "wrap_answer"),
    ],
)
def test_a_name_near_a_hooks_is_named_with_the_hook(kind: str, parent: type, name: str, meant: str) -> None:
    made = type("Own", (parent,), {"__module__": __name__, name: None})
    found = [text for text in misspelt(kind, kind, made) if f"Own.{name}" in text]
    assert len(found) == 1
    assert f"name it {meant}, or _{name}" in found[0]


def test_every_name_that_the_engine_asks_for_stands_in_the_contracts() -> None:
    asked = set()
    for path in Path(flip.__file__).parent.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            match call:
                case ast.Call(func=ast.Name("hasattr" | "getattr"), args=[_, ast.Constant(str(name)), *_]):
                    asked.add(name)
    known = frozenset().union(*map(hooks, KINDS))
    assert {name for name in asked if not name.startswith("__")} - known == OF_LIBRARIES


def test_what_an_object_assigns_in_its_constructor_is_found_too() -> None:
    class Own(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.metrisc = torch.nn.ModuleDict()

    (text,) = misspelt("model", "model", Own())
    assert "Own.metrisc is nearly `metrics`" in text


@pytest.mark.parametrize(
    ("kind", "parent", "has", "lacks"),
    [
        ("dataset", LightningDataModule, "agree", "statistics"),
        ("dataset", LightningDataModule, "pooled_test_dataloader", "pooled_train_dataloader, pooled_val_dataloader"),
        ("model", LightningModule, "fit_baseline", "fits_baseline"),
    ],
)
def test_a_hook_that_a_class_has_in_part_is_named_with_what_is_missing(
    kind: str, parent: type, has: str, lacks: str
) -> None:
    (text,) = in_part(kind, kind, type("Own", (parent,), {has: None}))
    assert f"Own has {has} without {lacks}" in text


def test_a_private_name_is_meant() -> None:
    assert list(misspelt("dataset", "dataset", type("Own", (LightningDataModule,), {"_skiped": 1}))) == []


def shipped(package: ModuleType) -> list[type]:
    """Every class of a package, and of those in it."""
    names = [each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    found = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    return [each for module in found for each in vars(module).values() if inspect.isclass(each)]


@pytest.mark.parametrize(
    "package", [models, datamodules, flip.strategies, flip.privacy], ids=lambda each: each.__name__
)
def test_no_shipped_class_has_a_name_that_is_nearly_a_hooks_or_a_hook_in_part(package: ModuleType) -> None:
    kinds = {kind: base(kind) for kind in ("dataset", "model", "strategy", "privacy")} | {"metric": Metric}
    for made in shipped(package):
        for kind, parent in kinds.items():
            wrong = [*misspelt(kind, kind, made), *(in_part(kind, kind, made) if kind in KINDS else ())]
            assert not issubclass(made, parent) or wrong == []
