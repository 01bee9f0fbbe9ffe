"""The backends that a fault is injected into, and what a test must know of each."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Backend:
    """One way to run a study.

    Args:
        name: the option of `federation`.
        workers: processes that sites compute in.
        timeout: `federation.timeout` in seconds, enough for a site to load torch on a busy machine.
        apart: whether each site answers in a process that is not the coordinator's.
        returns: whether a site whose process was killed takes part again.
        messages: whether a compromised process can send what it likes, when it likes.
    """

    name: str
    workers: int
    timeout: int
    apart: bool = True
    returns: bool = False
    messages: bool = True

    @property
    def overrides(self) -> list[str]:
        """The command line's words for it."""
        return [
            f"federation={self.name}",
            f"federation.workers={self.workers}",
            f"federation.timeout={self.timeout}",
        ]

    @property
    def id(self) -> str:
        """Its name in a test's."""
        return self.name if self.name != "inprocess" else f"inprocess-{self.workers}"


ONE = Backend("inprocess", 1, 10, apart=False, messages=False)
FORKED = Backend("inprocess", 5, 20)
FLOWER = Backend("flower", 2, 120, returns=True, messages=False)
FLARE = Backend("nvflare", 2, 60)


def each(*backends: Backend, fast: Collection[Backend] = (ONE, FORKED), long: Collection[Backend] = ()) -> list[Any]:
    """These backends as parameters of a test; those that start Ray or FLARE are slow, and what is not named fast.

    `long` are those on which another test shows the same, live (`test_live_faults.py`).
    """
    marks = {backend: [] if backend in fast else [pytest.mark.slow] for backend in backends}
    marks |= {backend: [pytest.mark.long] for backend in long}
    return [pytest.param(backend, id=backend.id, marks=marks[backend]) for backend in backends]
