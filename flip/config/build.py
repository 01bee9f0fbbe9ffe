"""The only place that makes objects from `_target_`: a study's parts, from plain values.

`flip.config.checks.study.check` finds every mistake of a study first, all at once.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from flip.config.base_classes import callback_paths, unfit
from flip.config.code import code_digest, foreign_packages
from flip.config.opt_out import ROW, opted_out
from flip.config.places import FROM_SITE, IF_TAKEN, outward
from flip.config.schema import Site
from flip.config.study import Manifest, Study
from flip.config.targets import TARGET, TargetError, name_refusal, resolve, targets
from flip.contracts import FederatedDataModule, Outcomes
from flip.errors import UserError, nearest
from flip.messages import Result, Transport
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    import pytorch_lightning as lightning

    from flip.contracts.model import TrainableModule
    from flip.tracking import Tracker

__all__ = [
    "FROM_SITE", "IF_TAKEN", "DataError", "callbacks", "code_digest", "datamodule", "instantiate", "load_cohort",
    "mechanisms", "model", "outcomes", "persons", "strategy", "targets", "trackers", "transport",
]  # fmt: skip

PARTIAL = "_partial_"
PERSON = "person"  # argument of a dataset that names the column of persons
LIGHTNING = (
    "accumulate_grad_batches", "check_val_every_n_epoch", "detect_anomaly", "gradient_clip_algorithm",
    "gradient_clip_val", "precision",
)  # fmt: skip
"""Arguments of Lightning's Trainer that are the study's: others are the engine's or the site's, or touch its files."""


class DataError(Exception):
    """A site's cohort cannot be read; the text says what and names the remedy, and may hold the site's folders."""


def instantiate(config: Mapping[str, object], key: str = "", kind: str = "", **overrides: object) -> Any:
    """Make the object that a `_target_` names, from plain values; nested targets first.

    `_partial_: true` makes a callable that waits for its other arguments. `key` is the place in the configuration, for
    messages; `kind` the place's kind (`flip.config.base_classes`), which the class must be of before it is called.
    Raises UserError, naming key and cause, when the target cannot be found, is of another kind, or its constructor
    raises.
    """
    target = str(config[TARGET])
    name = key or target
    try:
        made = resolve(target)
    except TargetError as error:
        raise UserError(f"{name}: {TARGET}={target} {error}") from error
    if kind and (reason := unfit(kind, target, made)):
        raise UserError(f"{name}: {TARGET}={target} {reason}")
    if problems := [f"{name}.{argument}: {reason}" for argument, reason in outward(target, config)]:
        raise UserError(problems)
    arguments = {
        k: _value(v, f"{name}.{k}") for k, v in config.items() if k not in (TARGET, PARTIAL) and k not in overrides
    }
    if config.get(PARTIAL):
        return partial(made, **arguments, **overrides)
    try:
        return made(**arguments, **overrides)
    except UserError:
        raise
    except Exception as error:  # whatever the constructor raises is the cause to be named
        raise UserError(f"{name}: {target} could not be built: {type(error).__name__}: {error}") from error


def _value(value: object, key: str) -> object:
    """A configured value with the targets inside it made."""
    if isinstance(value, Mapping):
        if value.get(TARGET) is not None:
            return instantiate(value, key)
        return {name: _value(each, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_value(each, f"{key}[{index}]") for index, each in enumerate(value)]
    return value


def model(manifest: Manifest, *, centralized: bool = False) -> "TrainableModule":
    """The study's LightningModule; with `centralized` it takes `trainer.centralized.optimizer`, where that is set."""
    own = manifest["trainer"]["centralized"]["optimizer"] if centralized else None
    overrides = {"optimizer": instantiate(own, "trainer.centralized.optimizer")} if own else {}
    made: TrainableModule = _of_ours(lambda: instantiate(manifest["model"], "model", "model", **overrides))
    return made


def datamodule(manifest: Manifest, name: str, site: Site) -> FederatedDataModule:
    """The study's LightningDataModule over a site's own data. Raises DataError when it cannot be made from them."""
    overrides: dict[str, Any] = {"root": site.root, "columns": dict(site.columns), "trains": site.trains}
    taken = takes(manifest["dataset"], IF_TAKEN)
    try:
        overrides |= {"part": site.part} if "part" in taken else {}
        if site.person is not None and takes(manifest["dataset"], (PERSON,)):
            overrides[PERSON] = None if site.person == ROW else site.person
        overrides |= {"opt_out": opted_out(site)} if site.opt_out else {}
        if "cache" in taken and site.cache.folder:
            overrides["cache"] = {"folder": site.cache.folder, "gigabytes": site.cache.gigabytes}
        overrides |= {"sources": _of_ours(lambda: sources(name, site))} if "sources" in taken else {}
        made: FederatedDataModule
        made = _of_ours(lambda: instantiate(manifest["dataset"], "dataset", "dataset", **overrides))
        return made
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise DataError(f"sites.{name}.root={site.root}: {error.__cause__}") from error
        raise


def declared(dataset: Mapping[str, object]) -> FederatedDataModule:
    """The study's LightningDataModule as declared, over no site's data. Raises UserError."""
    made: FederatedDataModule
    made = _of_ours(lambda: instantiate(dataset, "dataset", "dataset", root=os.devnull, columns={}, trains=True))
    return made


def sources(name: str, site: Site) -> dict[str, Any]:
    """Where the parts of a site's cohort come from, by part; `root` goes to those that take it.

    What they name is the site's own choice, and still only what its owner allows. Raises UserError.
    """
    made = {}
    for part, config in site.sources.items():
        key = f"sites.{name}.sources.{part}"
        if reason := name_refusal(str(config[TARGET]), source_prefixes(name, site)):
            raise UserError(f"{key}: {TARGET}={config[TARGET]} {reason}")
        made[part] = instantiate(config, key, **({"root": site.root} if takes(config, ("root",)) else {}))
    return made


def source_prefixes(name: str, site: Site) -> tuple[str, ...]:
    """The code that a site's `sources` may name: the engine's, and what its policy allows."""
    from flip.config.policy import Policy

    return ("datamodules.", *Policy.read(name, site.policy).targets)


def takes(config: Mapping[str, object], names: Iterable[str]) -> set[str]:
    """Which of these arguments the constructor of a target takes by name. Raises UserError where there is no such."""
    try:
        parameters = signature(resolve(str(config[TARGET]))).parameters
    except TargetError as error:
        raise UserError(f"{TARGET}={config[TARGET]} {error}") from error
    return set(names) & set(parameters)


def persons(datamodule: FederatedDataModule) -> int:
    """Distinct persons in a cohort, which a dataset may generate first. Raises DataError when it cannot be read."""

    def read() -> int:
        datamodule.prepare_data()
        return int(datamodule.persons())

    return of_data(read)


def load_cohort(datamodule: FederatedDataModule) -> None:
    """Load a cohort's data into memory. Raises DataError when they cannot be read."""
    of_data(partial(datamodule.setup, "fit"))
    of_data(partial(datamodule.setup, "test"))


def of_data(read: Callable[[], Result]) -> Result:
    """What `read` returns. Raises DataError where it cannot read the cohort."""
    try:
        return read()
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from error


def strategy(manifest: Manifest) -> FedAvg:
    """The study's strategy."""
    made: FedAvg = instantiate(manifest["strategy"], "strategy", "strategy")
    return made


def mechanisms(manifest: Manifest) -> list[Mechanism]:
    """The study's privacy mechanisms, outermost first: in the order of the configuration."""
    return [instantiate(manifest["privacy"][name], f"privacy.{name}", "privacy") for name in manifest["mechanisms"]]


def outcomes(manifest: Manifest) -> Outcomes | None:
    """What the study adds to the report (biomarkers, panels), or None."""
    declared = manifest["outcomes"]
    return (
        _of_ours(lambda: instantiate(declared, "outcomes", "outcomes")) if declared and declared.get(TARGET) else None
    )


def callbacks(manifest: Manifest) -> "list[lightning.Callback]":
    """Lightning's callbacks for training without federation, in the order of their names."""
    declared = {name: each for name, each in manifest["trainer"]["callbacks"].items() if each}
    problems = [f"{key}: {reason}" for name, each in declared.items() for key, reason in callback_paths(name, each)]
    if problems:
        raise UserError(problems)
    return [instantiate(each, f"trainer.callbacks.{name}", "callback") for name, each in declared.items()]


def trainer_arguments(manifest: Manifest) -> dict[str, Any]:
    """The study's own arguments of Lightning's Trainer. Raises UserError for one that is not the study's to set."""
    declared = dict(manifest["trainer"]["lightning"])
    for name in declared:
        if name not in LIGHTNING:
            raise UserError(f"trainer.lightning.{name}: is not the study's to set; {nearest(name, LIGHTNING)}")
    return declared


def transport(study: Study) -> Transport | None:
    """The federation's backend, or None without federation."""
    return instantiate(study.federation, "federation") if study.federation.get(TARGET) else None


def trackers(study: Study) -> "list[Tracker]":
    """Where the coordinator's numbers go: the table in the run folder always, then what is configured."""
    from flip.tracking import CsvTracker, Guarded

    keys = {f"tracking.{name}": each for name, each in study.tracking.items() if each}
    return [CsvTracker(), *(Guarded(key, instantiate(each, key)) for key, each in keys.items())]


def _of_ours(make: Callable[[], Result]) -> Result:
    """Make something of models or datamodules, but never of somebody else's packages of these names."""
    if problems := foreign_packages():
        raise UserError(problems)
    return make()


def initial_module(manifest: Manifest, *, centralized: bool = False) -> "TrainableModule":
    """Build the study's module; leaves the global generators as they were.

    Its initial weights are those that plain PyTorch gives after `torch.manual_seed(seed)`, so that published runs that
    begin so can be reproduced.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(manifest["seed"])
        return model(manifest, centralized=centralized)
