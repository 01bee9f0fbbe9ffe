"""The second lock: what a site's process may not do while a study is built and run, whatever code the study names.

Python tells an audit hook of each connection, process and change to files before it happens (PEP 578). Here one hook
refuses those that no study needs: to a study the machine is one without network, and read-only outside of the site's
own folders. It holds for the thread that runs the study and for those that it starts; the backend's go on.

What it does not see: libraries in C that open files, sockets or threads by themselves (DuckDB, libpq), and reading.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from flip.messages import Fault
from flip.site.admission import Place
from flip.site.audit_events import WATCHED, Arguments, Guard, guard_of, problem_of
from flip.site.log import site_log
from flip.site.refusal import Refusal

P = ParamSpec("P")
R = TypeVar("R")


class AtSite(Protocol):
    """What runs studies at a site."""

    place: Place


S = TypeVar("S", bound=AtSite)


class Forbidden(Refusal, PermissionError):
    """What a study tried, and may not; to a library that asks first, a place without the right to write."""

    def __init__(self, detail: str) -> None:
        super().__init__(Fault.REFUSED_RULE, f"the study's code: {detail}")


class Here(threading.local):
    """What is known of a thread: the guard of what it runs, and that the hook itself is at work."""

    guard: Guard | None = None
    busy = False


_here = Here()


@cache
def install() -> None:
    """Add the hook to this process, once: Python has no way to take one away."""
    sys.addaudithook(_hook)
    _inherit()


@contextmanager
def guarded(place: Place) -> Iterator[Guard]:
    """Refuse what no study needs, until the end of the block. Raises Forbidden where an error came of a refusal."""
    install()
    outer, guard = _here.guard, guard_of(place)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _here.guard = guard
    try:
        yield guard
    except Exception as error:
        if guard.tried and not isinstance(error, Refusal):
            raise Forbidden("; ".join(guard.tried)) from error
        raise
    else:
        for each in guard.tried:
            site_log(place.name, place.home).warning("the study's code was kept from this, and went on: %s", each)
    finally:
        _here.guard, sys.dont_write_bytecode = outer, written


def current() -> Guard | None:
    """The guard that this thread is under."""
    return _here.guard


@contextmanager
def under(guard: Guard | None) -> Iterator[None]:
    """In a process that a guarded one has started: be under its guard until the end of the block."""
    install()
    _here.guard = guard
    try:
        yield
    finally:
        _here.guard = None


def audited(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method of what has a `place` (a Silo), run under the site's guard."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with guarded(self.place):
            return method(self, *args, **kwargs)

    return run


def _hook(event: str, args: Arguments) -> None:
    """Every audit event of the process: returns at once for all but a few."""
    if event not in WATCHED or _here.busy:
        return
    guard = _here.guard
    if guard is None:
        return
    _here.busy = True
    try:
        problem = problem_of(event, args, guard)
    finally:
        _here.busy = False
    if problem:
        guard.tried.append(problem)
        raise Forbidden(problem)


def _inherit() -> None:
    """Put the threads that a guarded thread starts under its guard: Python 3.11 has no event for them."""
    start = threading.Thread.start

    @wraps(start)
    def started(thread: threading.Thread) -> None:
        guard, own = _here.guard, thread.run

        def run() -> None:
            _here.guard = guard
            own()

        if guard is not None:
            thread.run = run  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = started  # type: ignore[method-assign, assignment]
