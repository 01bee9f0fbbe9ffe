"""Ray is started with as little as Flower's simulation needs."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import node, parameter

from flip.errors import StudyFailed
from flip.federation.flower import ray_workers
from flip.federation.flower.ray_workers import TRIES


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """What Ray would be started with, and the import path that its workers would inherit."""
    seen = SimpleNamespace()

    def init(**named: Any) -> None:
        seen.given, seen.settings, seen.path = named, parameter.RayParams(), os.environ["PYTHONPATH"]

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_workers, "install", lambda: None)
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.syspath_prepend("")
    with ray_workers.workers(2, str(tmp_path)):
        seen.after = os.environ["PYTHONPATH"]
        yield seen


def test_neither_autoscaler_nor_log_monitor_nor_dashboard_is_started(started: SimpleNamespace) -> None:
    assert started.settings.no_monitor is True
    assert started.settings.include_log_monitor is False
    assert started.given["include_dashboard"] is False


def test_only_ray_itself_is_started_so(started: SimpleNamespace) -> None:
    assert parameter.RayParams().include_log_monitor is not False


def test_the_first_workers_have_all_that_later_ones_have_so_that_they_are_used(started: SimpleNamespace) -> None:
    assert "runtime_env" not in started.given
    assert "" not in started.path.split(os.pathsep)
    assert str(Path(ray_workers.__file__).parents[3]) in started.path.split(os.pathsep)


def test_the_import_path_of_other_processes_stays(started: SimpleNamespace) -> None:
    assert started.after == "before"


IMPORTED = """
import os

import ray

from flip.federation.flower.ray_workers import workers
from flip.federation.flower.simulation import simulation_environment

with simulation_environment() as temporary, workers(1, temporary):
    print(ray.get(ray.remote(lambda: os.nice(0)).remote()) - os.nice(0))
"""


@pytest.mark.parametrize("late", [0, TRIES - 1, TRIES])
def test_a_machine_that_is_too_busy_for_ray_has_further_tries_and_is_then_named(
    late: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "The current node timed out during startup."
    assert words in inspect.getsource(node)
    tries: list[object] = []

    def init(**named: object) -> None:
        tries.append(named)
        if len(tries) <= late:
            raise Exception(words)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_workers, "install", lambda: None)
    expected = pytest.raises(StudyFailed, match="this machine is too busy") if late == TRIES else nullcontext()
    with expected, ray_workers.workers(1, str(tmp_path)):
        assert late < TRIES
    assert len(tries) == min(late + 1, TRIES)


@pytest.mark.slow
def test_where_a_notebook_imported_ray_it_takes_our_token_and_its_workers_are_no_nicer_than_we() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, timeout=300, check=False)
    assert (ran.returncode, ran.stdout) == (0, "0\n"), ran.stdout + ran.stderr
