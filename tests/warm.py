"""The command line in a process forked from one that has loaded the libraries: half a second, where a start takes six.

Of the engine nothing is loaded before, and each command line has its own folder, environment, arguments and streams.
What a process decides while it loads libraries (`numerics=portable`), and which of them it loads at all, is shown by
one that is started anew: see `tests/commands.py`.
"""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import IO

import numpy

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "pytorch_lightning",
    "torch._dynamo",
    "torchmetrics",
    "monai.losses",
    "monai.transforms",
    "hydra",
    "pandas",
)


class Warm:
    """A process that has loaded the libraries, and forks one for each command line; it ends with this one."""

    def __init__(self) -> None:
        self._pipe, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(there.fileno())],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                cwd=ROOT,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], seconds: int
    ) -> "subprocess.CompletedProcess[str]":
        """`python -m flip ARGUMENTS` in a folder. Raises TimeoutExpired, having killed it, after so many seconds."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self._pipe.send_bytes(json.dumps([[*arguments], str(folder), dict(environment)]).encode())
            for stream in (out, err):
                send_handle(self._pipe, stream.fileno(), self._process.pid)
            number = json.loads(self._pipe.recv_bytes())
            in_time = self._pipe.poll(seconds)
            if not in_time:
                os.kill(number, signal.SIGKILL)
            status = json.loads(self._pipe.recv_bytes())
            if not in_time:
                raise subprocess.TimeoutExpired([*arguments], seconds, text(out), text(err))
            return subprocess.CompletedProcess([*arguments], status, text(out), text(err))


@cache
def warm() -> Warm:
    """The one of this process."""
    return Warm()


def text(file: IO[bytes]) -> str:
    """What was written into a file."""
    file.seek(0)
    return file.read().decode()


def serve(pipe: Connection) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each command line that comes; returns it in the new process alone."""
    while True:
        try:
            asked = json.loads(pipe.recv_bytes())
        except EOFError:
            sys.exit()
        streams = [recv_handle(pipe), recv_handle(pipe)]
        if not (number := os.fork()):
            for stream, standard in zip(streams, (1, 2), strict=True):
                os.dup2(stream, standard)
                os.close(stream)
            words, folder, environment = asked
            return words, folder, environment
        for stream in streams:
            os.close(stream)
        pipe.send_bytes(json.dumps(number).encode())
        _, status = os.waitpid(number, 0)
        pipe.send_bytes(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def paths(environment: Mapping[str, str]) -> list[str]:
    """The folders that PYTHONPATH names."""
    return [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]


def main(number: int) -> None:
    """Load the libraries, then become each command line that comes."""
    for name in LIBRARIES:
        import_module(name)
    libraries = sys.path[1 + len(paths(os.environ)) :]
    with Connection(number) as pipe:
        words, folder, environment = serve(pipe)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    random.seed()  # else each would draw the same numbers, as no two processes of a user do
    numpy.random.seed()
    sys.path[:] = [folder, *paths(environment), *libraries]
    sys.argv = ["flip", *words]
    runpy.run_module("flip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
