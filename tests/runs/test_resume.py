"""A run that was killed goes on from its last complete round, and ends with the weights of one that was not."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from flip.cli.execute import execute
from flip.cli.launch import launch
from tests.cohorts.heart import write_tiny_heart
from tests.commands import run_flip
from tests.studies import SMALL_HEART, compose_study

STUDIES = {
    "SCAFFOLD's controls, half of the sites in a round": ["strategy=scaffold", "strategy.fraction=0.5"],
    "a server optimizer's moments, a site's own optimizer": [
        "strategy=fedadam", "trainer.optimizer_state=keep", "model.optimizer._target_=torch.optim.Adam",
        "dataset.split.train=0.6", "dataset.split.validate=0.1",
    ],
    "the privacy ledger": ["privacy=dp_sgd", "dataset.scaling=declared"],
}  # fmt: skip
KILLED = {"flower": "ledger", "nvflare": "optimizer", "live flower": "SCAFFOLD", "live nvflare": "optimizer"}
"""By backend a word of the study that is killed there: each kind of state on one backend at least."""
ROUNDS = ("strategy.rounds=6", "trainer.steps=10")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


def study_of(data: Path, *overrides: str):
    """What the command line below composes too, to the letter: noise of a private study depends on all of it."""
    small = [*SMALL_HEART, *ROUNDS, f"paths.data_dir={data}", "federation=inprocess"]
    return compose_study("experiment=heart_disease", *small, *overrides)


def begin(data: Path, folder: Path, *overrides: str) -> multiprocessing.process.BaseProcess:
    """The run in a process of its own, which starts with all that is imported here."""
    process = FORK.Process(target=lambda: execute(study_of(data, *overrides), folder))
    process.start()
    return process


def resumed(folder: Path, data: Path) -> dict:
    """The result after the run has gone on, in a process of its own as at the command line."""
    process = FORK.Process(target=lambda: os._exit(launch([f"resume={folder}", f"paths.data_dir={data}"])))
    process.start()
    process.join()
    assert process.exitcode == 0, (folder / "log.txt").read_text()[-2000:]
    return json.loads((folder / "result.json").read_text())


def wait_for(path: Path, process: multiprocessing.process.BaseProcess) -> None:
    """Until the file is there, or the process has ended."""
    while process.is_alive() and not path.exists():
        time.sleep(0.001)


def kill(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def killed_on(backend: str) -> str:
    """The study that is killed on a backend."""
    return next(name for name in STUDIES if KILLED[backend] in name)


def random_moment(whole: "Whole") -> float:
    """In bytes of what a study writes down; its last tenth is that of the test split, the result and the report."""
    return random.uniform(0, 0.9) * size_of(whole.folder / "rounds.jsonl")


def lines_of(folder: Path) -> list[tuple]:
    records = map(json.loads, (folder / "rounds.jsonl").read_text().splitlines())
    return sorted((each["phase"], each["round"], each["site"]) for each in records)


@dataclass
class Whole:
    """A run that nothing befell."""

    folder: Path
    result: dict


@pytest.fixture(scope="module")
def wholes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """The uninterrupted run of each study, made once."""

    @cache
    def make(name: str) -> Whole:
        folder = tmp_path_factory.mktemp("whole") / "run"
        return Whole(folder, execute(study_of(data, *STUDIES[name]), folder))

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "SCAFFOLD" in name else [pytest.mark.slow]) for name in STUDIES]
)
def test_a_run_killed_after_a_round_goes_on_from_it(name, wholes, data, tmp_path):
    whole = wholes(name)
    process = begin(data, tmp_path / "killed", *STUDIES[name])
    wait_for(tmp_path / "killed" / "state" / "round.safetensors", process)
    kill(process)
    after = resumed(tmp_path / "killed", data)
    assert {key: after[key] for key in ("status", "digest", "rounds", "metrics", "privacy")} == {
        key: whole.result[key] for key in ("status", "digest", "rounds", "metrics", "privacy")
    }
    assert lines_of(tmp_path / "killed") == lines_of(whole.folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_a_run_killed_at_a_random_moment_ends_with_the_same_weights(number, wholes, data, tmp_path):
    name = list(STUDIES)[number % len(STUDIES)]
    whole = wholes(name)
    process = begin(data, tmp_path / "killed", *STUDIES[name])
    wait_for(tmp_path / "killed" / "run.yaml", process)
    moment = random_moment(whole)
    while process.is_alive() and size_of(tmp_path / "killed" / "rounds.jsonl") < moment:
        time.sleep(random.uniform(0, 0.002))
    kill(process)
    assert process.exitcode == -signal.SIGKILL
    after = resumed(tmp_path / "killed", data)
    assert after["status"] == "ok", after["reason"]
    assert (after["digest"], after["privacy"]) == (whole.result["digest"], whole.result["privacy"])


@pytest.mark.long  # live, in each run of the tests: test_live_faults.py
@pytest.mark.parametrize("backend", ["flower", "nvflare"])
def test_a_run_killed_on_a_backend_at_a_random_moment_ends_with_the_same_weights(backend, wholes, data, tmp_path):
    name = killed_on(backend)
    whole = wholes(name)
    moment = random_moment(whole)
    small = [*SMALL_HEART, *ROUNDS, f"paths.data_dir={data}", f"federation={backend}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flip", "experiment=heart_disease", *small, *STUDIES[name], "hydra.run.dir=run"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    run = tmp_path / "run"
    while process.poll() is None and not ((run / "run.yaml").exists() and size_of(run / "rounds.jsonl") >= moment):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / "result.json").exists()
    ran = run_flip(tmp_path, "resume=run", f"paths.data_dir={data}", seconds=200)
    assert ran.returncode == 0, ran.stderr
    assert whole.result["digest"][:12] in ran.stdout


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `run`, which was killed after a round."""
    folder = tmp_path_factory.mktemp("killed")
    process = begin(data, folder / "run")
    wait_for(folder / "run" / "state" / "round.safetensors", process)
    kill(process)
    return folder


@pytest.mark.slow
def test_a_line_that_was_cut_off_is_written_again(killed, data, tmp_path):
    with (killed / "run" / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "site": "cle')
    whole = execute(study_of(data), tmp_path / "whole")
    ran = run_flip(killed, "resume=run", f"paths.data_dir={data}", seconds=120)
    assert ran.returncode == 0, ran.stderr
    assert whole["digest"][:12] in ran.stdout
    assert lines_of(killed / "run") == lines_of(tmp_path / "whole")


def test_a_run_that_ended_well_is_not_touched(data, tmp_path):
    execute(study_of(data, "strategy.rounds=1"), tmp_path / "run")
    ran = run_flip(tmp_path, "resume=run", f"paths.data_dir={data}", seconds=60)
    assert ran.returncode == 2
    assert "this run has ended well" in ran.stderr


@pytest.mark.slow
def test_another_study_does_not_go_on_in_a_runs_folder(data, tmp_path):
    execute(study_of(data, "strategy.rounds=1"), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    ran = run_flip(tmp_path, "resume=run", f"paths.data_dir={data}", "seed=7", seconds=60)
    assert ran.returncode == 2
    assert "makes another study of it" in ran.stderr


def test_a_folder_without_a_run_is_named(tmp_path):
    ran = run_flip(tmp_path, "resume=nothing", seconds=60)
    assert ran.returncode == 2
    assert "nothing: holds no run" in ran.stderr


@pytest.mark.slow
def test_two_processes_do_not_work_in_one_folder(data, tmp_path):
    process = begin(data, tmp_path / "run")
    wait_for(tmp_path / "run" / "run.yaml", process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        ran = run_flip(tmp_path, "resume=run", f"paths.data_dir={data}", seconds=60)
    finally:
        kill(process)
    assert ran.returncode == 2
    assert "another process runs in this folder" in ran.stderr
