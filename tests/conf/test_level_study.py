"""The level of L3 in whole scans, declared in YAML alone, at hospitals that tell it by a column or by masks."""

from pathlib import Path

import pytest

from flip.cli.execute import execute
from tests.datamodules.level_sites import NAMES, site
from tests.studies import compose_study

STUDY = """
# @package _global_
defaults:
  - override /dataset: levels
  - override /model: level_finder
  - override /sites: [north, south, west]
  - override /federation: inprocess
name: level
dataset:
  projections: {step_mm: 6.0, pixel_mm: 8.0, width: 36}
  others: [vertebra_T11, vertebra_T12, vertebra_L1, vertebra_L2, vertebra_L4, vertebra_L5]
  split: {train: 0.7, validate: 0.15}
model:
  network: {channels: [8, 16], width: 32, gaps: [1, 2, 4, 8], dropout: 0.0}
  optimizer: {lr: 0.003}
strategy: {rounds: 4}
trainer: {steps: null, epochs: 6}
"""
MASKS = ", ".join(f"vertebra_{name}: {number}" for number, name in enumerate(NAMES, start=1))
COLUMNS = {"north": "{}", "south": f"{{level_mm: null, {MASKS}}}", "west": "{}"}


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's YAML, beside the scans of its sites; west is never trained on."""
    folder = tmp_path_factory.mktemp("level")
    for seed, (name, columns) in enumerate(COLUMNS.items()):
        root = site(folder / "data" / name, 24, masks=name == "south", seed=seed)
        path = folder / "conf" / "sites" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"# @package sites.{name}\nroot: {root}\npolicy: public_data\ncolumns: {columns}\n"
            f"trains: {str(name != 'west').lower()}\n"
        )
    experiment = folder / "conf" / "experiment" / "level.yaml"
    experiment.parent.mkdir()
    experiment.write_text(STUDY)
    return folder / "conf"


@pytest.mark.slow
def test_a_site_never_trained_on_finds_the_level_and_says_where_there_is_none(conf, tmp_path):
    result = execute(compose_study("experiment=level", config_dir=conf), tmp_path / "run")
    found = result["metrics"]
    assert result["status"] == "ok"
    assert found["test/site/west/error_median_binned"] <= 3.0 and found["test/site/west/within_10mm"] >= 0.9
    assert found["test/site/west/absent_told"] >= 0.8


@pytest.mark.slow
def test_under_a_hospitals_minimum_cell_the_study_ends_and_tells_nothing_of_few(conf, tmp_path):
    policies = [f"sites.{name}.policy={{minimum_persons: 10, minimum_cell: 5}}" for name in COLUMNS]
    result = execute(compose_study("experiment=level", *policies, config_dir=conf), tmp_path / "run")
    found = result["metrics"]
    assert result["status"] == "ok" and found["test/site/west/error_mm"] < 10
    assert not any(name.startswith("test/site/north/within") for name in found)  # of 4 persons
