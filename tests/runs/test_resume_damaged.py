"""A run goes on over its own sites alone, and a damaged file is one sentence or costs one round."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flip.__main__ import main
from flip.cli.execute import execute
from flip.cli.launch import launch
from flip.errors import UserError
from flip.runs.resume import unfinished
from flip.signals import Interrupted
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

SITES = "sites=[cleveland,hungarian,va]"
BEFORE, LAST = "state/round_before.safetensors", "state/round.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run over three hospitals that nothing befell, and its result."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = execute(tiny_heart_study(data, SITES, "federation=inprocess", "dataset.split.validate=0.1"), folder)
    return folder, result


@pytest.fixture
def run(whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run as it was when it had not ended."""
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.fixture
def refused(run: Path, data: Path) -> Callable[..., str]:
    """What is said to the command that goes on with the run."""

    def said(*overrides: str) -> str:
        with pytest.raises(UserError) as error:
            launch([f"resume={run}", f"paths.data_dir={data}", *overrides])
        return str(error.value)

    return said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("~sites.va", "va took part in the run, and is left out now"),
        ("sites=[cleveland,hungarian,va,switzerland]", "switzerland did not take part in the run"),
        ("sites.va.trains=false", "sites.va.trains is another than in the run"),
        ("sites.va.columns={chol: trestbps, trestbps: chol}", "sites.va.columns is another than in the run"),
    ],
)
def test_another_roster_does_not_go_on(override, said, refused, run):
    cut(run / LAST)
    before = contents(run)
    assert said in refused(override)
    assert contents(run) == before


def test_ctrl_c_while_a_resume_starts_says_how_to_go_on(run, monkeypatch, capsys):
    def interrupted(*args: object, **named: object) -> None:
        raise Interrupted(signal.SIGINT)

    before = contents(run)
    monkeypatch.setattr("flip.cli.launch.compose", interrupted)
    assert main([f"resume={run}"]) == 130
    told = "interrupted  interrupted from the keyboard; go on: python -m flip resume=run\n"
    assert capsys.readouterr().err == told
    assert contents(run) == before


@pytest.mark.parametrize(("key", "value"), [("part", 1), ("sources", {"table": {"_target_": "datamodules.x.Y"}})])
def test_other_rows_of_a_site_do_not_go_on(key, value, run, data):
    study = tiny_heart_study(data, SITES, "federation=inprocess", "dataset.split.validate=0.1")
    unfinished(run).refuse_other(study)
    study.sites["va"] = replace(study.sites["va"], **{key: value})
    with pytest.raises(UserError, match=f"sites.va.{key} is another than in the run"):
        unfinished(run).refuse_other(study)


def contents(run: Path) -> dict[Path, bytes]:
    """All files, but for a site's own count of what it was asked about its cohort: a question has been asked."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "asked.jsonl"}


def test_other_data_of_a_site_do_not_go_on_and_the_run_stays_as_it_was(whole, run, data, tmp_path):
    (run / "result.json").write_text('{"status": "interrupted"}')
    (run / "log.txt").write_text("a line of before\n")
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    (table,) = moved.rglob("processed.va.data")
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*rows[:-1], rows[-1].replace(rows[-1].split(",")[0], "61.0", 1)]))
    before = contents(run)
    with pytest.raises(UserError, match="resume=run: the data of va are others than when the run was begun"):
        launch([f"resume={run}", f"paths.data_dir={moved}"])
    assert contents(run) == before
    assert launch([f"resume={run}", f"paths.data_dir={data}"]) == 0
    assert json.loads((run / "result.json").read_text())["digest"] == whole[1]["digest"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def tear(path: Path) -> None:
    """Cut a line of the last round in its midst, as a disk that loses a block does."""
    lines = path.read_text().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines) if json.loads(line)["round"] == 2)
    path.write_text("".join([*lines[:place], lines[place][:30] + "\n", *lines[place + 1 :]]))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (LAST, cut),
        (LAST, lambda path: path.write_bytes(b"")),
        ("rounds.jsonl", tear),
    ],
)
def test_a_damaged_last_round_is_told_and_trained_again(name, damage, whole, run, data, capsys):
    damage(run / name)
    assert launch([f"resume={run}", f"paths.data_dir={data}"]) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert f"run/{name}: is damaged" in told
    assert "goes on from the round before" in told
    after = json.loads((run / "result.json").read_text())
    assert (after["status"], after["digest"], after["metrics"]) == ("ok", whole[1]["digest"], whole[1]["metrics"])
    lines = [
        [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()] for folder in (run, whole[0])
    ]
    kinds = [sorted((each["round"], each["phase"], each["site"]) for each in found) for found in lines]
    assert kinds[0] == kinds[1]


def test_two_damaged_rounds_are_named(refused, run):
    for name in (LAST, BEFORE):
        cut(run / name)
    said = refused()
    assert f"run/{LAST}: is damaged" in said
    assert f"run/{BEFORE}: is damaged" in said
    assert "restore it from a copy, or start a new run" in said


@pytest.mark.parametrize("name", ["provenance.json", "sites/va.yaml"])
def test_a_damaged_file_is_one_sentence(name, refused, run):
    text = (run / name).read_text()
    (run / name).write_text(text[: len(text) // 2] + "\n{" if name.endswith("yaml") else text[: len(text) // 2])
    said = refused()
    assert "\n" not in said
    assert name in said


def test_a_result_that_was_cut_off_is_one_sentence(refused, run):
    (run / "result.json").write_text('{"status": "o')
    assert "result.json: is damaged, it cannot be read as json" in refused()


@pytest.mark.parametrize(("text", "said"), [("{}", "it has no run"), ("[]", "it holds no settings")])
def test_facts_that_are_whole_and_not_the_runs_are_one_sentence(text, said, refused, run):
    (run / "provenance.json").write_text(text)
    assert f"provenance.json: is damaged, {said}" in refused()


@pytest.mark.parametrize(
    ("name", "said"), [("code_sha256", "another version of the engine's"), ("manifest_sha256", "makes another study")]
)
def test_another_code_or_study_does_not_go_on(name, said, run, data):
    study = tiny_heart_study(data, SITES, "federation=inprocess", "dataset.split.validate=0.1")
    with pytest.raises(UserError, match=said):
        replace(unfinished(run), **{name: "0" * 64}).refuse_other(study)
