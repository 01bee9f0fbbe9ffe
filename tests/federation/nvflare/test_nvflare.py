"""FLARE as a transport: what its job holds, and what is left when something goes wrong."""

import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip.errors import UserError
from flip.federation.nvflare.components import TASK
from flip.federation.nvflare.simulator import NVFlare, write_job
from flip.messages import Ask, Fault, Reply, Task
from flip.processes import command, descendants, parents
from flip.runs.rerun import run_files
from tests.cohorts.heart import write_tiny_heart
from tests.commands import flip
from tests.studies import tiny_heart_study

WORKER = "nvflare.private.fed.app.simulator.simulator_worker"  # the program of a client process
SITES = ["cleveland", "hungarian", "switzerland", "va"]

# The job


def test_a_site_and_its_file_stand_in_no_job_and_each_client_has_a_file_of_its_own(tmp_path):
    write_job(
        tmp_path, {"site-1": ("kings", Path("/marker/one.yaml")), "site-2": ("guys", Path("/marker/two.yaml"))}, 9
    )
    for path in [*(tmp_path / "job").rglob("*.json"), *(tmp_path / "workspace").rglob("*.json")]:
        assert not {"marker", "kings", "guys"} & set(re.findall(r"\w+", path.read_text())), path
    assert json.loads((tmp_path / "sites" / "site-1.json").read_text()) == ["kings", "/marker/one.yaml"]
    assert "two" not in (tmp_path / "sites" / "site-1.json").read_text()


def test_flare_may_build_our_two_classes_and_nothing_else(tmp_path):
    write_job(tmp_path, {}, 9)
    allowed = json.loads((tmp_path / "workspace" / "local" / "resources.json").read_text())["class_allow_list"]
    assert allowed == ["flip.federation.nvflare.simulator.relay", "flip.federation.nvflare.simulator.executor"]


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"workers": 0}])
def test_a_setting_that_cannot_work_is_refused(wrong):
    with pytest.raises(UserError, match=f"federation.{next(iter(wrong))}=0"):
        NVFlare(**wrong)


# Faults, each from outside: a signal to a real process of FLARE's.


def clients() -> dict[str, int]:
    """FLARE's client processes of this test, by name."""
    found = {}
    for process in descendants(os.getpid()):
        words = command(process).split()
        if WORKER in words:
            found[words[words.index("--client") + 1]] = process
    return found


def traces(temporary: Path) -> list[str]:
    """What is left of FLARE: files, but torch's cache, one for each user, and processes."""
    return [*(path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor_")), *clients()]


def drive(folder: Path, program: Callable[[Ask, Task], Any], **settings: Any) -> Any:
    """Run a program of the test's over the tiny study's sites."""
    study = tiny_heart_study(write_tiny_heart(folder / "data"), "federation=nvflare")
    for name, content in run_files(study).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    files = {name: folder / "sites" / f"{name}.yaml" for name in study.sites}
    task = Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text)
    return NVFlare(**settings).run(lambda ask: program(ask, task), files)


def faults(replies: Iterator[Reply]) -> list[Fault | None]:
    found = list(replies)
    assert [reply.site for reply in found] == SITES
    return [reply.fault for reply in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary files go, for all that this file starts."""
    folder = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))
        yield folder


WELL: list[Fault | None] = [None] * 4


@dataclass
class Faulted:
    """What the loop was told while a site, then the server, met one fault after the other."""

    stopped: list[Fault | None]
    back: list[Fault | None]
    killed: list[list[Fault | None]]
    seconds: float
    alone: list[Fault | None]
    left: list[str]


@pytest.fixture(scope="module")
def faulted(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Faulted:
    """One run of FLARE: a site stands still, goes on, is killed; then the server is killed."""

    def program(ask: Ask, task: Task) -> Faulted:
        assert faults(ask(task, SITES)) == WELL
        site = clients()["site-2"]
        os.kill(site, signal.SIGSTOP)
        stopped = faults(ask(task, SITES))
        os.kill(site, signal.SIGCONT)
        back = faults(ask(task, SITES))
        os.kill(site, signal.SIGSTOP)
        threading.Timer(2.0, os.kill, [site, signal.SIGKILL]).start()
        started = time.monotonic()
        killed = [faults(ask(task, SITES))]
        seconds = time.monotonic() - started
        killed.append(faults(ask(task, SITES)))
        os.kill(parents()[clients()["site-1"]], signal.SIGKILL)
        return Faulted(stopped, back, killed, seconds, faults(ask(task, SITES)), [])

    found: Faulted = drive(tmp_path_factory.mktemp("faulted"), program, timeout=40, workers=4)
    found.left = traces(place)
    return found


@pytest.mark.slow
def test_a_stopped_site_is_out_of_time_and_comes_back(faulted):
    assert (faulted.stopped, faulted.back) == ([None, Fault.TIMEOUT, None, None], WELL)


@pytest.mark.slow
def test_a_killed_site_is_lost_at_once_and_for_good(faulted):
    assert faulted.killed == [[None, Fault.LOST, None, None]] * 2
    assert faulted.seconds < 20  # and not federation.timeout


@pytest.mark.slow
def test_without_flares_server_every_site_is_lost_and_nothing_is_left(faulted):
    assert faulted.alone == [Fault.LOST] * 4
    assert faulted.left == []


@pytest.mark.slow
def test_a_large_message_reaches_every_gate_and_an_error_of_the_loop_is_raised_and_nothing_is_left(tmp_path, place):
    told = []

    def program(ask: Ask, task: Task) -> None:
        large = {"weights": np.ones(100_000_000, np.float32)}
        told.append(faults(ask(Task(task.run, "study", 0, "statistics", large, {}, {}, task.manifest), SITES)))
        next(ask(task, SITES))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, program)
    assert told == [[Fault.REFUSED_PROTOCOL] * 4]  # by the sites themselves, which had it whole
    assert traces(place) == []


# Speed


@pytest.mark.long
def test_rounds_after_the_first_are_not_polled_for(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    small = ["experiment=heart_disease", "strategy.rounds=10", "trainer.steps=5", "federation=nvflare"]
    ran = flip(tmp_path, *small, FLIP_DATA_DIR=str(data))
    assert ran.status == 0, ran.err
    seconds = [float(each) for each in re.findall(r"round \d+/10 .* ([\d.]+) s", ran.out)]
    assert len(seconds) == 10
    assert min(seconds[1:]) <= 2  # polled, each would take 2.6 s; any may wait for what else the machine does


def test_the_name_of_a_task_is_one_that_our_executor_is_registered_for(tmp_path):
    write_job(tmp_path, {}, 9)
    client = json.loads((tmp_path / "job" / "app" / "config" / "config_fed_client.json").read_text())
    assert client["executors"][0]["tasks"] == [TASK]
