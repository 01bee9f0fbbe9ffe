"""Hospitals that bound the weights which they take refuse nothing of an honest study, whatever its strategy."""

import json
from dataclasses import replace

import pytest

from flip.cli.execute import execute
from flip.config.site_file import load_site
from flip.federation import inprocess
from flip.site.silo import Silo
from tests.cohorts.heart import HOSPITALS, write_tiny_heart
from tests.studies import tiny_heart_study

RULES = "{minimum_persons: 2, minimum_cell: 1, persons_per_parameter: 0, share: 1, approval: none}"
STRATEGIES = (
    "cyclic",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedyogi",
    "median",
    "ditto",
    "scaffold",
    "trimmed_mean",
)


def deployed(sites):
    """The sites as hospitals have them: with a secret of their own."""
    files = {name: replace(load_site(path), person="row", secret=None) for name, path in sites.items()}
    return {name: Silo(name, files[name], path.with_suffix(""), deployed=True) for name, path in sites.items()}


def run(tmp_path, name, *overrides):
    policies = [f"sites.{site}.policy={RULES}" for site in HOSPITALS]
    data = tmp_path / "data" if (tmp_path / "data").exists() else write_tiny_heart(tmp_path / "data")
    folder = tmp_path / name
    result = execute(tiny_heart_study(data, "federation=inprocess", *policies, *overrides), folder)
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return result, [line for line in lines if line.get("fault")]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hospitals_give_the_weights_of_the_simulation(tmp_path, monkeypatch, strategy):
    options = [f"strategy={strategy}", "strategy.rounds=3", *(["strategy.visits=4"] if strategy == "cyclic" else [])]
    simulated, _ = run(tmp_path, "simulated", *options)
    monkeypatch.setattr(inprocess, "open_silos", deployed)
    found, faults = run(tmp_path, "deployed", *options)
    assert (found["status"], faults) == ("ok", [])
    assert found["digest"] == simulated["digest"]


def test_hospitals_that_are_not_asked_in_every_round_take_what_they_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(inprocess, "open_silos", deployed)
    found, faults = run(tmp_path, "sampled", "strategy.fraction=0.5", "strategy.rounds=6")
    assert (found["status"], faults) == ("ok", [])


def test_a_hospital_scores_its_own_model_of_the_baseline_and_the_study_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(inprocess, "open_silos", deployed)
    found, faults = run(tmp_path, "alone", "baselines.alone=true")
    assert found["status"] == "ok"
    assert {line["fault"] for line in faults} == {"REFUSED_WEIGHTS"}
    for site in HOSPITALS:
        assert f"baseline/alone/{site}/test/site/{site}/accuracy" in found["metrics"]
