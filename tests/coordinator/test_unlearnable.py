"""A study whose data cannot teach what it predicts ends before the first round, by name, and no other one does."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flip.cli.execute import execute
from flip.config.checks.parts import pairings
from flip.config.checks.study import check
from flip.errors import UserError
from tests.cohorts.heart import write_tiny_heart
from tests.studies import compose_study, tiny_heart_study

STRICT = "{minimum_persons: 50, minimum_cell: 5}"
BINARY = "{_target_: datamodules.targets.Binary, column: label, positive: [%s], negative: [%s]}"
CLASSES = "{_target_: datamodules.targets.MultiClass, column: label, levels: [a, b, c]}"
LABELS = "{_target_: datamodules.targets.MultiLabel, columns: [label, other]}"
SURVIVAL = "{_target_: datamodules.targets.Survival, time: age, event: label}"
HEADS = {
    "Binary": "{_target_: models.heads.classification.Binary, _partial_: true}",
    "MultiClass": "{_target_: models.heads.classification.MultiClass, _partial_: true, classes: 3}",
    "MultiLabel": "{_target_: models.heads.classification.MultiLabel, _partial_: true, labels: 2}",
    "Survival": "{_target_: models.heads.survival.Cox, _partial_: true}",
}
TARGETS = {"Binary": BINARY % (1, 0), "MultiClass": CLASSES, "MultiLabel": LABELS, "Survival": SURVIVAL}


def study(
    folder: Path, labels: Mapping[str, Sequence[Any]], target: str, *more: str, policy: str = STRICT, head: str = ""
) -> Any:
    """A study of tables: by site, the labels of its persons. A third of each is trained on, from the first on."""
    roster = folder / "conf" / "sites"
    roster.mkdir(parents=True)
    for site, persons in labels.items():
        lines = ["age,label,other,split"]
        for number, label in enumerate(persons):
            split = ("train", "validate", "test")[number % 3]
            lines.append(f"{20 + number},{label},{number // 3 % 2},{split}")
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
        own = f"root: {folder / site}.csv\npolicy: {policy}\ntrains: {str(site != 'test').lower()}\n"
        (roster / f"{site}.yaml").write_text(f"# @package sites.{site}\n{own}")
    kind = target.split("targets.")[1].split(",")[0]
    return compose_study(
        "dataset=table",
        f"dataset.target={target}",
        "dataset.tabular.numeric=[age]",
        "dataset.split={_target_: datamodules.splits.ByColumn, column: split}",
        "model=risk_classifier",
        "model.encoders.text=null",
        "~model.head",
        f"+model.head={head or HEADS[kind]}",
        f"sites=[{','.join(labels)}]",
        "name=tiny",
        "strategy.rounds=1",
        *more,
        config_dir=folder / "conf",
    )


def each(*labels: Any) -> list[Any]:
    """Persons of whom the labels are given to three neighbors each: one to train on, to validate on and to test on."""
    return [label for label in labels for _ in range(3)]


MANY = each(*[0, 1] * 15)  # ninety persons, thirty to train on
CASES = {
    "a level that no site has": (BINARY % (2, "0,1"), {"a": MANY, "b": MANY}, "label 2"),
    "one class at every site": (TARGETS["Binary"], {"a": each(*[1] * 30), "b": each(*[1] * 30)}, "label 0"),
    "a class among several": (CLASSES, {"a": each(*"ab" * 15), "b": each(*"ba" * 15)}, "c"),
    "two classes": (CLASSES, {"a": each(*"a" * 30), "b": each(*"a" * 30)}, "b', 'c"),
    "a label of several": (LABELS, {"a": each(*[0] * 30), "b": each(*[0] * 30)}, "label"),
    "no event": (SURVIVAL, {"a": each(*[0] * 30), "b": each(*[0] * 30)}, "event"),
    "a class of the tested site alone": (
        TARGETS["Binary"],
        {"a": each(*[0] * 30), "b": each(*[0] * 30), "test": MANY},
        "label 1",
    ),
    "a class of test rows alone": (TARGETS["Binary"], {"a": [0, 0, 1] * 30, "b": [0, 1, 0] * 30}, "label 1"),
}
WAYS = [["federation=inprocess"], ["federation=none"], ["job=check", "federation=inprocess"]]


@pytest.mark.parametrize("name", CASES)
def test_what_nobody_can_be_trained_on_is_refused_by_name(name, tmp_path):
    target, labels, said = CASES[name]
    result = execute(study(tmp_path, labels, target, *WAYS[0]), tmp_path / "run")
    assert result["status"] == "refused"
    assert f"no site has a training row with '{said}'," in result["reason"]
    assert result["rounds"] == 0 and result["digest"] is None


@pytest.mark.parametrize("way", WAYS[1:], ids=" ".join)
@pytest.mark.parametrize("policy", [STRICT, "public_data"])
def test_in_every_way(way, policy, tmp_path):
    target, labels, said = CASES["a level that no site has"]
    result = execute(study(tmp_path, labels, target, *way, policy=policy), tmp_path / "run")
    assert (result["status"], f"'{said}'" in result["reason"]) == ("refused", True)
    assert (tmp_path / "run" / "cohort.json").exists()


@pytest.mark.parametrize("target", [TARGETS["Binary"], SURVIVAL], ids=["yes or no", "an event"])
def test_a_code_that_is_not_declared_is_left_out_counted_and_named_at_the_site(target, tmp_path):
    labels = each(*[0, 1] * 15, *[9] * 5)
    result = execute(study(tmp_path, {"a": labels}, target, *WAYS[2]), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    cohort = json.loads((tmp_path / "run" / "cohort.json").read_text())["a"]
    assert cohort["skipped"] == {"what the study predicts is outside the declared levels": 15}
    assert cohort["persons"] == 105 and cohort["train"] == 30
    log = (tmp_path / "run" / "sites" / "a" / "site.log").read_text()
    assert "column label has 15 rows of level '9', which dataset.target does not declare" in log


OTHER_CODES = {"a": MANY, "b": [label + 1 for label in MANY]}


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("policy", [STRICT, "public_data"])
def test_a_site_that_writes_1_and_2_for_0_and_1_is_refused_by_name(way, policy, tmp_path):
    """Its no would be trained on as yes, and its yes left out."""
    result = execute(study(tmp_path, OTHER_CODES, TARGETS["Binary"], *way, policy=policy), tmp_path / "run")
    assert result["status"] == "refused"
    assert "b has one answer to label alone" in result["reason"] and "a has" not in result["reason"]


@pytest.mark.parametrize(("target", "column"), [(SURVIVAL, "label"), (LABELS, "label and other")])
def test_an_event_and_several_labels_in_other_codes_are_refused_too(target, column, tmp_path):
    """The censored would be trained on as dead, and the dead left out."""
    made = study(tmp_path, OTHER_CODES, target, *WAYS[2])
    for line in (lines := (tmp_path / "b.csv").read_text().splitlines())[1:]:
        cells = line.split(",")
        lines[lines.index(line)] = ",".join([*cells[:2], str(int(cells[2]) + 1), cells[3]])
    (tmp_path / "b.csv").write_text("\n".join(lines) + "\n")
    result = execute(made, tmp_path / "run")
    assert result["status"] == "refused" and f"b has one answer to {column} alone" in result["reason"]


def test_a_site_with_one_answer_and_two_unknown_codes_tells_no_one_of_these_two(tmp_path):
    labels = {"a": MANY, "b": [*each(*[0] * 29), 0, 9, 9]}
    result = execute(study(tmp_path, labels, TARGETS["Binary"], *WAYS[0]), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("federation", [pytest.param("flower", marks=pytest.mark.long), "nvflare"])
def test_over_a_backend(federation, tmp_path):
    target, labels, said = CASES["no event"]
    result = execute(study(tmp_path, labels, target, f"federation={federation}"), tmp_path / "run")
    assert (result["status"], f"'{said}'" in result["reason"]) == ("refused", True)


PRESENT = {
    "of few persons at one site": (TARGETS["Binary"], {"a": each(*[0] * 29, 1), "b": each(*[0] * 30)}),
    "of few persons among several classes": (CLASSES, {"a": each(*"ab" * 14, "c"), "b": each(*"ab" * 15)}),
    "each class at another site": (TARGETS["Binary"], {"a": each(*[0] * 30), "b": each(*[1] * 30)}),
    "no censored person": (SURVIVAL, {"a": each(*[1] * 30), "b": each(*[1] * 30)}),
}


@pytest.mark.parametrize("name", PRESENT)
def test_a_class_that_somebody_has_is_never_taken_for_absent(name, tmp_path):
    target, labels = PRESENT[name]
    result = execute(study(tmp_path, labels, target, *WAYS[0]), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]


def test_a_site_tells_nothing_of_a_class_that_few_persons_have(tmp_path):
    """What it sends is the same whether three persons have it or thirty."""
    from flip.messages import Task
    from flip.messages.summary import Topic
    from flip.site.silo import Silo

    told = []
    for number, few in enumerate((1, 10)):
        made = study(tmp_path / str(number), {"a": each(*[0] * (30 - few), *[1] * few)}, TARGETS["Binary"])
        silo = Silo("a", made.sites["a"], tmp_path / str(number) / "home")
        reply = silo.answer(Task("r", "study", 0, "statistics", {}, {}, {}, made.manifest_text))
        assert reply.fault is None
        told.append(dict(reply.summaries.get(Topic.ABSENT, {})))
    assert told == [{}, {}]


def test_a_dataset_of_a_column_with_a_limit_is_refused_too(tmp_path):
    data = write_tiny_heart(tmp_path / "data")
    result = execute(tiny_heart_study(data, "dataset.positive_above=9", *WAYS[0]), tmp_path / "run")
    assert (result["status"], "'num above 9'" in result["reason"]) == ("refused", True)


@pytest.mark.parametrize(
    ("head", "target", "said"),
    [
        (
            HEADS["MultiClass"].replace("3", "4"),
            CLASSES,
            "target.classes=4, and dataset.target gives target.classes=3",
        ),
        (
            HEADS["MultiLabel"].replace("2", "3"),
            LABELS,
            "target.labels=3, and dataset.target gives target.labels=2",
        ),
        (HEADS["Binary"], CLASSES, "target.classes=2, and dataset.target gives target.classes=3"),
        (HEADS["Binary"], SURVIVAL, "made for target.classes=2, and dataset.target gives target.events=1"),
        (HEADS["Survival"], TARGETS["Binary"], "target.events=1, and dataset.target gives target.classes=2"),
    ],
)
def test_a_head_that_is_made_for_another_target_is_refused_by_the_check(head, target, said, tmp_path):
    made = study(tmp_path, {"a": MANY}, target, head=head)
    assert any(said in problem for problem in pairings(made))


@pytest.mark.parametrize("kind", TARGETS)
def test_a_head_of_its_target_passes(kind, tmp_path):
    labels = each(*"abc" * 10) if kind == "MultiClass" else MANY
    assert not list(pairings(study(tmp_path, {"a": labels, "b": labels}, TARGETS[kind], policy="public_data")))


def test_a_level_without_an_opposite_is_refused_before_anything_runs(tmp_path):
    target = "{_target_: datamodules.targets.Binary, column: label, positive: [2]}"
    with pytest.raises(UserError, match=r"dataset\.target\.negative: name the levels that count as no"):
        check(study(tmp_path, {"a": MANY}, target))
