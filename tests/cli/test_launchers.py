"""Hydra's launchers and sweepers, which run a sweep in other processes or choose its values.

They are no part of the environment; `make test-launchers` puts them beside it. Each trains two tiny runs or three.
"""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.small_study import write_small_study
from tests.commands import run_flip
from tests.federation.live import until
from tests.processes import Family

PLUGINS = ("hydra_joblib_launcher", "hydra_submitit_launcher", "hydra_optuna_sweeper")
missing = (
    [name for name in PLUGINS if importlib.util.find_spec(f"hydra_plugins.{name}") is None]
    if (importlib.util.find_spec("hydra_plugins"))
    else list(PLUGINS)
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; make test-launchers"),
]
LAUNCHERS = pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])


def swept(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_flip(
        folder, "-m", *write_small_study(folder), "hydra.sweep.dir=sweep", *words, seconds=500, COLUMNS="80"
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep" / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@LAUNCHERS
def test_runs_in_other_processes_are_in_the_table_failed_ones_too(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("raise SystemExit('the working folder ran')\n")
    done = swept(tmp_path, f"hydra/launcher={launcher}", "trainer.epochs=1,x")
    assert done.returncode == 1, done.stdout + done.stderr
    assert [row["status"] for row in rows(tmp_path)] == ["ok", "not run"]
    assert "not run: [1] trainer.epochs (the command line)" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert any(line.startswith("0 ") and " ok " in line for line in done.stdout.splitlines())
    hidden = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file() and b"/private/" in path.read_bytes()]
    assert [path for path in hidden if readable(path, tmp_path) and path.name != "log.txt"] == []


def readable(path: Path, within: Path) -> bool:
    """Whether another user can read a file."""
    folders = [each for each in path.parents if each.is_relative_to(within) and each != within]
    return bool(path.stat().st_mode & 0o004) and all(each.stat().st_mode & 0o001 for each in folders)


@LAUNCHERS
def test_a_signal_ends_the_runs_in_other_processes_with_a_result(launcher: str, tmp_path: Path) -> None:
    words = ["-m", *write_small_study(tmp_path), "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}", "seed=1,2,3,4"]
    words += ["strategy.rounds=100000", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else ["seed=1,2"])]
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen([sys.executable, "-m", "flip", *words], cwd=tmp_path, stdout=out, stderr=out) as process,
        Family(process.pid) as family,
    ):
        begun = [tmp_path / "sweep" / number / "state" / "round.safetensors" for number in ("0", "1")]
        until(lambda: all(each.exists() for each in begun) or process.poll() is not None, 200, "no round was complete")
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 128 + signal.SIGTERM, (tmp_path / "out").read_text()
        assert [row["status"] for row in rows(tmp_path)] == ["interrupted"] * 2
        assert family.left() == []
    assert "Traceback" not in (tmp_path / "out").read_text()


def test_optuna_maximizes_the_main_metric_on_validation_data(tmp_path: Path) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    done = swept(tmp_path, *words, "model.optimizer.lr=interval(0.0001,0.1)")
    assert done.returncode == 0, done.stdout + done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    monitor = json.loads((tmp_path / "sweep" / "0" / "result.json").read_text())["monitor"]
    assert found["best_value"] == max(float(row[f"validate/pooled/{monitor}"]) for row in rows(tmp_path))
    assert len({row["model.optimizer.lr"] for row in rows(tmp_path)}) == 3


def test_optuna_is_refused_the_wrong_direction_and_a_study_without_validation(tmp_path: Path) -> None:
    optuna = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "model.optimizer.lr=interval(0.0001,0.1)"]
    wrong = swept(tmp_path, *optuna, "hydra.sweeper.direction=minimize")
    assert wrong.returncode == 2
    assert "hydra.sweeper.direction=minimize: the study's main metric is better the other way; maximize" in wrong.stderr
    split = "dataset.split={_target_: datamodules.splits.ByPerson, train: 0.7, validate: 0.0, seed: 1}"
    none = swept(tmp_path, *optuna, split, "hydra.sweeper.n_jobs=1", "model.head.threshold=0.5")
    assert none.returncode == 1
    assert "declare a validation split" in none.stderr
    assert not (tmp_path / "sweep" / "1" / "result.json").exists()
    assert os.listdir(tmp_path / "sweep" / "0")
