"""From Python: the two calls of a notebook, what they return, and how they fail."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import flip as engine
from flip.__main__ import main
from flip.errors import UserError
from flip.runs.run import Run
from tests.cohorts.heart import write_tiny_heart
from tests.conftest import ROOT, Acme

README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def heart(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, where tiny data of the heart study are found by themselves."""
    monkeypatch.setenv("FLIP_DATA_DIR", str(write_tiny_heart(tmp_path / "data")))
    return folder


@pytest.fixture
def ended(acme: Acme, folder: Path) -> Run:
    """A run of two rounds."""
    return engine.run(engine.compose(SMALL, config_dir=acme.conf))


SMALL = ["experiment=acme", "federation=inprocess", "strategy.rounds=2"]


def test_the_engine_is_imported_without_what_it_needs_to_run() -> None:
    code = "import flip, sys; print({'torch', 'hydra', 'pandas', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"


def test_the_lines_of_the_readme_run(heart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = README
    (heart / "lines.py").write_text(lines)
    run = runpy.run_path(str(heart / "lines.py"))["run"]
    assert isinstance(run, Run)
    assert f"ok {run.metrics['test/pooled/accuracy']} {run.folder}" in capsys.readouterr().out
    assert len(lines.splitlines()) <= 8


@pytest.mark.slow
def test_a_notebook_shows_the_report(heart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(README[0])])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(heart)}}).execute()
    shown = [each["data"]["text/html"] for each in notebook.cells[0].outputs if "data" in each]
    assert shown[-1].startswith("<iframe")
    assert "heart_disease" in shown[-1]


def test_the_command_of_a_run_is_the_one_that_was_typed_and_from_python_there_is_none(
    ended: Run, acme: Acme, folder: Path
) -> None:
    typed = acme.arguments("hydra.run.dir=typed", "job=check")
    assert main(typed) == 0
    told = [json.loads((run / "provenance.json").read_text())["command"] for run in (ended.folder, folder / "typed")]
    assert told == [None, shlex.join(["python", "-m", "flip", *typed])]


def test_the_command_line_gives_the_same_weights(ended: Run, acme: Acme, folder: Path) -> None:
    assert main(acme.arguments("hydra.run.dir=typed", *SMALL[1:])) == 0
    assert json.loads((folder / "typed" / "result.json").read_text())["digest"] == ended.result["digest"]


def test_a_study_that_is_run_twice_has_two_folders(acme: Acme, folder: Path) -> None:
    study = engine.compose(["job=check", *SMALL], config_dir=acme.conf)
    first, second = engine.run(study), engine.run(study)
    assert first.folder != second.folder
    assert first.folder.parent == second.folder.parent == folder / "runs" / "acme"


def test_the_folder_can_be_given_and_is_used_once(acme: Acme, folder: Path) -> None:
    study = engine.compose(["job=check", *SMALL], config_dir=acme.conf)
    assert engine.run(study, "here").folder == folder / "here"
    with pytest.raises(UserError, match="holds a run already"):
        engine.run(study, "here")


def test_the_rounds_are_a_table_that_counts_from_one(ended: Run) -> None:
    rounds = ended.rounds
    fits = rounds[rounds["phase"] == "fit"]
    assert isinstance(rounds, pd.DataFrame)
    assert sorted(zip(fits["round"], fits["site"], strict=True)) == [
        (1, "north"), (1, "south"), (2, "north"), (2, "south"),
    ]  # fmt: skip
    assert fits["loss"].notna().all()


def test_the_metrics_are_those_of_the_result(ended: Run) -> None:
    assert ended.metrics == json.loads((ended.folder / "result.json").read_text())["metrics"]


def test_every_mistake_is_raised_at_once(acme: Acme, folder: Path) -> None:
    with pytest.raises(UserError) as mistakes:
        engine.compose(["experiment=acme", "strategy.rouns=2", "seed=x"], config_dir=acme.conf)
    assert len(mistakes.value.problems) == 2


def test_one_text_in_place_of_the_list_is_a_mistake_of_its_own(folder: Path) -> None:
    with pytest.raises(UserError) as mistake:
        engine.compose("experiment=acme")
    assert mistake.value.problems == ["experiment=acme: must be a list, as in compose(['experiment=acme'])"]


def test_a_run_that_fails_says_so_and_raises_nothing(acme: Acme, folder: Path) -> None:
    policy = "sites.south.policy={minimum_persons: 1000, minimum_cell: 1}"
    run = engine.run(engine.compose([*SMALL, "strategy.min_sites=2", policy], config_dir=acme.conf))
    assert run.status == "refused"
    assert "south" in run.reason
    assert run.metrics == {}


def test_the_report_is_shown_in_a_frame_that_runs_no_script(ended: Run) -> None:
    shown = ended._repr_html_()
    assert shown.startswith("<iframe sandbox srcdoc=")
    assert "<h1" not in shown  # the page is escaped


def test_a_run_without_a_report_shows_how_it_ended(tmp_path: Path) -> None:
    assert Run(tmp_path, {"status": "failed", "reason": "a < b"})._repr_html_() == "<p>failed a &lt; b</p>"
