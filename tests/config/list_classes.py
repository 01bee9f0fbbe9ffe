"""Writes the list of classes that a study may name, from the packages that are installed.

    python -m tests.config.list_classes > flip/config/allowed_classes.yaml

Run it after a new class of ours or a new version of a library, and read what changed before it is committed.
"""

import importlib
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any

HEAD = """# The classes that a study may name, by the place where each may stand; every site reads this list.
# Written by `python -m tests.config.list_classes`. A class that is not here is allowed by its name, or your own package
# by its prefix: `allow_targets` in a simulation, `policy.targets` in a hospital's own file.
# A line with a key after the class: the study must state that value, since the class would fetch a file without it.
"""
FETCHES = ("pretrained",)  # an argument that opens an address where it is true
REFUSED = {
    "monai": (
        # fetch, or look up by name what another package offers
        "CellSamWrapper", "FCN", "Hyena*", "MCFCN", "MILModel", "MetricsReloaded*", "MultiModal", "NetAdapter",
        "PerceptualLoss", "Quicknat", "TorchVisionFCModel", "Transchex", "BertAttention",
        "BertMixedLayer", "BertOutput",
        "BertPreTrainedModel", "CuCIM*", "RandCuCIM*", "TorchIO*", "RandTorchIO*", "TorchVision*", "RandTorchVision*",
        # call what they are given, wait, print values, or are bases without use of their own
        "Lambda*", "RandLambda*", "SimulateDelay*", "DataStats*", "Transform", "MapTransform", "LazyTransform",
        "RandomizableTransform", "RandomizableTrait", "MultiSampleTrait", "ThreadUnsafe", "ReduceTrait",
        "InvertibleTransform", "TraceableTransform", "BatchInverseTransform", "Decollated", "InvertibleTrait",
    ),
    "torch": ("Module", "Container", "DataParallel", "SyncBatchNorm", "RNNBase", "RNNCellBase", "Optimizer",
              "LRScheduler"),
    "torchmetrics": ("Metric",),
}  # fmt: skip
DATASET_PARTS = (
    "ct.grid",
    "harmonize",
    "images",
    "levels.projections",
    "levels.stretching",
    "records",
    "segmentation.forms",
    "segmentation.intensity",
    "segmentation.patching",
    "segmentation.planning",
    "splits",
    "tabular",
    "targets",
    "text",
)
STATED = {
    "callback": [
        f"pytorch_lightning.callbacks.{name}"
        for name in ("EarlyStopping", "ModelCheckpoint", "StochasticWeightAveraging")
    ],
    "model_part": ["datamodules.levels.projections.Projections"],
    "outcome_part": ["models.body_composition.CutOff"],
    "tracker": ["flip.tracking.WandbTracker"],
    "transport": [
        "flip.federation.inprocess.InProcess",
        "flip.federation.flower.simulation.Flower",
        "flip.federation.flower.superlink.FlowerSuperLink",
        "flip.federation.nvflare.provisioned.NVFlareProvisioned",
        "flip.federation.nvflare.simulator.NVFlare",
    ],
}


def refused(made: type) -> bool:
    """Whether a library's class is left out by name."""
    for rule in REFUSED.get(made.__module__.split(".")[0], ()):
        if made.__name__ == rule or (rule.endswith("*") and made.__name__.startswith(rule[:-1])):
            return True
    return False


def of_library(package: str, base: type) -> Iterator[type]:
    """The classes that a package offers under its own name, once each; none that reads or writes files."""
    module = importlib.import_module(package)
    for name, made in sorted(vars(module).items()):
        if (
            inspect.isclass(made)
            and issubclass(made, base)
            and name == made.__name__  # MONAI has each dictionary transform under three names
            and not name.startswith("_")
            and not inspect.isabstract(made)
            and not refused(made)
            and made.__module__.startswith(package.split(".")[0] + ".")
            and not made.__module__.startswith("monai.transforms.io")
            and "SaveClassification" not in name
        ):
            yield made


def of_ours(package: str) -> Iterator[tuple[str, Any]]:
    """Public classes and functions that a package of ours defines, by dotted path."""
    root = importlib.import_module(package)
    found = pkgutil.walk_packages(getattr(root, "__path__", []), package + ".")
    for name in [package, *(each.name for each in found if not each.name.endswith("__main__"))]:
        for own, made in sorted(vars(importlib.import_module(name)).items()):
            if not own.startswith("_") and getattr(made, "__module__", "") == name and callable(made):
                yield f"{name}.{own}", made


def libraries() -> Iterator[tuple[str, str, type]]:
    """Place, name and class of what libraries offer."""
    import monai.metrics.metric
    import monai.transforms
    import torch
    import torchmetrics

    schedulers = torch.optim.lr_scheduler.LRScheduler
    places: list[tuple[str, str, type]] = [
        ("optimizer", "torch.optim", torch.optim.Optimizer),
        ("scheduler", "torch.optim.lr_scheduler", schedulers),
        ("network", "monai.networks.nets", torch.nn.Module),
        ("network", "monai.networks.blocks", torch.nn.Module),
        ("network", "monai.networks.layers", torch.nn.Module),
        ("loss", "monai.losses", torch.nn.Module),
        ("metric", "monai.metrics", monai.metrics.metric.Metric),
        ("transform", "monai.transforms", monai.transforms.Transform),
        ("network", "torch.nn", torch.nn.Module),
        *(
            ("metric", f"torchmetrics{part}", torchmetrics.Metric)
            for part in ("", ".classification", ".regression", ".segmentation", ".nominal")
        ),
    ]
    seen: set[type] = set()
    for place, package, base in places:
        for made in of_library(package, base):
            domain = made.__module__.split(".")[1] if package == "torchmetrics" else ""
            if made in seen or domain in ("audio", "detection", "image", "multimodal", "text", "video", "wrappers"):
                continue
            seen.add(made)
            loss = package == "torch.nn" and made.__module__ == "torch.nn.modules.loss"
            yield "loss" if loss else place, f"{package}.{made.__name__}", made


def ours() -> Iterator[tuple[str, str]]:
    """Place and name of what our packages offer."""
    import pytorch_lightning as lightning
    import torch
    import torchmetrics

    from flip.privacy import Mechanism
    from flip.strategies.fedavg import FedAvg

    kinds: list[tuple[str, type]] = [
        ("model", lightning.LightningModule),
        ("dataset", lightning.LightningDataModule), ("metric", torchmetrics.Metric),
        ("network", torch.nn.Module), ("strategy", FedAvg), ("privacy", Mechanism),
    ]  # fmt: skip
    parts = tuple(f"datamodules.{part}." for part in DATASET_PARTS)
    for package in ("models", "datamodules", "flip.strategies", "flip.privacy"):
        for name, made in of_ours(package):
            if not inspect.isclass(made):
                if package == "models" and not inspect.signature(made).parameters and "main" not in name:
                    yield "outcome_part", name
                continue
            kind = next((kind for kind, base in kinds if issubclass(made, base) and made is not Mechanism), "")
            if package == "models" and hasattr(made, "collect"):
                kind = "outcomes"
            if name.startswith(parts) and not getattr(made, "_is_protocol", False) and not hasattr(made, "__getitem__"):
                kind = "dataset_part"
            if kind:
                yield kind, name


def classes() -> dict[str, dict[str, dict[str, bool]]]:
    """By place the names, each with what a study must state beside it."""
    found: dict[str, dict[str, dict[str, bool]]] = {
        place: {name: {} for name in names} for place, names in STATED.items()
    }
    for place, name in ours():
        found.setdefault(place, {})[name] = {}
    for place, name, made in libraries():
        parameters = inspect.signature(made).parameters
        needs = {each: False for each in FETCHES if each in parameters and parameters[each].default is True}
        found.setdefault(place, {})[name] = needs
    return found


def main() -> None:
    """Print the file."""
    warnings.simplefilter("ignore")
    lines = [HEAD]
    for place, names in sorted(classes().items()):
        lines.append(f"{place}:\n")
        for name, needs in sorted(names.items()):
            told = ", ".join(f"{key}: {str(value).lower()}" for key, value in needs.items())
            lines.append(f"  - {name}\n" if not told else f"  - {name}: {{{told}}}\n")
    sys.stdout.write("".join(lines))


if __name__ == "__main__":
    main()
