"""A run folder that somebody else made: nothing in it runs code of its author's, nor brings a secret into the run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flip.config.checks.study import check
from flip.config.study import Study
from flip.errors import UserError
from flip.runs.given import given_files
from flip.runs.provenance import provenance
from flip.runs.rerun import run_files
from tests.cohorts.heart import write_tiny_heart
from tests.conftest import Acme
from tests.studies import compose_study, tiny_heart_study


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The configuration of a finished run."""
    study = tiny_heart_study(write_tiny_heart(tmp_path / "data"), "federation=inprocess")
    folder = tmp_path / "run"
    for name, text in run_files(study).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def again(run: Path, *overrides: str) -> Study:
    return compose_study(*overrides, config_dir=run, config_name="run")


def added(run: Path, text: str, file: str = "run.yaml") -> None:
    """Put keys into one of its files, in place of those of the same name."""
    values = yaml.safe_load(text)
    lines = (run / file).read_text() if (run / file).exists() else ""
    kept = yaml.safe_load(lines) or {}
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text(yaml.safe_dump({**kept, **values}))


def test_the_study_is_the_same(run, tmp_path):
    study = tiny_heart_study(tmp_path / "data", "federation=inprocess")
    found = again(run)
    assert found.manifest_text == study.manifest_text
    assert found.backend == "inprocess"
    assert {name: each.root for name, each in found.sites.items()} == {
        name: each.root for name, each in study.sites.items()
    }


SECRET = "${oc.env:SECRET_OF_THE_MACHINE}"


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (f"notice: '{SECRET}'", "run.yaml"),
        (f"name: 'a {SECRET}'", "run.yaml"),
        (f"strategy: {{_target_: flip.strategies.fedavg.FedAvg, rounds: 1, share: ['{SECRET}']}}", "run.yaml"),
        (f"tracking: {{table: {{_target_: flip.tracking.WandbTracker, project: '{SECRET}'}}}}", "run.yaml"),
        (f"'{SECRET}': 1", "run.yaml"),
        (f"root: '{SECRET}'", "sites/va.yaml"),
        (f"columns: {{age: '${{paths.data_dir}}{SECRET}'}}", "sites/va.yaml"),
        (f"data_dir: '{SECRET}'", "paths/run.yaml"),
        ("data_dir: '${oc.env:FLIP_DATA_DIR,${oc.env:SECRET_OF_THE_MACHINE}}'", "paths/run.yaml"),
        ("notice: '\\${oc.env:SECRET_OF_THE_MACHINE}'", "run.yaml"),
        (f"timeout: '{SECRET}'", "federation/inprocess.yaml"),
    ],
)
def test_an_interpolation_is_refused(run, monkeypatch, text, file):
    monkeypatch.setenv("SECRET_OF_THE_MACHINE", "hunter2")
    added(run, text, file)
    with pytest.raises(UserError, match="is an interpolation") as refused:
        again(run)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("file", ["sites/va.yaml", "federation/inprocess.yaml", "paths/run.yaml"])
def test_a_file_beside_it_has_its_own_keys_alone(run, acme: Acme, file):
    added(run, "allow_targets: [acme.]", file)
    (run / file).write_text("# @package _global_\n" + (run / file).read_text())
    with pytest.raises(UserError, match="allow_targets"):
        check(again(run))


def test_the_authors_code_is_not_allowed(run, acme: Acme):
    added(run, "{dataset: {_target_: acme.parts.Data}, allow_targets: [acme.]}")
    with pytest.raises(UserError, match=r"acme\.parts\.Data is outside the allowed prefixes"):
        check(again(run))


def test_the_command_line_allows_it_still(run, acme: Acme):
    added(run, "allow_targets: [acme.]")
    assert again(run, "allow_targets=[acme.]").allow_targets == ("acme.",)


def test_paths_and_hydra_are_this_machines(run, tmp_path):
    added(run, f"paths: {{runs: {tmp_path / 'elsewhere'}}}")
    added(run, f"hydra: {{run: {{dir: {tmp_path / 'elsewhere'}}}, searchpath: ['file://{tmp_path}']}}")
    assert "elsewhere" not in given_files(run)["run.yaml"]
    assert again(run).paths.runs.endswith("/runs")


def test_other_files_of_the_folder_are_not_read(run):
    added(run, "defaults: [schema, evil, {paths: run}, {federation: inprocess}, {sites: [va]}, _self_]")
    added(run, "allow_targets: [evil.]", "evil.yaml")
    added(run, "allow_targets: [evil.]", "strategy/fedavg.yaml")
    assert again(run).allow_targets == ()


@pytest.mark.parametrize(
    "text", ["defaults: 3", "defaults: [{federation: ../x}]", "defaults: [{federation: inprocess}, {sites: [../x]}]"]
)
def test_what_is_no_runs_is_named(run, text):
    added(run, text)
    with pytest.raises(UserError, match=r"run\.yaml: its defaults choose no"):
        again(run)


def test_a_file_that_cannot_be_read_is_named(run):
    (run / "run.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"run\.yaml: cannot be read as a run's"):
        again(run)


def test_nothing_is_left_of_reading_it(run, temporary):
    again(run)
    assert list(temporary.iterdir()) == []
    shutil.rmtree(run)


def test_the_command_that_runs_it_again_allows_what_it_was_allowed_once(tmp_path):
    study = replace(tiny_heart_study(write_tiny_heart(tmp_path / "data")), allow_targets=("acme.",))
    assert provenance(study, tmp_path, "r")["rerun"].endswith("--config-name run 'allow_targets=[acme.]'")
    assert provenance(study, tmp_path, "r")["rerun"].count("allow_targets") == 1
