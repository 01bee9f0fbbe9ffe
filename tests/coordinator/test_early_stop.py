"""A federated study that stops early: on which metric, after how many rounds, and the same when it is resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from flip.cli.execute import execute
from flip.cli.launch import launch
from flip.config.checks.study import check
from flip.coordinator.early_stop import EarlyStop, more_is_better
from flip.coordinator.loop import Coordinator
from flip.errors import StudyUnfit, UserError
from flip.strategies.fedavg import FedAvg
from flip.strategies.stop import Stop
from tests.cohorts.heart import write_tiny_heart
from tests.coordinator.test_loop import Notes, Sites, coordinator
from tests.studies import tiny_heart_study

WORSE = ("model.optimizer.lr=50.0", "strategy.rounds=8", "trainer.steps=5")  # so long steps that rounds get worse
SPLIT = ("dataset.split.train=0.5", "dataset.split.validate=0.3")
WATCH = "strategy.stop={monitor: loss, patience: 2}"


class Module(torch.nn.Module):
    monitor, higher_is_better = "score", True

    def __init__(self) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleDict(
            {"score": MeanMetric(), "accuracy": BinaryAccuracy(), "loss": MeanMetric(), "share": MeanMetric()}
        )


def waited(values: list[float], **stop: object) -> list[int]:
    """How many rounds without an improvement the study has behind it after each of these scores."""
    early = EarlyStop(Stop.read({"monitor": "score", "patience": 2, **stop}), Module())
    counts = []
    for value in values:
        early.take({"score": value})
        counts.append(early.waited)
    return counts


def ran(stop: dict[str, object] | None, validate: int = 2) -> Coordinator:
    """A study of ten rounds whose validation loss is 1, 0, 1, 2, ... after each."""
    loop = coordinator(Notes(), rounds=10, stop=stop)
    loop(Sites(validate=validate).ask)
    return loop


@pytest.mark.parametrize(("patience", "rounds"), [(1, 3), (3, 5)])
def test_it_stops_after_so_many_rounds_without_an_improvement(patience: int, rounds: int) -> None:
    assert ran({"monitor": "loss", "patience": patience}).rounds_done == rounds


def test_it_says_when_and_why() -> None:
    assert ran({"monitor": "loss", "patience": 2}).stopped == (
        "stopped after round 4 of 10: the last 2 rounds did not improve the pooled validation loss (strategy.stop)"
    )


@pytest.mark.parametrize("stop", [None, {"monitor": "loss", "patience": 9}])
def test_it_runs_to_the_end_where_nothing_stops_it(stop: dict[str, object] | None) -> None:
    loop = ran(stop)
    assert (loop.rounds_done, loop.stopped) == (10, "")


def test_the_weights_are_those_of_the_last_round() -> None:
    notes = Notes()
    loop = coordinator(notes, rounds=10, stop={"monitor": "loss", "patience": 2})
    assert loop(Sites(validate=2).ask)["weight"].tolist() == [4, 4]
    assert notes.bests[-1] == [2, 2]


def test_the_test_split_is_read_as_after_the_last_round_that_was() -> None:
    sites = Sites(validate=2)
    coordinator(Notes(), rounds=10, stop={"monitor": "loss", "patience": 2})(sites.ask)
    assert {round for _, round, _, params in sites.tasks if params.get("split") == "test"} == {3}


def test_without_validation_data_it_is_refused_before_the_first_round() -> None:
    notes = Notes()
    with pytest.raises(StudyUnfit, match=r"strategy\.stop watches validation data, and no site has any") as raised:
        coordinator(notes, rounds=10, stop={"monitor": "loss", "patience": 2})(Sites().ask)
    assert notes.rounds == []
    assert raised.value.status == "refused"


def test_an_equal_score_is_no_improvement_and_a_better_one_counts_anew() -> None:
    assert waited([0.5, 0.5, 0.4, 0.6, 0.6]) == [0, 1, 2, 0, 1]


def test_an_improvement_is_larger_than_min_delta() -> None:
    assert waited([0.5, 0.55, 0.65], min_delta=0.1) == [0, 1, 0]


def test_a_round_without_the_number_is_not_counted() -> None:
    assert waited([0.5, float("nan"), 0.4]) == [0, 0, 1]


@pytest.mark.parametrize(("metric", "more"), [("score", True), ("accuracy", True), ("loss", False), ("share", True)])
def test_whether_more_is_better_is_the_models_the_metrics_or_the_names_word(metric: str, more: bool) -> None:
    assert more_is_better(Module(), metric) == more


@pytest.mark.parametrize(
    ("stop", "mistake"),
    [
        ({"monitor": "loss", "patience": 0}, "strategy.stop.patience=0: must be a whole number, 1 or more"),
        ({"monitor": "loss"}, "strategy.stop.patience: is not set"),
        ({"monitor": "loss", "patience": 1, "patiance": 1}, "strategy.stop.patiance: there is no such key; did you"),
        ({"monitor": "loss", "patience": 1, "min_delta": -1}, "strategy.stop.min_delta=-1: must be 0 or more"),
        ({"monitor": 3, "patience": 1}, "strategy.stop.monitor=3: must be the name of a metric"),
        (3, "strategy.stop=3: must be null, or as {monitor: accuracy, patience: 3}"),
    ],
)
def test_a_mistake_names_the_key(stop: Any, mistake: str) -> None:
    with pytest.raises(UserError) as raised:
        FedAvg(rounds=1, stop=stop)
    assert raised.value.problems[0].startswith(mistake)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


def test_a_metric_that_the_model_has_not_is_refused_before_the_run(data: Path) -> None:
    stop = "strategy.stop={monitor: acuracy, patience: 2}"
    study = tiny_heart_study(data, *SPLIT, stop, "federation=inprocess")
    with pytest.raises(UserError, match=r"the model has no metric acuracy; did you mean 'accuracy'\? valid:"):
        check(study)


@pytest.mark.slow
def test_a_resumed_study_stops_where_an_uninterrupted_one_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny_heart_study(data, *SPLIT, *WORSE, WATCH, "federation=inprocess")
    whole = execute(study, tmp_path / "whole")
    assert 2 < whole["rounds"] < 8
    validate, done = EarlyStop.take, []

    def cut(early: EarlyStop, metrics: dict[str, float]) -> None:
        done.append(1)
        if len(done) == whole["rounds"]:  # after the first of the rounds that are waited for
            raise KeyboardInterrupt
        validate(early, metrics)

    monkeypatch.setattr(EarlyStop, "take", cut)
    with pytest.raises(KeyboardInterrupt):
        execute(study, tmp_path / "cut")
    monkeypatch.setattr(EarlyStop, "take", validate)
    assert launch([f"resume={tmp_path / 'cut'}", f"paths.data_dir={data}"]) == 0
    resumed = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert [resumed[name] for name in ("digest", "rounds", "stopped")] == [
        whole[name] for name in ("digest", "rounds", "stopped")
    ]
    assert "Stopped after round" in (tmp_path / "cut" / "report.html").read_text()
