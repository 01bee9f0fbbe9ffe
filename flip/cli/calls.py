"""The two calls that the command line and a notebook share: compose a study, and run it."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.cli.study import study_of
from flip.config.study import Study
from flip.errors import UserError
from flip.runs.run import Run


def compose(
    overrides: Sequence[str] = (), *, config_name: str = "config", config_dir: str | Path | None = None
) -> Study:
    """The checked study of a command line's overrides. Raises UserError with every mistake found."""
    if isinstance(overrides, str):
        raise UserError(f"{overrides}: must be a list, as in compose([{overrides!r}])")
    composer = Composer(overrides, config_name, Path(config_dir) if config_dir else None)
    cfg = composed(composer)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode: MULTIRUN asks for a sweep, and this is one study; ask for a sweep with flip -m")
    HydraConfig.instance().set_config(cfg)
    return study_of(cfg, cfg.hydra.runtime.choices, composer)


def run(study: Study, folder: str | Path | None = None, *, resumes: str | None = None) -> Run:
    """Run a study into `folder`, or the new one that its configuration names; see `execute` for `resumes` and errors.

    A run that failed or was refused is returned as any other: its status says so.
    """
    from flip.cli.execute import execute

    place = Path(folder).absolute() if folder is not None else study.new_folder()
    return Run(place, execute(study, place, resumes))
