"""A deployed site's silo, in a process of its own: whatever becomes of a task there, the site answers and goes on.

The process that speaks to the server hands each task on and gets the reply back, as memory that both see. What is
loaded stays there between tasks. Where that process ends before it has answered (by the bounds of the site's policy, by
a crash in a library, or because the machine had no memory left), or does not end when its time is over, the site ends
all that is left of it, and starts another. That one says so to the server and in the site's log and journal, and
answers the next task.
"""

import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from flip.config.policy import Policy
from flip.config.site_file import load_site
from flip.errors import UserError
from flip.federation.answer import answer_parts, load_libraries
from flip.processes import PR_SET_PDEATHSIG, descendants, prctl
from flip.site.bounds import GRACE

if TYPE_CHECKING:
    from flip.site.silo import Silo


@dataclass(frozen=True)
class Running:
    """A process that answers, our end of its pipe, and the descriptor by which its end is seen."""

    process: "subprocess.Popen[bytes]"
    pipe: Connection
    end: int

    def stop(self) -> int:
        """End it, and what it started; returns its exit status."""
        others = descendants(self.process.pid)
        self.process.kill()
        for each in others:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self.pipe.close()
        os.close(self.end)
        return self.process.wait()


class SiloProcess:
    """The process in which a deployed site computes; it is started when it is first needed.

    Args:
        name: the site's name in the roster.
        file: the site's own file; its home is the folder beside it, of the same name.
        program: what runs there; its last words are name, file, and the number of its end of the pipe.
    """

    def __init__(self, name: str, file: Path, program: Sequence[str] = ("-m", __name__)) -> None:
        self.name, self.file = name, file
        self.command = [sys.executable, "-P", *program, name, str(file)]
        self.running: Running | None = None

    def start(self) -> Running:
        """The process, which has loaded what every task needs. Raises RuntimeError where it ends before that."""
        if self.running is None:
            self.running = self._started()
            if self.running.pipe not in wait([self.running.pipe, self.running.end]):
                raise RuntimeError(f"{self.name}: {self._stopped()} before it could be asked anything")
            with suppress(EOFError, OSError):
                self.running.pipe.recv_bytes()
        return self.running

    def answer(self, task: bytes | Path) -> list[mmap.mmap]:
        """The site's packed reply to a packed task, or to the file that holds one.

        Raises ValueError for what holds no task, and RuntimeError where no process can be started that says how the
        one before it ended.
        """
        said = self._ask(task)
        if isinstance(said, str):
            said = self._ask(task, ended=said)
        if isinstance(said, str):
            raise RuntimeError(f"{self.name}: {said} before it could answer; see its log")
        return said

    def _ask(self, task: bytes | Path, ended: str = "") -> list[mmap.mmap] | str:
        """The packed reply, or how the process ended. Raises ValueError for bytes that hold no task."""
        running = self.start()
        try:
            running.pipe.send_bytes(ended.encode())
            hand_over(running.pipe, task if isinstance(task, Path) else [task])
            if running.pipe not in wait([running.pipe, running.end], self._patience()):
                return self._stopped()
            problem = running.pipe.recv_bytes().decode()
            reply = None if problem else taken(running.pipe)
        except (EOFError, OSError):
            return self._stopped()
        if reply is None:
            raise ValueError(problem)
        return [reply]

    def _patience(self) -> float | None:
        """Seconds that a task may take here; the process ends itself before them, if it can. None: no limit."""
        try:
            most = Policy.read(self.name, load_site(self.file).policy, deployed=True).maximum_seconds
        except (OSError, UserError):  # such a file refuses everything
            return None
        return None if most is None else most + 3 * GRACE

    def _stopped(self) -> str:
        """End the process, where it has not ended; returns how it did."""
        running, self.running = self.running, None
        return f"its process ended (status {running.stop()})" if running else "it has no process"

    def _started(self) -> Running:
        here, there = Pipe()
        made = SimpleQueue[subprocess.Popen[bytes] | OSError]()
        command = [*self.command, str(there.fileno())]

        def keep(number: int) -> None:  # a process hears of the end of the thread that started it: this one stays
            try:
                process = subprocess.Popen(command, pass_fds=[number])
            except OSError as error:  # the machine has no memory or no process left
                made.put(error)
                return
            made.put(process)
            process.wait()

        threading.Thread(target=keep, args=[there.fileno()], daemon=True).start()
        process = made.get()
        there.close()
        if isinstance(process, OSError):
            raise RuntimeError(f"{self.name}: no process can be started, free memory or processes here: {process}")
        return Running(process, here, os.pidfd_open(process.pid))


def hand_over(pipe: Connection, message: Path | Sequence[bytes | memoryview]) -> None:
    """Give a message, as its file or its buffers, to the process at the other end: to map, not through the pipe."""
    memory = os.open(message, os.O_RDONLY) if isinstance(message, Path) else os.memfd_create("flip")
    try:
        if not isinstance(message, Path):
            with os.fdopen(memory, "wb", closefd=False) as file:
                file.writelines(message)
        send_handle(pipe, memory, 0)
    finally:
        os.close(memory)


def taken(pipe: Connection) -> mmap.mmap:
    """The message that the other end has handed over. Raises ValueError for an empty one."""
    memory = recv_handle(pipe)
    try:
        return mmap.mmap(memory, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(memory)


def serve(pipe: Connection, silo: "Silo") -> None:
    """In the process: answer one task after the other, until the other end of the pipe is closed."""
    with suppress(EOFError):
        while True:
            ended, problem = pipe.recv_bytes().decode(), ""
            try:
                parts = answer_parts(silo, taken(pipe), ended)
            except ValueError as error:
                problem = str(error) or "it holds no task"
            pipe.send_bytes(problem.encode())
            if not problem:
                hand_over(pipe, parts)


def opened(descriptor: str) -> Connection:
    """The end of the pipe that this process was started with. It ends with the process that has the other one."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(int(descriptor), False)
    return Connection(int(descriptor))


def main(name: str, file: str, descriptor: str) -> None:
    """A site's own process. Raises UserError for a bad site's file."""
    os.umask(0o077)
    pipe, path = opened(descriptor), Path(file)
    load_libraries()  # before the first task waits for them
    from flip.site.silo import Silo

    pipe.send_bytes(b"ready")
    serve(pipe, Silo(name, load_site(path), path.with_suffix(""), deployed=True, file=path))


if __name__ == "__main__":
    main(*sys.argv[1:])
