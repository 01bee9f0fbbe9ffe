"""The study alone decides how a site trains: what Lightning would take from the environment is not there for it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "PL_TRAINER_"  # then the name of an argument of Lightning's Trainer
_SAID = set[str]()  # variables that this process's log has named


def ignored() -> str:
    """A sentence that names the variables which are set and have no effect; empty where there is none."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    return f"the environment does not change a study: {', '.join(names)} ignored" if names else ""


@contextmanager
def without_arguments() -> Iterator[None]:
    """Hide these variables during the block; the first time they are named in the log."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    if not set(hidden) <= _SAID:
        logging.getLogger(__name__).warning(ignored())
        _SAID.update(hidden)
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
