"""No run leaves a process, a port or a temporary folder behind, whatever ends it.

That it is so after a good end, and after a failure, the studies of `test_faults*.py` show, and after an interrupt
`test_interrupts.py`; here are those that are killed.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flip.processes import command, held, nothing_left
from tests.federation.backends import FLARE, FLOWER, FORKED, ONE, Backend, each
from tests.federation.faulty_site import Faulty
from tests.federation.live import until
from tests.processes import Family


@pytest.fixture
def family() -> Iterator[Family]:
    with Family(os.getpid()) as watched:
        yield watched


def gone(process: "subprocess.Popen[bytes]") -> bool:
    return process.wait(10) == -signal.SIGKILL


def test_a_child_that_does_not_end_is_killed(temporary: Path) -> None:
    with nothing_left():
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    assert gone(child)
    assert list(temporary.iterdir()) == []


def test_a_child_that_lost_the_mark_is_known_by_its_files(temporary: Path) -> None:
    with nothing_left() as folder, (folder / "log").open("w") as log:
        child = subprocess.Popen(["sleep", "600"], env={}, stdout=log)
    assert gone(child)


def test_another_process_is_left_alone(temporary: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        with nothing_left():
            pass
        assert other.poll() is None
        other.kill()


READER = """
import sys
print("ready", flush=True)
file = open(sys.stdin.readline().strip())
print("open", flush=True)
sys.stdin.read()
"""
RUN = """
from pathlib import Path
from flip.processes import nothing_left
with nothing_left() as folder:
    (folder / "log").touch()
    print(folder / "log", flush=True)
    input()
"""


def test_a_process_that_was_there_before_and_reads_in_the_folder_is_left_alone(temporary: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", READER], **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == "ready\n"
        with subprocess.Popen([sys.executable, "-c", RUN], **pipes) as run:  # type: ignore[call-overload]
            print(run.stdout.readline(), end="", file=reader.stdin, flush=True)
            assert reader.stdout.readline() == "open\n"
            run.communicate("\n")
        assert (run.returncode, reader.poll()) == (0, None)
        reader.kill()
    assert list(temporary.iterdir()) == []


def test_temporary_files_are_the_blocks_own_and_then_again_what_they_were(temporary: Path) -> None:
    with nothing_left() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
        command = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert Path(told.strip()) == folder
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(temporary)


def test_blocks_inside_and_after_one_another_end_their_own(temporary: Path) -> None:
    with nothing_left() as outer:
        first = subprocess.Popen(["sleep", "600"])
        for _ in range(2):
            with nothing_left() as inner:
                assert inner.parent == outer.parent == temporary  # a longer name would not do for Ray
                second = subprocess.Popen(["sleep", "600"])
            assert gone(second)
        assert first.poll() is None
    assert gone(first)
    assert list(temporary.iterdir()) == []


BLOCK = """
import signal, subprocess, sys, tempfile
from flip.processes import nothing_left
with nothing_left():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    tempfile.mkdtemp()
    print(child.pid, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_block_whose_process_is_ended_leaves_nothing(ended_by: signal.Signals, temporary: Path) -> None:
    command = [sys.executable, "-c", BLOCK]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
        Family(process.pid) as family,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        family.look()
        assert len(family.processes) >= 3  # itself, its child and the watcher
        process.send_signal(ended_by)
        process.wait(20)
        assert family.left() == []
    assert list(temporary.iterdir()) == []


def test_a_watcher_has_nothing_of_the_run_in_its_hands(temporary: Path, family: Family) -> None:
    with nothing_left():
        family.look()
        (watcher,) = [number for number, _ in family.alive() if "processes.py" in command(number)]
        assert os.readlink(f"/proc/{watcher}/cwd") == "/"
        assert os.getsid(watcher) == watcher
        until(lambda: set(held(watcher)) == {"/dev/null", "anon_inode:[pidfd]"}, 20, "other files are open")


# Whole studies


@pytest.mark.slow
@pytest.mark.parametrize("backend", each(ONE, FORKED, FLOWER, FLARE, fast=[FORKED]))
def test_a_study_killed_in_mid_round_leaves_nothing(backend: Backend, tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / f"k-{backend.id}", {"a": {1: "hang"}, "b": {}})
    with study.running(*backend.overrides, "strategy.rounds=5") as running:
        running.hanging("a")
        running.process.kill()
        assert running.end() == -signal.SIGKILL
        assert running.family.left() == []
    assert study.temporary_files() == []


@pytest.mark.parametrize("backend", each(FLOWER, FLARE))
def test_a_study_killed_while_its_backend_starts_leaves_nothing(backend: Backend, tmp_path: Path, short: Path) -> None:
    study = Faulty(tmp_path, short / f"s-{backend.id}", {"a": {}, "b": {}})
    with study.running(*backend.overrides, "strategy.rounds=5") as running:
        running.wait(lambda: running.family.ports)
        running.process.kill()
        assert running.end() != 0
        assert running.family.left() == []
    assert study.temporary_files() == []
