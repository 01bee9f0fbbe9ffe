"""From what Hydra composed to a checked study."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flip import numerics
from flip.cli.compose import Composer
from flip.cli.origin import Origin
from flip.config.study import Study, plain
from flip.errors import UserError


def study_of(cfg: DictConfig, choices: Mapping[str, Any], composer: Composer) -> Study:
    """The checked study of a composed configuration; `choices` are its groups' options. Raises UserError."""
    if twice := composer.named_twice(choices.get("experiment")):
        raise UserError(twice)
    numerics.choose(plain(cfg.get("numerics")))  # before the check imports the study's code, and torch with it
    return replace(checked(cfg, choices, composer), again=composer.run_again)


def checked(cfg: DictConfig, choices: Mapping[str, object], composer: Composer) -> Study:
    """The study, with the place of each mistake. Raises UserError with every mistake found."""
    from flip.config.checks.study import check
    from flip.config.resolve import settle

    where = Origin(composer)
    if turned := where.misread():
        raise UserError(turned)
    study = settle(cfg, backend=str(choices.get("federation")), where=where)
    study = replace(study, given=composer.given, varied=composer.varied)
    check(study)
    return replace(study, new_folder=lambda: new_folder(cfg))


def new_folder(cfg: DictConfig) -> Path:
    """The folder that the configuration gives a run that begins now."""
    OmegaConf.clear_cache(cfg)  # where the time of an earlier run is kept
    return Path(str(cfg.hydra.run.dir)).absolute()
