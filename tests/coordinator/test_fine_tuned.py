"""`baselines.fine_tuned`: each site trains the final weights further; what comes of them stays there and is scored."""

import json
from pathlib import Path

import numpy as np
import pytest

from flip.cli.execute import execute
from flip.federation import inprocess
from flip.messages import Fault
from flip.messages.safetensors import load_file
from flip.report.page import write
from flip.site.fit import LocalFit
from flip.site.refusal import Refusal
from tests.cohorts.heart import HOSPITALS, write_tiny_heart
from tests.coordinator.test_honest_rounds import deployed
from tests.studies import tiny_heart_study

TESTED = "va"
SGD = "model.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.01}"
STRATEGIES = {
    "fedavg": ["strategy.share=[linear.weight]"],
    "ditto": [],
    "cyclic": [],
    "scaffold": [SGD],
}
RULES = "{minimum_persons: 2, minimum_cell: 1, persons_per_parameter: 0, maximum_steps: 100, approval: none}"
POLICIES = [f"sites.{site}.policy={RULES}" for site in HOSPITALS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


def run(data: Path, folder: Path, *overrides: str) -> tuple[dict, list[dict]]:
    result = execute(tiny_heart_study(data, "federation=inprocess", *POLICIES, *overrides), folder)
    return result, [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def losses(result: dict, prefix: str) -> dict[str, float]:
    return {site: result["metrics"][f"{prefix}test/site/{site}/loss"] for site in HOSPITALS}


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict], Path]:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    return (*run(data, folder, "baselines.fine_tuned=2"), folder)


def test_the_study_itself_is_the_same_beside_it(data, tuned, tmp_path):
    plain, _ = run(data, tmp_path / "run")
    assert tuned[0]["digest"] == plain["digest"]
    assert losses(tuned[0], "") == losses(plain, "")


def test_each_site_is_scored_with_a_model_of_its_own_and_sends_none(tuned):
    result, lines, folder = tuned
    own = {site: [*(folder / "sites" / site).rglob("fine_tuned.*.safetensors")] for site in HOSPITALS}
    assert all(len(files) == 1 for files in own.values())
    weights = [load_file(file)[0] for [file] in own.values()]
    assert len({next(iter(each.values())).tobytes() for each in weights}) == len(HOSPITALS)
    assert losses(result, "baseline/fine_tuned/") != losses(result, "")
    pooled = "baseline/fine_tuned/test/pooled/accuracy"
    assert 0 <= result["metrics"][pooled] <= 1
    fits = [line for line in lines if line["phase"] == "fine_tuned" and line["site"] in HOSPITALS]
    assert {line["fault"] for line in fits} == {None}


def test_it_goes_on_from_the_final_weights_for_so_many_rounds(data, tmp_path):
    result, _ = run(data, tmp_path, "baselines.fine_tuned=1", "strategy.rounds=1", "model.optimizer.lr=1e-12")
    again = losses(result, "baseline/fine_tuned/")
    assert again == pytest.approx(losses(result, ""), abs=1e-6)


def test_hospitals_answer_as_the_simulation_does_and_refuse_nothing(data, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(inprocess, "open_silos", deployed)
    found, lines = run(data, tmp_path / "run", "baselines.fine_tuned=2")
    assert not [line for line in lines if line.get("fault")]
    assert losses(found, "baseline/fine_tuned/") == losses(tuned[0], "baseline/fine_tuned/")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_goes_with_strategies_that_keep_weights_at_the_site_or_pull_at_them(data, tmp_path, strategy):
    result, lines = run(data, tmp_path, "baselines.fine_tuned=1", f"strategy={strategy}", *STRATEGIES[strategy])
    assert (result["status"], [line for line in lines if line.get("fault")]) == ("ok", [])
    assert all(np.isfinite(value) for value in losses(result, "baseline/fine_tuned/").values())


def test_a_site_that_only_tests_has_no_such_model(data, tmp_path):
    result, lines = run(data, tmp_path / "run", "baselines.fine_tuned=1", f"sites.{TESTED}.trains=false")
    scored = {name for name in result["metrics"] if name.startswith("baseline/fine_tuned/test/site/")}
    assert scored and not [name for name in scored if TESTED in name]
    assert not [line for line in lines if line.get("fault")]


def test_no_pooled_score_stands_beside_the_runs_where_a_site_has_not_trained_further(data, tmp_path, monkeypatch):
    further = LocalFit.fine_tuned

    def refused(self):
        if self.place.name == TESTED:
            raise Refusal(Fault.REFUSED_RULE, "here not")
        return further(self)

    monkeypatch.setattr(LocalFit, "fine_tuned", refused)
    result, lines = run(data, tmp_path / "run", "baselines.fine_tuned=1", "strategy.rounds=1")
    assert [line["site"] for line in lines if line.get("fault")] == [TESTED]
    assert "baseline/fine_tuned/test/site/cleveland/loss" in result["metrics"]
    assert not [name for name in result["metrics"] if name.startswith("baseline/fine_tuned/test/pooled/")]


def test_the_report_has_it_by_site_beside_the_run(tuned):
    _, _, folder = tuned
    write(folder)
    page = (folder / "report.html").read_text()
    assert "against<br>fine-tuning" in page
    assert "trained further at the site" in page
