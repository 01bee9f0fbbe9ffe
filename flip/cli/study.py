"""From what Hydra composed to a checked study."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from flip.cli.compose import Composer
from flip.cli.origin import Origin
from flip.config.study import Study
from flip.errors import UserError


def study_of(cfg: DictConfig, choices: Mapping[str, Any], composer: Composer) -> Study:
    """The checked study of a composed configuration; `choices` are its groups' options. Raises UserError."""
    if twice := composer.named_twice(choices.get("experiment")):
        raise UserError(twice)
    return checked(cfg, choices, composer)


def checked(cfg: DictConfig, choices: Mapping[str, Any], composer: Composer) -> Study:
    """The study, with the place of each mistake. Raises UserError with every mistake found."""
    from flip.config.checks.study import check
    from flip.config.resolve import settle

    study = settle(cfg, backend=str(choices.get("federation")), where=Origin(composer))
    check(study)
    return study
