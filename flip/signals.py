"""What ends a run from outside: ctrl-c (SIGINT), `kill` or a scheduler (SIGTERM), a closed terminal (SIGHUP)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORDS = {
    signal.SIGINT: "interrupted from the keyboard",
    signal.SIGTERM: "told to end (SIGTERM)",
    signal.SIGHUP: "its terminal was closed (SIGHUP)",
}


class Interrupted(BaseException):
    """One of these signals came.

    It is no `Exception`, so that no library takes it for an error of its own, and no `KeyboardInterrupt`: Lightning
    makes of that a `SystemExit`, and of a SIGTERM that nobody handles one at the end of a batch.

    Attributes:
        number: the signal's.
        told: the user has been told already.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.told = number, False

    @property
    def status(self) -> int:
        """The exit status, as a shell has it: 128 and the number of the signal."""
        return 128 + self.number

    @property
    def words(self) -> str:
        """What happened."""
        return WORDS[signal.Signals(self.number)]


@dataclass
class State:
    """Of this process: whose handlers they are, how many blocks have signals wait, which waits, who is told of one."""

    owner: int = 0
    deferring: int = 0
    waiting: int | None = None
    told: Callable[[int], None] | None = None


STATE = State()


def handle(number: int, frame: object) -> None:
    """Raise `Interrupted`, or have the signal wait. A process forked since does not take it for its own."""
    if os.getpid() != STATE.owner:
        if number == signal.SIGTERM:
            os._exit(128 + number)
    elif STATE.deferring:
        STATE.waiting = STATE.waiting or number
    else:
        end(number)


def end(number: int) -> NoReturn:
    """Raise `Interrupted`, after the signal has been handed on."""
    if STATE.told is not None:
        told, STATE.told = STATE.told, None
        told(number)
    raise Interrupted(number)


@contextmanager
def handing_on(tell: Callable[[int], None]) -> Iterator[None]:
    """Have the first signal told to a function before `Interrupted` is raised: to hand it on to other processes."""
    before, STATE.told = STATE.told, tell
    try:
        yield
    finally:
        STATE.told = before


def install() -> None:
    """Have the signals handled here; one that the process was started to ignore (`nohup`) stays ignored."""
    STATE.owner = os.getpid()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextmanager
def ending_signals() -> Iterator[None]:
    """During the block a signal raises `Interrupted` in the main thread; without effect in another thread."""
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handler
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Have signals wait: one that comes in the block raises `Interrupted` at its end.

    Gives the block a function that raises it before, in the thread that calls it.
    """
    STATE.deferring += 1
    try:
        yield look
    except Interrupted:
        STATE.waiting = None  # the end that it asks for is under way
        raise
    finally:
        STATE.deferring -= 1
        if not STATE.deferring:
            look()


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside a block that has signals wait, one that does not; what has come already raises `Interrupted` at once."""
    before, STATE.deferring = STATE.deferring, 0
    try:
        look()
        yield
    finally:
        STATE.deferring = before


def look() -> None:
    """Raise `Interrupted` for a signal that waits."""
    if STATE.waiting is not None:
        number, STATE.waiting = STATE.waiting, None
        end(number)


def leave_to_parent() -> None:
    """In a forked worker: ctrl-c and a closed terminal, which the whole group hears of, are the parent's to handle."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
