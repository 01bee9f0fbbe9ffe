"""Under a mechanism that protects persons no number leaves a site without noise that is in its ledger."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.checks.study import check
from flip.config.policy import Policy
from flip.config.schema import SIMULATED, Site
from flip.errors import UserError
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.messages.weights import to_arrays
from flip.messages.wire import pack_reply
from flip.privacy.noised import Noised, counts_of
from flip.site import private_fit, private_scores
from flip.site.disclosure import released
from flip.site.ledger import ledger_of
from flip.site.private_scores import by_person, person_sums
from flip.site.releases import NOISED, UNDER_NOISE
from flip.site.silo import Silo
from flip.site.trainer import Device
from models.tabular import LinearClassifier
from tests.cohorts.heart import row, write_tiny_heart
from tests.site.test_gate import MOMENTS
from tests.studies import tiny_heart_study

PRIVATE = ("federation=inprocess", "privacy=dp_sgd")
PLAIN = ("privacy=none", "dataset.scaling=site")
PERSONS = 200
SUM = Summary(SummaryKind.SUM, np.array([40.0]), 40)
WIDE = {name: sums * [1.0, 1.0, 1e11] for name, sums in MOMENTS.items()}  # an extreme record is in the sums of all


class West:
    """A simulated site of 200 persons and the study that asks it; `extreme` makes one record extreme."""

    def __init__(self, folder: Path, *overrides: str, extreme: bool = False, releases: tuple[str, ...] = ()) -> None:
        rng = np.random.default_rng(1)
        rows = [row(rng, index).replace("?", "1") for index in range(PERSONS)]
        if extreme:
            values = rows[7].split(",")
            rows[7] = ",".join([*values[:4], "1e9", *values[5:]])
        folder.mkdir()
        (folder / "rows.csv").write_text("\n".join(rows) + "\n")
        self.study = tiny_heart_study(write_tiny_heart(folder / "tiny"), *PRIVATE, *overrides)
        site = Site(root=str(folder / "rows.csv"), policy="public_data", secret=SIMULATED)
        self.silo = Silo("west", site, folder / "home")

    def task(self, step: str, **params: object) -> Task:
        before = step in ("statistics", "describe")
        weights = {} if before else to_arrays(initial_module(self.study.manifest))
        stage = "alone" if params.get("alone") else "study"
        stage = "test" if params.get("split") == "test" else stage
        agreed = {} if step == "statistics" or self.study.manifest["privacy"] else WIDE
        return Task("run", stage, 0, step, weights, agreed, params, self.study.manifest_text)

    def ask(self, step: str, **params: object) -> Reply:
        reply = self.silo.answer(self.task(step, **params))
        assert reply.fault is None, (self.silo.home / "site.log").read_text()
        return reply

    @property
    def ledger(self) -> list[dict[str, object]]:
        return ledger_of(self.silo.place, self.task("fit")).entries()


# Every field, every topic.


def test_every_field_of_a_reply_and_every_topic_has_a_rule_under_noise():
    assert set(UNDER_NOISE) == {each.name for each in fields(Reply)}
    assert set(NOISED) == {*Topic}


def test_of_a_reply_only_what_the_mechanism_made_leaves():
    ones = Noised(SummaryKind.SUM, np.ones(1), 40)
    full = {
        "examples": 40, "metrics": {"loss": 0.5, "privacy/epsilon": 1.0}, "weights": {"w": np.ones(3)},
        "state": {"c": np.ones(3)}, "summaries": {topic: {"noised": ones, "a/b": SUM} for topic in Topic},
        "withheld": {"a": Withheld.CELL, "b": Withheld.RELEASES},
    }  # fmt: skip
    reply = released(40, Policy(1, 1), "fit", private=True, site="a", task_digest="", **full)
    assert (reply.examples, dict(reply.metrics)) == (1, {"privacy/epsilon": 1.0})
    assert {*reply.weights, *reply.state} == {"w", "c"}
    assert reply.summaries == {Topic.METRIC: {"noised": Summary(SummaryKind.SUM, ones.values, 1)}}
    assert reply.withheld == {"a": Withheld.PRIVACY, "b": Withheld.RELEASES}


# One extreme record in 200.

QUESTIONS = {
    "statistics": {}, "describe": {}, "fit": {}, "alone": {"alone": "west"},
    "validate": {"split": "validate"}, "test": {"split": "test", "outcomes": True},
}  # fmt: skip
SPLIT = ("dataset.split.train=0.6", "dataset.split.validate=0.1")


def answers(site: West) -> dict[str, Reply]:
    steps = {"alone": "fit", "validate": "evaluate", "test": "evaluate"}
    return {name: site.ask(steps.get(name, name), **params) for name, params in QUESTIONS.items()}


def bare(reply: Reply) -> bytes:
    """A reply's bytes without what noise protects, and without what holds no number of a person."""
    noised = {topic: named for topic, named in reply.summaries.items() if topic is not Topic.METRIC}
    return pack_reply(replace(reply, weights={}, state={}, summaries=noised, seconds=0.0, fingerprint={}, journal=""))


@pytest.fixture
def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_fit, "noise_key", lambda *_: b"n" * 32)


@pytest.mark.usefixtures("fixed_noise")
def test_an_extreme_record_moves_nothing_but_what_has_noise(tmp_path):
    near, far = (answers(West(tmp_path / str(extreme), *SPLIT, extreme=extreme)) for extreme in (False, True))
    for name in QUESTIONS:
        assert bare(near[name]) == bare(far[name]), name
    sums = [each["test"].summaries[Topic.METRIC] for each in (near, far)]
    assert sums[0].keys() == sums[1].keys()
    assert {name.partition("/")[0] for name in sums[0]} == {"accuracy", "sensitivity", "specificity"}


def test_without_a_mechanism_it_moves_losses_statistics_and_metrics(tmp_path):
    near, far = (answers(West(tmp_path / str(extreme), *SPLIT, *PLAIN, extreme=extreme)) for extreme in (False, True))
    alike = {name for name in QUESTIONS if bare(near[name]) == bare(far[name])}
    assert not alike & {"statistics", "fit", "alone", "test"}


# Scores.


def rows_of(persons: list[int], truth: list[int], score: list[float]) -> DataLoader:
    rows = [
        {"features": torch.tensor([s]), "label": torch.tensor(float(t)), "person": torch.tensor(p)}
        for p, t, s in zip(persons, truth, score, strict=True)
    ]
    return DataLoader(rows, batch_size=3)


def summed(rows: DataLoader) -> list[float]:
    """The sums of the persons' parts: wrongly no, wrongly yes, rightly no, rightly yes."""
    module = LinearClassifier(1, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    module.linear.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    counts, device = counts_of(dict(module.metrics.items())), Device("cpu", None, {})
    return person_sums(module, by_person(rows), counts, device)[0].tolist()


def test_sums_over_persons_are_the_metrics_own_where_each_has_a_row():
    assert summed(rows_of([4, 2, 9, 1], [1, 1, 0, 0], [1.0, -1.0, -1.0, 1.0])) == [1, 1, 1, 1]
    assert summed(rows_of([0, 1, 2], [1, 1, 0], [1.0, 1.0, -1.0])) == [0, 0, 1, 2]


def test_a_person_of_many_rows_counts_as_one():
    many = rows_of([7] * 30 + [8], [1] * 31, [1.0] * 31)
    assert [len(batch["label"]) for batch in by_person(many)] == [30, 1]
    assert summed(many) == [0, 0, 0, 2]


def test_the_noise_is_in_the_ledger_before_it_is_used(tmp_path, monkeypatch):
    site = West(tmp_path / "site")

    def breaks(*_: object) -> None:
        raise RuntimeError("the site's power is cut")

    with monkeypatch.context() as cut:
        cut.setattr(private_scores, "with_noise", breaks)
        assert site.silo.answer(site.task("evaluate", split="test")).fault is Fault.RAISED
    (entry,) = site.ledger
    assert (entry["sample_rate"], entry["steps"]) == (1.0, 1.0)
    site.ask("evaluate", split="test")
    assert site.ledger == [entry]


def test_the_same_task_gets_the_same_noise_and_spends_nothing_again(tmp_path):
    site = West(tmp_path / "site")
    first, before = site.ask("evaluate", split="test"), site.ledger
    for kept in (site.silo.place.store("run").folder / "scores").glob("*"):
        kept.unlink()
    again = site.ask("evaluate", split="test")
    same = [pack_reply(replace(each, seconds=0.0, journal="")) for each in (first, again)]
    assert same[0] == same[1]
    assert site.ledger == before
    assert first.metrics["privacy/epsilon"] == pytest.approx(1.0, abs=0.02)


def test_without_an_epsilon_for_metrics_none_leaves_and_nothing_is_spent(tmp_path):
    site = West(tmp_path / "site", "privacy.dp_sgd.metrics_epsilon=null")
    reply = site.ask("evaluate", split="test")
    assert (reply.examples, dict(reply.metrics), dict(reply.summaries)) == (0, {}, {})
    assert {*reply.withheld.values()} == {Withheld.PRIVACY}
    assert "accuracy" in reply.withheld
    assert site.ledger == []


# A study.


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("private")
    study = tiny_heart_study(write_tiny_heart(folder / "data"), *PRIVATE, *SPLIT)
    return execute(study, folder / "run"), folder / "run"


def test_a_private_study_ends_with_its_main_metric_and_says_what_the_others_lack(run):
    result, folder = run
    assert result["status"] == "ok"
    assert 0 <= result["metrics"]["test/pooled/accuracy"] <= 1
    assert not [name for name in result["metrics"] if name.endswith(("/low", "/high", "loss", "auroc"))]
    assert set(result["privacy"]["noise"]) == {"accuracy", "sensitivity", "specificity"}
    assert Withheld.PRIVACY.value in result["withheld"]["test/pooled/loss"]
    page = (folder / "report.html").read_text()
    assert "Each count behind a metric has noise for privacy at each site, of standard deviation" in page
    assert Withheld.PRIVACY.value in page.replace("&#39;", "'")


def test_no_number_of_persons_is_in_what_the_coordinator_wrote(run):
    _, folder = run
    for site in json.loads((folder / "cohort.json").read_text()).values():
        told = {name: value for name, value in site.items() if name not in ("trains", "fault", "fingerprint")}
        assert not any(told.values()), told
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert {line["examples"] for line in lines} <= {0, 1}
    assert not [line for line in lines if "loss" in line["metrics"]]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["strategy.stop={monitor: accuracy, patience: 2}"], "strategy.stop"),
        (["job=statistics"], "job"),
        (["dataset.scaling=pooled"], "dataset.scaling"),
        (["dataset.scaling=site"], "dataset.scaling"),
    ],
)
def test_a_study_that_rests_on_numbers_without_noise_is_refused_in_one_sentence(tmp_path, words, key):
    with pytest.raises(UserError) as refused:
        check(tiny_heart_study(write_tiny_heart(tmp_path), *PRIVATE, *words))
    assert [each for each in refused.value.problems if each.startswith(key)] == refused.value.problems
    said = (
        "to which privacy.dp_sgd gives no noise" if key == "dataset.scaling" else "no site sends under privacy.dp_sgd"
    )
    assert said in refused.value.problems[0]


@pytest.mark.parametrize("scaling", ["pooled", "site"])
def test_a_site_holds_such_a_study_against_the_same_list(tmp_path, scaling):
    site = West(tmp_path / "site", f"dataset.scaling={scaling}")
    assert site.silo.answer(site.task("statistics")).fault is Fault.REFUSED_MANIFEST
