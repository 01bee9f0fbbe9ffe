"""Starts what a kit is for, and ends it: every process that came of it is gone when this one ends."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from flip.federation.kit import Kit
from flip.processes import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, descendants, prctl
from flip.signals import ENDING

GRACE = 10.0  # seconds that processes have to end by themselves
LOOK = 0.05  # seconds between looks at processes that end


@dataclass(frozen=True)
class Child:
    """A process to start.

    Attributes:
        command: program and arguments.
        environment: what is added to this process's own.
        log: file that gets its output; None: the screen.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


class Stopped(Exception):
    """SIGTERM, SIGINT or SIGHUP came."""


def start(folder: Path) -> int:
    """Start a server or a site from its kit, until it ends or is told to; returns 0 when told to, else 1.

    Raises UserError for a kit that is not filled in. A backend's module has `children(kit)`, which checks the kit.
    """
    kit = Kit.read(folder)
    children: Sequence[Child] = import_module(f"flip.federation.{kit.backend}.provision").children(kit)
    return supervise(children)


def supervise(children: Sequence[Child]) -> int:
    """Run processes until one of them ends (1) or a signal comes (0); then end all, whatever they started included."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a child leaves behind becomes ours, so that it can be found
    running: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        raise Stopped

    try:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, stop)
        for child in children:
            running.append(launch(child))
        mine = {process.pid: child for process, child in zip(running, children, strict=True)}
        while (ended := os.wait()[0]) not in mine:
            pass
        where = mine[ended].log
        print(f"ended by itself: {mine[ended].command[0]}" + (f"; see {where}" if where else ""), flush=True)
        return 1
    except Stopped:
        return 0
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        end(running)


def launch(child: Child) -> "subprocess.Popen[bytes]":
    """Start a process that does not outlive this one, even if this one is killed."""
    output = None
    if child.log is not None:
        output = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            child.command,
            env={**os.environ, **child.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a ctrl-c at the terminal is ours to hand on
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    finally:
        if output is not None:
            os.close(output)


def end(running: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End processes and all that came of them: asked first, killed when their time is over."""
    deadline = time.monotonic() + GRACE
    for process in running:
        send(process.pid, signal.SIGTERM)
    orphans_told = False
    while alive := descendants(os.getpid()):
        if time.monotonic() > deadline:
            for pid in alive:
                send(pid, signal.SIGKILL)
        elif not orphans_told and not {process.pid for process in running} & alive:
            orphans_told = True
            for pid in alive:
                send(pid, signal.SIGTERM)
        reap()
        time.sleep(LOOK)


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def reap() -> None:
    """Take the exit status of every child that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
