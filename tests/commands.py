"""Runs the real command line in a process of its own, from a folder of the test's, as a user would."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warm import warm

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Finished:
    """A command line that has ended."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def runs(self) -> list[Path]:
        """The run folders under `runs`, oldest first."""
        return sorted(path.parent for path in self.folder.glob("runs/**/result.json"))

    @property
    def results(self) -> list[dict[str, Any]]:
        """What each run wrote as its result, oldest first."""
        return [json.loads((run / "result.json").read_text()) for run in self.runs]

    @property
    def result(self) -> dict[str, Any]:
        """What the last run wrote as its result."""
        return self.results[-1]

    @property
    def description(self) -> dict[str, Any]:
        """What the last run, of job=check or job=statistics, wrote of the cohorts."""
        assert self.status == 0, self.out + self.err
        told: dict[str, Any] = json.loads((self.runs[-1] / "description.json").read_text())
        return told


def run_flip(folder: Path, *arguments: str, seconds: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m flip ARGUMENTS` in a folder, on one thread, for so many seconds at most.

    Where Python and the libraries start as in this process, it is forked from one that has loaded them.
    """
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    others = {name for name in environment if name.startswith(("PYTHON", "OMP", "MKL", "LC_", "LANG"))} - {"PYTHONPATH"}
    if not others and not any("numerics" in each for each in arguments):
        return warm().run(arguments, folder=folder, environment=surroundings, seconds=seconds)
    return subprocess.run(
        [sys.executable, "-m", "flip", *arguments],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def flip(folder: Path, *arguments: str, **environment: str) -> Finished:
    """The same, with the runs that it left."""
    ran = run_flip(folder, *arguments, seconds=1200, **environment)
    return Finished(ran.returncode, ran.stdout, ran.stderr, folder)
