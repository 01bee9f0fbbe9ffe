"""The walk-through of conf/README.md as it is written: its files and commands, on data that ship with our libraries."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from flip.config.checks.study import check
from tests.commands import ROOT, flip
from tests.studies import compose_study, in_rounds

TEXT = (ROOT / "conf" / "README.md").read_text(encoding="utf-8").split("## Your own study")[1].split("\n## ")[0]
BLOCKS = [textwrap.dedent(block).strip() + "\n" for block in re.findall(r"(?:(?: {4}.*)?\n)+", TEXT)]
FILES = {
    found[1]: block for block in BLOCKS if (found := re.match(r"(?:# @package \w+\n)?# (\S+\.(?:yaml|py))\n", block))
}
START = "    flip --config-dir my_conf "
COMMANDS = [shlex.split(line, comments=True)[3:] for line in TEXT.splitlines() if line.startswith(START)]
STUDIES = ["tumors", "digits", "ink", "recurrence"]
MOST_LINES = 25  # of YAML for a study, its sites among them
SHORT = ["strategy.rounds=2", "trainer.centralized.max_epochs=2"]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the walk-through and the data that they speak of."""
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True)
    return folder


def commands(study: str, backend: str = "") -> list[list[str]]:
    """The arguments of the walk-through's commands for a study, those on a backend or those without federation."""
    wanted = [f"federation={backend}"] if backend else []
    found = [each for each in COMMANDS if f"experiment={study}" in each]
    return [each for each in found if [word for word in each if word.startswith("federation=")] == wanted]


def run(stranger: Path, folder: Path, command: list[str]) -> dict[str, Any]:
    """Run a command of the walk-through short, in this process and in the stranger's folder."""
    result = execute(compose_study(*command, *SHORT, config_dir=stranger / "my_conf"), folder)
    assert result["status"] == "ok", (command, result["reason"])
    return result


def test_a_study_is_few_lines_and_no_python(stranger):
    assert {name.split("/")[0] for name in FILES} == {"prepare.py", "my_conf"}
    for study in STUDIES:
        written = FILES[f"my_conf/experiment/{study}.yaml"]
        (sites,) = re.findall(r"override /sites: (\w+)", written)
        assert len((written + FILES[f"my_conf/sites/{sites}.yaml"]).splitlines()) <= MOST_LINES


@pytest.mark.slow
def test_a_new_tabular_study_is_checked_and_trained_as_written(stranger, tmp_path, monkeypatch):
    monkeypatch.chdir(stranger)
    for number, command in enumerate([*commands("tumors"), *commands("tumors", "inprocess")]):
        result = run(stranger, tmp_path / str(number), command)
    assert len(commands("tumors")) == 3
    assert result["metrics"]["test/pooled/auroc_binned"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES[1:])
def test_a_new_study_is_trained_as_written(stranger, study, tmp_path, monkeypatch):
    monkeypatch.chdir(stranger)
    (over_flower,) = commands(study, "flower")
    check(compose_study(*over_flower, config_dir=stranger / "my_conf"))
    for number, command in enumerate([*commands(study), *commands(study, "inprocess")]):
        run(stranger, tmp_path / str(number), command)


@pytest.mark.long
def test_a_new_study_has_the_same_weights_over_flower(stranger, tmp_path, monkeypatch):
    monkeypatch.chdir(stranger)
    result = run(stranger, tmp_path / "here", commands("digits", "inprocess")[0])
    (command,) = commands("digits", "flower")
    done = flip(stranger, "--config-dir", "my_conf", *command, *in_rounds(SHORT), f"paths.runs={tmp_path}/runs")
    assert done.status == 0, done.err
    (over_flower,) = (tmp_path / "runs").glob("*/*/result.json")
    assert result["digest"] in over_flower.read_text()
