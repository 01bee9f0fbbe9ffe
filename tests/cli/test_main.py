"""The single entrypoint: help, version, showing a configuration, running, sweeping, and the exit status."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flip as engine
from flip.__main__ import main
from flip.config.jobs import JOBS
from tests.conftest import ROOT, Acme, Flip

LOADED = (
    "import runpy, sys\n"
    "sys.argv[1:] = {arguments!r}\n"
    "try:\n    runpy.run_module('flip', run_name='__main__')\n"
    "except SystemExit as status:\n    print('status', status.code)\n"
    "print('torch' in sys.modules, 'hydra' in sys.modules)"
)


def loaded(folder: Path, *arguments: str) -> tuple[str, str]:
    """Exit status, and whether torch and hydra were imported."""
    import subprocess

    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    status, modules = done.stdout.splitlines()[-2:]
    return status, modules


def seconds(flip: Flip, *arguments: str) -> float:
    """Of a processor, the best of three: other processes may be running."""
    times = []
    for _ in range(3):
        before = os.times()
        flip(*arguments)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def test_alone_it_says_what_it_is_and_what_to_type_next(flip: Flip) -> None:
    done = flip()
    assert done.returncode == 0
    assert "python -m flip experiment=" in done.stdout
    assert "python -m flip --help" in done.stdout
    assert "heart_disease" in done.stdout


def test_help_fits_on_one_screen_of_80_columns_and_24_lines(flip: Flip) -> None:
    lines = flip("--help", COLUMNS="80").stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80


def test_help_names_every_command_and_every_job(flip: Flip) -> None:
    text = flip("--help").stdout
    named = [line.split()[1].split("|") for line in text.splitlines() if line.startswith("flip ")]
    own = {"report", "card", "export", "deploy", "start", "site"}
    assert {each for names in named for each in names} == {
        "experiment=NAME",
        "--config-dir",
        "resume=RUN",
        "--help",
    } | own
    assert all(f"job={job}" in text for job in JOBS if job != "train")


def test_help_lists_every_option_of_every_group(flip: Flip) -> None:
    text = flip("--help", "all").stdout
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert f"{path.parent.name}=\n" in text
        assert f"    {path.stem}" in text


def test_help_lists_the_options_of_one_group(flip: Flip) -> None:
    text = flip("--help", "strategy").stdout
    assert "    fedprox" in text
    assert "    heart_disease" not in text


def test_help_names_the_nearest_group(flip: Flip) -> None:
    done = flip("--help", "stratgy")
    assert done.returncode == 2
    assert "--help stratgy: there is no such group; did you mean 'strategy'?" in done.stderr


def test_help_lists_a_configuration_of_ones_own(flip: Flip, acme: Acme) -> None:
    done = flip("--config-dir", str(acme.conf), "--help", "experiment")
    assert re.search(r"\n    acme +A study of one's own\n", done.stdout)


def test_a_word_that_is_no_command_is_refused_by_name(flip: Flip) -> None:
    done = flip("reprot", "runs/heart")
    assert done.returncode == 2
    assert "reprot: is neither a command nor key=value; did you mean 'report'?" in done.stderr


def test_a_command_that_is_not_the_first_word_is_named_as_such(flip: Flip) -> None:
    done = flip("--config-dir", "mine", "report", "runs/heart")
    assert done.returncode == 2
    assert "report: is a command, so it comes first: flip report ..." in done.stderr


@pytest.mark.parametrize("command", ["report", "deploy", "start"])
def test_each_command_has_help_of_its_own_and_loads_no_torch(command: str, folder: Path) -> None:
    assert loaded(folder, command, "--help") == ("status 0", "False False")


def test_a_module_of_pythons_name_in_the_working_folder_does_not_run(flip: Flip, folder: Path) -> None:
    for name in ("secrets", "tempfile", "subprocess", "argparse"):
        (folder / f"{name}.py").write_text("raise SystemExit('the working folder ran')\n")
    done = flip("--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_help_answers_within_a_second(flip: Flip) -> None:
    assert seconds(flip, "--help") < 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--help", "all"], ["--version"]], ids=" ".join)
def test_help_imports_neither_torch_nor_hydra(arguments: list[str], folder: Path) -> None:
    assert loaded(folder, *arguments) == ("status 0", "False False")


def test_version(flip: Flip) -> None:
    assert flip("--version").stdout == f"flip-engine {engine.__version__}\n"


def test_cfg_job_shows_the_study_within_two_seconds(flip: Flip) -> None:
    text = flip("experiment=heart_disease", "--cfg", "job").stdout
    assert "name: heart_disease" in text
    assert "hydra:" not in text
    assert seconds(flip, "experiment=heart_disease", "--cfg", "job") < 2


def test_cfg_job_imports_no_torch(folder: Path) -> None:
    assert loaded(folder, "experiment=heart_disease", "--cfg", "job") == ("status 0", "False True")


def test_cfg_shows_one_part_resolved(flip: Flip) -> None:
    shown = flip(
        "experiment=heart_disease", "--cfg", "job", "--package", "sites.va.root", "--resolve", FLIP_DATA_DIR="/d"
    )
    assert shown.stdout == "/d/uci_heart/processed.va.data\n"


def test_cfg_resolved_has_the_numbers_that_the_dataset_declares(flip: Flip) -> None:
    assert "  features: 13\n" in flip("experiment=heart_disease", "--cfg", "job", "--resolve").stdout


def test_a_part_that_cannot_be_resolved_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ["--cfg", "job", "--package", "model.roi", "--resolve"]
    assert main(["experiment=abdomen_3d", "dataset=bundle", "model=bundle", "bundle=nowhere", *shown]) == 2
    assert "--resolve: bundle=nowhere: holds no configs/inference.json" in capsys.readouterr().err


class Runs:
    """Stands in for the engine: notes what it was asked to run."""

    def __init__(self, status: str = "ok") -> None:
        self.status, self.studies, self.folders = status, list[Any](), list[Path]()

    def execute(self, study: Any, folder: Path, resumes: str | None = None) -> dict[str, str]:
        self.studies.append(study)
        self.folders.append(folder)
        return {"status": self.status}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setitem(sys.modules, "flip.cli.execute", SimpleNamespace(execute=found.execute))
    return found


@pytest.mark.parametrize(
    ("backend", "rounds"), [("inprocess", ["strategy.rounds=2"]), pytest.param("none", [], marks=pytest.mark.slow)]
)
def test_a_researchers_own_package_and_configuration_run(
    backend: str, rounds: list[str], acme: Acme, folder: Path, flip: Flip
) -> None:
    done = flip(*acme.arguments(f"federation={backend}", *rounds))
    assert done.returncode == 0, done.stdout + done.stderr
    run = next(folder.glob("runs/acme/*"))
    assert "acme.parts.Model" in (run / "run.yaml").read_text()
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["rounds"]) == ("ok", 2)
    assert {"test/site/north/accuracy", "test/site/south/accuracy"} <= set(result["metrics"])


def test_a_prefix_that_is_not_allowed_is_refused(acme: Acme, folder: Path, runs: Runs, capsys: Any) -> None:
    assert main(acme.arguments("allow_targets=[]")) == 2
    assert "acme.parts.Model is outside the allowed prefixes" in capsys.readouterr().err
    assert runs.studies == []


def test_each_run_has_a_folder_of_its_own(acme: Acme, folder: Path, runs: Runs) -> None:
    main(acme.arguments())
    main(acme.arguments())
    assert len(set(runs.folders)) == 2
    assert {path.parent for path in runs.folders} == {folder / "runs" / "acme"}


def test_the_run_folder_can_be_chosen(acme: Acme, folder: Path, runs: Runs) -> None:
    main(acme.arguments("hydra.run.dir=here"))
    assert runs.folders == [folder / "here"]


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("failed", 1), ("refused", 1)])
def test_the_exit_status_is_zero_only_for_success(status: str, code: int, acme: Acme, folder: Path, runs: Runs) -> None:
    runs.status = status
    assert main(acme.arguments()) == code


def test_a_site_left_out_takes_no_part(acme: Acme, folder: Path, runs: Runs) -> None:
    main(acme.arguments("~sites.south"))
    assert list(runs.studies[0].sites) == ["north"]


def test_one_hospital_on_its_own_file(acme: Acme, folder: Path, runs: Runs) -> None:
    policy = "{minimum_persons: 2, minimum_cell: 1}"
    (folder / "own.yaml").write_text(f"root: {acme.cohort('north')}\npolicy: {policy}\n")
    assert main(acme.arguments("site_file=own.yaml")) == 0
    assert list(runs.studies[0].sites) == ["own"]


def test_one_hospital_has_nobody_to_federate_with(acme: Acme, folder: Path, runs: Runs, capsys: Any) -> None:
    (folder / "own.yaml").write_text(f"root: {acme.cohort('north')}\npolicy: public_data\n")
    assert main(acme.arguments("site_file=own.yaml", "federation=inprocess")) == 2
    assert "one hospital has nobody to federate with" in capsys.readouterr().err


def test_a_sweep_with_an_option_that_there_is_not_runs_nothing(flip: Flip, acme: Acme, folder: Path) -> None:
    done = flip("-m", *acme.arguments("strategy=fedavg,fedavgg"))
    assert done.returncode == 2
    assert "strategy=fedavgg (the command line): there is no such option; did you mean 'fedavg'?" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_of_mistakes_leaves_nothing(flip: Flip, acme: Acme, folder: Path) -> None:
    done = flip("-m", *acme.arguments("strategy.rounds=x,y"))
    assert done.returncode == 1
    assert "not run: [1] strategy.rounds (the command line): 'y' is the wrong type" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_failed_run_does_not_end_a_sweep_and_a_table_ends_it(flip: Flip, data_dir: Path, folder: Path) -> None:
    done = flip(
        "-m", "experiment=heart_disease", "federation=inprocess", "trainer.steps=2", "strategy.rounds=x,1",
        FLIP_DATA_DIR=str(data_dir),
    )  # fmt: skip
    results = sorted(folder.glob("runs/*/*/result.json"))
    assert [json.loads(path.read_text())["status"] for path in results] == ["ok"]
    assert "accuracy" in done.stdout
    assert "not run: [0] strategy.rounds (the command line): 'x' is the wrong type" in done.stderr
    assert done.returncode == 1
