"""Composes and settles a study of the real configuration, as `python -m flip` does, in this process."""

from pathlib import Path

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.config.resolve import settle
from flip.config.study import Study
from flip.files import conf_folder

SMALL_HEART = ("strategy.rounds=3", "trainer.steps=5")
"""Three rounds of five steps."""
PASSES = "trainer.centralized.max_epochs="

EXPERIMENTS = sorted(
    path.stem for path in (conf_folder() / "experiment").glob("*.yaml") if "\njob: " not in path.read_text()
)
"""The shipped experiments that train; one with a job of its own applies what these trained."""


def in_rounds(words: list[str]) -> list[str]:
    """The words of a small study, for a run over rounds alone: the passes of training without them are left out."""
    return [word for word in words if not word.startswith(PASSES)]


def compose_study(*overrides: str, config_dir: Path | None = None, config_name: str = "config") -> Study:
    """The settled study of a command line."""
    cfg = composed(Composer(list(overrides), config_name, config_dir))
    return settle(cfg, backend=str(cfg.hydra.runtime.choices.get("federation")))


def tiny_heart_study(data: Path, *overrides: str) -> Study:
    """The heart-disease study on `write_tiny_heart` data, small; under noise it is scaled by declared ranges."""
    scaling = ["dataset.scaling=declared"] if "privacy=dp_sgd" in overrides else []
    small = [*SMALL_HEART, f"{PASSES}2", *scaling]
    return compose_study("experiment=heart_disease", f"paths.data_dir={data}", *small, *overrides)
