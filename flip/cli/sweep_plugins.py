"""Hydra's launchers and sweepers, whichever are installed: what they are told, and what they must not tell."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.errors import UserError
from flip.files import MACHINE_KEYS
from flip.runs.provenance import public_arguments

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.plugins.sweeper import Sweeper

SAID = "hydra.sweeper.direction"


def sweeper(cfg: DictConfig, hydra: "Hydra", job: Callable[[DictConfig], float], composer: Composer) -> "Sweeper":
    """The sweeper, made for a function that runs one job and returns its objective. Raises UserError.

    It is given the `hydra` part alone: it writes down what it is given (`multirun.yaml`), and sites' folders stand in
    the rest. Each run composes its own configuration.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    import_module("flip.config.resolve")  # a launcher tells other processes of the resolvers that are known here
    own = public(cfg)
    with read_write(own), open_dict(own):
        tell_direction(own.hydra.sweeper, composer, cfg)
        if "max_failure_rate" in own.hydra.sweeper and not given(cfg, "hydra.sweeper.max_failure_rate"):
            own.hydra.sweeper.max_failure_rate = 1.0  # one that fails does not end the others
    if folder := own.hydra.launcher.get("submitit_folder"):  # what it keeps there of a run holds the sites' folders
        Path(str(folder).partition("%")[0]).mkdir(parents=True, exist_ok=True, mode=0o700)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(own))
    return Plugins.instance().instantiate_sweeper(config=own, hydra_context=context, task_function=job)


def public(cfg: DictConfig) -> DictConfig:
    """The study's keys and Hydra's, without places of this machine, and the command line without them."""
    folder = str(cfg.hydra.sweep.dir)
    hidden = ("sites", *(key for key in MACHINE_KEYS if key != "hydra"))
    own: DictConfig = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in hidden])
    OmegaConf.copy_cache(from_config=cfg, to_config=own)
    with read_write(own), open_dict(own):
        own.hydra.sweep.dir = folder
        own.hydra.overrides.task = public_arguments([str(each) for each in cfg.hydra.overrides.task])
        own.hydra.job.override_dirname = ",".join(str(each) for each in own.hydra.overrides.task)
    return own


def tell_direction(sweeper: DictConfig, composer: Composer, cfg: DictConfig) -> None:
    """Tell a sweeper that optimizes which way the study's main metric is better. Raises UserError."""
    if "direction" not in sweeper:
        return
    higher = higher_is_better(composer)
    if higher is None and not given(cfg, SAID):
        raise UserError(f"{SAID}: which way the main metric is better depends on what is swept; maximize or minimize")
    if higher is None:
        return
    right = "maximize" if higher else "minimize"
    if given(cfg, SAID) and str(getattr(sweeper.direction, "name", sweeper.direction)) != right:
        raise UserError(f"{SAID}={sweeper.direction}: the study's main metric is better the other way; {right}")
    sweeper.direction = right


def given(cfg: DictConfig, key: str) -> bool:
    """Whether the command line sets a key of Hydra's."""
    return any(str(each).lstrip("+").startswith(f"{key}=") for each in cfg.hydra.overrides.hydra)


def higher_is_better(composer: Composer) -> bool | None:
    """Whether more is better of the study's main metric; None where that depends on what is swept."""
    from flip.config import build
    from flip.config.resolve import settle

    parsed = OverridesParser.create().parse_overrides(composer.arguments)
    fixed = [text for text, each in zip(composer.overrides, parsed, strict=True) if not each.is_sweep_override()]
    try:
        cfg = composed(Composer(fixed, composer.config_name, composer.config_dir))
        study = settle(cfg, backend=str(cfg.hydra.runtime.choices.get("federation")))
        return bool(build.initial_module(study.manifest).higher_is_better)
    except UserError:
        return None


@contextmanager
def importing_nothing_here() -> Iterator[None]:
    """Processes that a launcher starts import what this one does, and nothing from the working folder."""
    paths = os.pathsep.join(path for path in sys.path if path)
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    os.environ |= {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
