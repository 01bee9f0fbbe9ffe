"""A standard output that is closed, broken or full stops nothing: neither a run nor what a pipe cuts short."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flip.cli.output import tolerant
from tests.cli.small_study import write_small_study


def ran(folder: Path, redirection: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command line of a shell, with its standard output somewhere."""
    command = f'"{sys.executable}" -m flip "$@" {redirection}'
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *words],
        cwd=folder, capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_does_not_end_a_run(encoding: str, tmp_path: Path) -> None:
    like = io.TextIOWrapper(io.BytesIO(), encoding)
    with (tmp_path / "out").open("wb") as file, tolerant(os.dup(file.fileno()), like, own=True) as stream:
        stream.write("0.85 (.69\u2013.94)\n")
    assert (tmp_path / "out").read_text(encoding) == "0.85 (.69?.94)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection",
    ["| true", *(pytest.param(way, marks=pytest.mark.slow) for way in (">&-", "> /dev/full"))],
    ids=["broken", "closed", "full"],
)
def test_a_run_is_not_stopped(redirection: str, tmp_path: Path) -> None:
    done = ran(tmp_path, redirection, *write_small_study(tmp_path), "hydra.run.dir=run", "strategy.rounds=1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "ok"
    told = "standard output could not be written: No space left on device\n"
    assert done.stderr == (told if "full" in redirection else "")
    assert "Traceback" not in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("words", ["--help all", "", "--version", "experiment=heart_disease --cfg job"])
def test_what_a_pipe_cuts_short_gives_no_traceback(words: str, tmp_path: Path) -> None:
    done = ran(tmp_path, "| true", *words.split())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirection", ["2>&- | cat", ">&- 2>&- <&-"])
def test_a_mistake_is_one_without_a_standard_error_too(redirection: str, tmp_path: Path) -> None:
    assert ran(tmp_path, redirection, "reprot").returncode == 2
