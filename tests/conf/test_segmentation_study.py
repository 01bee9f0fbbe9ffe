"""A study of scans with masks, declared in YAML alone, at hospitals of which one does not label every structure."""

import json
from pathlib import Path

import pytest

from flip.cli.execute import execute
from tests.datamodules.segmentation_sites import site
from tests.studies import compose_study

STUDY = """
# @package _global_
defaults:
  - override /dataset: segmentation
  - override /model: segmenter
  - override /sites: [north, south]
  - override /federation: inprocess
name: abdomen
dataset:
  structures: [liver, spleen]
  image: {_target_: datamodules.segmentation.forms.Volumes, spacing_mm: [2.0, 1.5, 3.0], orientation: LAS}
  intensity: {_target_: datamodules.segmentation.intensity.Percentiles}
  patches: {size: [8, 16, 16]}
model:
  network: {channels: [8, 16], strides: [2]}
  optimizer: {lr: 0.01}
strategy: {rounds: 3}
trainer: {steps: null, epochs: 4}
"""
COLUMNS = {"north": "{liver: 1, spleen: 6}", "south": "{liver: 1, spleen: null}"}


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's YAML, beside the scans of its sites."""
    folder = tmp_path_factory.mktemp("abdomen")
    for name, columns in COLUMNS.items():
        root = site(folder / "data" / name, 16)
        path = folder / "conf" / "sites" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package sites.{name}\nroot: {root}\npolicy: public_data\ncolumns: {columns}\n")
    experiment = folder / "conf" / "experiment" / "abdomen.yaml"
    experiment.parent.mkdir()
    experiment.write_text(STUDY)
    return folder / "conf"


@pytest.mark.slow
def test_a_site_that_labels_one_structure_trains_along_and_is_scored_by_it(conf, tmp_path):
    result = execute(compose_study("experiment=abdomen", config_dir=conf), tmp_path / "run")
    found = result["metrics"]
    assert result["status"] == "ok"
    assert min(found[f"test/site/{name}/dice_liver"] for name in COLUMNS) > 0.8
    assert found["test/site/north/dice_spleen"] > 0.8
    assert found.get("test/site/south/dice_spleen") is None
    assert result["units"].items() >= {"hd95_liver": "mm", "volume_error_liver": "mL"}.items()
    cohort = json.loads((tmp_path / "run" / "cohort.json").read_text())
    assert cohort["south"]["outcomes"].keys() == {"liver"} and cohort["north"]["outcomes"].keys() == {"liver", "spleen"}
    scans = sum(cohort[name][split] for name in COLUMNS for split in ("train", "validate", "test"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert scans == 32 and "32 of 32 persons used" in page
    assert "Persons trained on, by labeled structure: liver: " in page and "(at north)" in page


def test_a_check_does_not_ask_a_site_to_map_what_its_file_says_it_does_not_label(conf, tmp_path):
    study = compose_study("experiment=abdomen", "job=check", config_dir=conf)
    assert execute(study, tmp_path / "run")["status"] == "ok"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "has no value of it" not in page and "own_name" not in page


@pytest.mark.slow
def test_under_a_hospitals_minimum_cell_the_study_ends_with_its_scores(conf, tmp_path):
    policies = [f"sites.{name}.policy={{minimum_persons: 10, minimum_cell: 3}}" for name in COLUMNS]
    result = execute(compose_study("experiment=abdomen", *policies, config_dir=conf), tmp_path / "run")
    assert result["status"] == "ok" and result["metrics"]["test/pooled/dice_liver"] > 0.8


@pytest.mark.slow
def test_a_site_may_train_and_score_in_mixed_precision(conf, tmp_path):
    small = ["strategy.rounds=1", "trainer.epochs=1", "sites.north.precision=bf16-mixed"]
    result = execute(compose_study("experiment=abdomen", *small, config_dir=conf), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    scores = result["metrics"]
    assert 0 <= scores["test/site/north/dice_liver"] <= 1 and scores["test/site/north/volume_error_liver"] is not None


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_that_changes_the_inputs_is_refused_with_what_to_take(conf, tmp_path, capsys, precision):
    small = ["job=check", "sites=[north]", f"sites.north.precision={precision}"]
    assert execute(compose_study("experiment=abdomen", *small, config_dir=conf), tmp_path / "run")["status"] != "ok"
    assert "take 32, bf16-mixed or 16-mixed instead" in capsys.readouterr().out
