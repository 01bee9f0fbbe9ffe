"""FLIP: a declarative engine that trains one study on one machine or across hospitals.

From Python, as in a notebook: `flip.run(flip.compose(["experiment=heart_disease"]))`. The command line makes the same
two calls.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flip.version import __version__

if TYPE_CHECKING:
    from flip.config.study import Study
    from flip.runs.run import Run

__all__ = ["__version__", "compose", "run"]


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> "Study":
    """A checked study, from what one would type after `flip`: `compose(["experiment=heart_disease", "seed=1"])`.

    `config_dir` is a folder with configuration of one's own, as `--config-dir`. Raises `flip.errors.UserError`, with
    every mistake in `problems`.
    """
    from flip.cli import calls

    return calls.compose(overrides, config_dir=config_dir)


def run(study: "Study", folder: str | Path | None = None) -> "Run":
    """Run a study, into a new folder under `runs` or into `folder`; returns what it left.

    A run that fails, or that the sites refuse, raises nothing: `status` of what is returned says `failed` or `refused`,
    and `reason` says why. Raises `flip.errors.UserError` for a folder that holds a run already; KeyboardInterrupt after
    ctrl-c, and SystemExit after SIGTERM or SIGHUP, when the folder says `interrupted`.
    """
    import signal

    from flip.cli import calls
    from flip.signals import Interrupted

    try:
        return calls.run(study, folder)
    except Interrupted as asked:
        raise (KeyboardInterrupt if asked.number == signal.SIGINT else SystemExit(asked.status)) from None
