"""What may leave a site rests on persons: every way in by which the rows of few persons could leave it."""

import ast
import inspect
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import flip.site
from flip.config.build import initial_module
from flip.config.policy import Policy
from flip.config.study import Study
from flip.contracts import NamesPersons
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.messages.weights import digest, to_arrays
from flip.site import disclosure
from flip.site.complementary import suppress_total
from flip.site.disclosure import RULES, released, suppress_outcomes, suppress_summary, withheld_metrics
from flip.site.persons import Drawn, Persons
from flip.site.refusal import Refusal
from flip.site.silo import Silo
from flip.site.statistics import cohort_counts, compared, shapes, skipped
from tests.cohorts.heart import row
from tests.conftest import ROOT
from tests.studies import compose_study

CELL = 5
WIDE = ("chol", "thalach", "oldpeak", "trestbps", "fbs", "exang", "sex")  # other columns that may have ranges
POLICY = {"minimum_persons": 10, "minimum_cell": CELL}
HEADER = "[pid,age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num]"
SUMMARY = Summary(SummaryKind.COUNT, np.array([40.0]), 4)
FULL = {
    "examples": 40, "metrics": {"loss": 0.5}, "weights": {"w": np.ones(3)}, "state": {"c": np.ones(3)},
    "summaries": {Topic.DESCRIPTION: {"count/x": SUMMARY}},
}  # fmt: skip
OPEN = {"site", "task_digest", "withheld", "fault", "seconds", "fingerprint", "journal", "sent"}  # of no person


# The rules.


def test_every_field_of_a_reply_has_a_rule():
    assert set(RULES) == {each.name for each in fields(Reply)}
    assert {name for name, rule in RULES.items() if rule is disclosure.unprotected} == OPEN


@pytest.mark.parametrize("name", sorted({each.name for each in fields(Reply)} - OPEN))
def test_no_field_of_a_reply_tells_of_too_few_persons(name):
    given = {"site": "west", "task_digest": "", name: FULL[name]}
    if name in ("weights", "state"):
        with pytest.raises(Refusal, match=Fault.REFUSED_FEW_PERSONS.value):
            released(CELL - 1, Policy(CELL, CELL), "", private=False, **given)
    else:
        assert not getattr(released(CELL - 1, Policy(CELL, CELL), "", private=False, **given), name)
    summaries = {Topic.DESCRIPTION: {"count/x": replace(SUMMARY, persons=CELL)}}
    assert getattr(released(CELL, Policy(CELL, CELL), "", private=False, **given | {"summaries": summaries}), name)


def test_a_site_makes_no_reply_but_by_the_rules():
    for path in Path(flip.site.__file__).parent.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Reply"]
        assert len(made) == (path.name == "disclosure.py"), path


def test_the_first_argument_of_every_rule_is_the_persons():
    rules = {
        name: found
        for name, found in vars(disclosure).items()
        if inspect.isfunction(found) and found.__module__ == disclosure.__name__ and not name.startswith("_")
    }
    assert len(rules) > 10
    assert {
        name for name, rule in rules.items() if next(iter(inspect.signature(rule).parameters)) != "persons"
    } == set()


def test_examples_are_counted_as_the_fewest_persons_that_they_can_be_of():
    codes = np.repeat([0, 1, 2, 3], [10, 10, 1, 1])
    persons = Persons.of(codes)
    assert (persons.number, persons.examples) == (4, 22)
    assert persons.behind([0, 1, 10, 11, 20, 21, 22, 99]).tolist() == [0, 1, 1, 2, 2, 3, 4, 4]
    assert [persons.examples_of(each) for each in (1, 2, 3, 4)] == [1, 11, 21, 22]
    draw = np.random.default_rng(0)
    for _ in range(200):
        some = draw.choice(codes, size=draw.integers(1, 23), replace=False)
        assert persons.behind(len(some)) <= len(set(some.tolist()))


def test_counts_of_examples_are_suppressed_by_their_persons():
    behind = Persons.of(np.repeat(np.arange(10), 10)).behind
    count = Summary(SummaryKind.COUNT, np.array([40.0, 41.0]), 10)
    assert suppress_summary(10, count, CELL, behind).values.tolist() == [0, 41]
    assert suppress_summary(10, count, CELL).values.tolist() == [40, 41]
    moments = Summary(SummaryKind.MOMENTS, np.array([[40.0, 1, 1], [50.0, 1, 1]]), 10)
    assert suppress_summary(10, moments, CELL, behind).values[:, 0].tolist() == [0, 50]
    bins = Summary(SummaryKind.HISTOGRAM, np.array([30.0, 30, 40]), 10)
    assert suppress_summary(10, bins, CELL, behind).values.tolist() == [0, 100, 0]


def test_histogram_bins_are_merged_until_each_holds_the_minimum_and_no_one_is_lost():
    bins = Summary(SummaryKind.HISTOGRAM, np.array([1.0, 2, 3, 9, 0, 1]), 16)
    assert suppress_summary(16, bins, CELL).values.tolist() == [0, 0, 6, 10, 0, 0]


def test_a_minimum_cell_of_one_suppresses_nothing():
    count = Summary(SummaryKind.COUNT, np.array([1.0]), 1)
    assert suppress_summary(1, count, 1).values.tolist() == [1]


def test_a_cell_of_an_outcome_cannot_be_told_from_the_number_of_examples():
    persons = Persons.of(np.arange(40))
    table = suppress_outcomes(persons, {"count/low": np.array([[20.0, 2], [8, 10]])}, CELL)["count/low"]
    assert not table.values.any()  # 22 and 18 are examples of the two classes, which other numbers tell
    table = suppress_outcomes(persons, {"count/low": np.array([[9.0, 2, 6], [9, 7, 7]])}, CELL)["count/low"]
    assert table.values.tolist() == [[9, 0, 0], [9, 0, 0]]
    bins = np.array([[10.0, 10, 10], [1, 1, 1], [2, 2, 3]])
    rows = suppress_outcomes(persons, {"histogram/survival": bins}, CELL)["histogram/survival"]
    assert rows.values.sum(1).tolist() == [30, 0, 0]  # the 7 would tell the 3


@pytest.mark.parametrize(
    ("parts", "told"), [([30, 0, 10], 40), ([30, 3, 9], 39), ([20, 3, 15], 42), ([30, 10, 0], 40), ([42, 0, 0], 42)]
)
def test_the_size_of_a_cohort_does_not_tell_a_small_part(parts, told):
    assert suppress_total(42, parts, CELL, skipped=0) == told


@pytest.mark.parametrize(
    ("parts", "skipped", "told"),
    [([25, 0, 9], 6, 40), ([25, 0, 9], 8, 42), ([30, 0, 4], 6, 42), ([30, 0, 9], 6, 39)],  # last: some skip and stay
)
def test_the_size_of_a_cohort_does_not_tell_a_reason_of_few_persons_beside_one_of_many(parts, skipped, told):
    assert suppress_total(42, parts, CELL, skipped=skipped) == told


def test_an_exact_metric_that_no_sum_vouches_for_stays():
    module = type("Module", (), {"metrics": {"brier": None}, "exact": {"own": None, "brier": None}})
    assert (
        withheld_metrics(Persons.of(np.arange(40)), module, {}, split="test", own={}, cell=CELL)["own"]
        is Withheld.PARTNER
    )
    assert not withheld_metrics(Persons.of(np.arange(40)), module, {}, split="test", own={}, cell=1)


def test_a_reason_of_few_persons_cannot_be_told_from_the_cohort_the_splits_and_the_other_reasons():
    class Data:
        REASONS = frozenset({"no level", "a gap"})

        def __init__(self):
            self.skipped = self.skipped_persons = {"no level": 6, "a gap": 2}

        def whose(self, split):
            return np.arange({"train": 30, "test": 10}.get(split, 0))

    assert set(skipped(48, Data(), CELL)[0]) == {"no level"}
    assert cohort_counts(48, Data(), CELL) == {"persons": 46, "train": 30, "validate": 0, "test": 10}


def test_what_was_skipped_is_counted_in_persons():
    class Data:
        REASONS = frozenset({"no level"})

        def __init__(self, **skipped_persons):
            self.skipped, self.skipped_persons = {"no level": 40}, {"no level": skipped_persons.get("number", 0)}

    assert skipped(50, Data(number=4), CELL) == ({}, {})
    assert set(skipped(50, Data(number=5), CELL)[0]) == {"no level"}
    assert skipped(50, Data(), CELL) == ({}, {})  # it does not say of whom


def test_a_shape_leaves_if_enough_persons_have_it():
    class Images:
        def __init__(self, sides):
            self.sides, self.dataset = sides, [{"image": np.zeros((4, side))} for side in sides]

        def train_dataloader(self):
            return self

        test_dataloader = train_dataloader

        def __len__(self):
            return len(self.sides)

        def whose(self, split):
            return np.arange(len(self.sides))

    assert shapes(Images([7] * 5), CELL)["image"].values.tolist() == [4, 7]
    assert shapes(Images([7, 8, 7, 7, 7]), CELL) == {}
    assert shapes(Images([7, 8, 7, 7, 7]), 1)["image"].values.tolist() == [4, 7]
    assert shapes(Images([7] * 4), CELL) == {}


def test_the_persons_of_a_fit_are_those_in_its_batches():
    import torch

    drawn = Drawn()
    for codes in ([3, 3, 3], [3], [], [7, 3]):
        drawn.add({"person": torch.tensor(codes, dtype=torch.long)})
    assert drawn.number == 2
    drawn.add({"features": torch.zeros(9)})
    assert drawn.number == 0  # nobody says whose these are


# The ways in, at a site of 42 persons with ten rows each.


class Site:
    """A site with so many persons of ten rows each, and its study."""

    def __init__(self, folder: Path, *overrides: str, persons: int = 42, policy: object = POLICY) -> None:
        draw = np.random.default_rng(0)
        lines = [f"p{number},{row(draw, number)}" for number in range(persons) for _ in range(10)]
        (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
        study = compose_study(
            "experiment=heart_disease", f"dataset.header={HEADER}", "dataset.person=pid", "trainer.steps=1",
            "strategy.rounds=2", "trainer.centralized.max_epochs=1", f"paths.data_dir={folder}", *overrides,
        )  # fmt: skip
        own = replace(study.sites["cleveland"], root=str(folder / "cohort.csv"), policy=policy)
        self.study: Study = study
        self.silo = Silo("west", own, folder / "home")

    def ask(self, step: str, number: int = 0, **params) -> Reply:
        weights = {} if step == "statistics" else self.weights()
        state = {} if step == "statistics" else {"statistics/moments/features": np.array([[100.0, 0.0, 1e7]] * 13)}
        stage = "alone" if "alone" in params else "study"
        if (step, stage) == ("fit", "study") and "scaffold" in str(self.study.manifest["strategy"]):
            state |= {f"control/{name}": np.zeros_like(each) for name, each in weights.items()}
        return self.silo.answer(Task("run", stage, number, step, weights, state, params, self.study.manifest_text))

    def weights(self) -> dict[str, np.ndarray]:
        return to_arrays(initial_module(self.study.manifest))


def content(reply: Reply) -> list[object]:
    return [reply.examples, dict(reply.metrics), dict(reply.weights), dict(reply.state), dict(reply.summaries)]


@pytest.mark.parametrize(
    ("split", "share", "others"),
    [("test", "dataset.split.train=0.96", 40), ("validate", "dataset.split.validate=0.05", 39)],
)
def test_a_split_of_few_persons_with_ten_rows_each_tells_nothing(tmp_path, split, share, others):
    site = Site(tmp_path, share)
    told = site.ask("statistics")
    assert (told.metrics[split], told.metrics["persons"]) == (0, others)
    assert told.metrics["train"] > 100
    scored = site.ask("evaluate", split=split)
    assert (scored.fault, content(scored)) == (None, [0, {}, {}, {}, {}])
    assert set(scored.withheld.values()) == {Withheld.SPLIT}


def test_nothing_is_told_as_of_more_persons_than_the_total_not_even_what_all_have(tmp_path):
    """Four to test on are in no number; of everybody's age, which is out of its range, they would be."""
    wide = [f"dataset.ranges.{name}=[0,1000]" for name in WIDE]
    shares = ["dataset.split.train=0.71", "dataset.split.validate=0.2"]
    site = Site(tmp_path, *shares, "dataset.scaling=declared", "dataset.ranges.age=[200,300]", *wide)
    told = site.ask("statistics")
    assert (told.metrics["persons"], Topic.REMARKS in told.summaries) == (38, False)
    behind = [
        each.persons
        for reply in (told, site.ask("describe"))
        for named in reply.summaries.values()
        for each in named.values()
    ]
    assert 0 < max(behind) <= 38
    (tmp_path / "other").mkdir()
    under = Site(tmp_path / "other", "dataset.scaling=declared", "dataset.ranges.age=[200,300]", *wide).ask(
        "statistics"
    )
    assert [each.values.tolist() for each in under.summaries[Topic.REMARKS].values()] == [[42]]


class Compares:
    """A dataset of 42 persons, of whom few have another unit than most, and a column of one unit."""

    def compared(self) -> dict[str, np.ndarray]:
        found = {
            "units/height/1": 30,
            "units/height/2": 12,
            "units/weight/3": 42,
            "units/age/4": 3,
            "coded": 7,
            "few/coded": 4,
        }
        return {f"count/{name}": np.array([float(number)]) for name, number in found.items()}

    def unlearnable(self, told: object) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("cell", "names"), [(5, {"units/height/1", "units/weight/3", "coded"}),
                        (1, {"units/height/1", "units/weight/3", "units/age/4", "coded", "few/coded"})],
)  # fmt: skip
def test_of_what_has_to_be_alike_it_is_told_what_most_have_and_not_how_many(cell, names):
    found = compared(42, Compares(), cell)
    assert set(found) == {f"count/{name}" for name in names}
    assert {int(each.values[0]) for each in found.values()} == {0}


def test_a_training_split_of_two_persons_sends_no_weights(tmp_path):
    site = Site(tmp_path, "dataset.split.train=0.05")
    for step, params in (("statistics", {}), ("fit", {}), ("evaluate", {"split": "test"})):
        reply = site.ask(step, **params)
        assert (reply.fault, content(reply)) == (Fault.REFUSED_FEW_PERSONS, [0, {}, {}, {}, {}])


def test_a_small_site_that_is_only_tested_on_does_not_tell_its_size(tmp_path):
    site = Site(tmp_path, persons=3, policy={"minimum_persons": 3, "minimum_cell": CELL})
    site.silo = Silo("west", replace(site.silo.site, trains=False), tmp_path / "tests")
    told = site.ask("statistics")
    assert (told.fault, content(told)) == (None, [0, {}, {}, {}, {}])


STRATEGIES = {path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml")}
NEED_ANOTHER_MODEL = {"fedbn"}  # refuses one without batch or instance norm


@pytest.mark.parametrize("strategy", sorted(STRATEGIES - NEED_ANOTHER_MODEL))
def test_one_step_on_one_row_does_not_send_a_patients_features(tmp_path, strategy):
    site = Site(tmp_path, f"strategy={strategy}", "dataset.batch_size=1", "model.optimizer.lr=1.0")
    reply = site.ask("fit")
    assert (reply.fault, content(reply)) == (Fault.REFUSED_FEW_PERSONS, [0, {}, {}, {}, {}])


def test_many_rows_of_few_persons_send_no_weights(tmp_path):
    site = Site(tmp_path, "dataset.split.train=0.12", "dataset.batch_size=100")
    assert site.ask("fit").fault is None  # five persons, fifty rows
    fewer = Site(tmp_path, "dataset.split.train=0.12", "dataset.batch_size=4")
    assert fewer.ask("fit").fault is Fault.REFUSED_FEW_PERSONS


def test_poisson_samples_of_few_persons_send_no_weights(tmp_path):
    private = (
        "privacy=dp_sgd",
        "dataset.scaling=declared",
        "dataset.batch_size=1",
        "privacy.dp_sgd.noise_multiplier=1.0",
    )
    reply = Site(tmp_path, *private, "privacy.dp_sgd.target_epsilon=null").ask("fit")
    assert (reply.fault, content(reply)) == (Fault.REFUSED_FEW_PERSONS, [0, {}, {}, {}, {}])


@pytest.mark.parametrize("params", [{}, {"alone": "west"}])
def test_a_fit_is_refused_by_whom_it_drew_whichever_it_is(tmp_path, monkeypatch, params):
    site = Site(tmp_path, "dataset.batch_size=100")
    monkeypatch.setattr(Drawn, "number", CELL - 1)
    assert site.ask("fit", **params).fault is Fault.REFUSED_FEW_PERSONS
    monkeypatch.setattr(Drawn, "number", CELL)
    reply = site.ask("fit", **params)
    assert reply.fault is None
    assert reply.weights
    assert reply.metrics["loss"] > 0


@pytest.mark.parametrize("params", [{}, {"alone": "west"}])
def test_a_loss_that_only_few_persons_have_stays(tmp_path, monkeypatch, params):
    seen = iter(range(10_000))

    def training_step(module, batch, batch_idx):
        return module(batch["features"]).sum() * (1 if next(seen) < CELL - 1 else math.nan)

    monkeypatch.setattr("models.tabular.LinearClassifier.training_step", training_step)
    reply = Site(tmp_path, "dataset.batch_size=1", "trainer.steps=100").ask("fit", **params)
    assert (reply.fault, dict(reply.metrics)) == (None, {})
    assert reply.weights


def test_nothing_of_a_refused_fit_is_kept(tmp_path, monkeypatch):
    settings = ("strategy=scaffold", "trainer.optimizer_state=keep", "dataset.batch_size=100")
    (tmp_path / "other").mkdir()
    refused, other = Site(tmp_path, *settings), Site(tmp_path / "other", *settings)
    with monkeypatch.context() as few:
        few.setattr(Drawn, "number", CELL - 1)
        assert refused.ask("fit").fault is Fault.REFUSED_FEW_PERSONS
    after, fresh = refused.ask("fit", 1), other.ask("fit", 1)
    assert after.fault is None
    assert digest(after.weights) == digest(fresh.weights)
    assert digest(after.state) == digest(fresh.state)


def test_a_dataset_that_does_not_say_whose_its_examples_are_is_refused_under_a_minimum_cell(tmp_path, monkeypatch):
    from datamodules.cohort_table import CohortTable

    monkeypatch.delattr(CohortTable, "whose")
    NamesPersons._abc_caches_clear()  # Python remembers that the class had it
    assert Site(tmp_path).ask("statistics").fault is Fault.REFUSED_FEW_PERSONS
    assert "whose(split)" in (tmp_path / "home" / "site.log").read_text()
    assert Site(tmp_path, policy="public_data").ask("statistics").fault is None
