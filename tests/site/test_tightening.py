"""A policy can only tighten: of two policies the tighter one never answers more, whatever is asked."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from flip.config.envelope import Envelope, data_of
from flip.config.policy import Policy
from flip.config.targets import STUDY_TARGETS
from flip.messages import TRACKERS, Reply, Task
from flip.messages.stages import STAGES
from flip.site.approvals import Approval, Approvals
from tests.site.test_approvals import KEYS, PERSONS
from tests.site.test_gate import Hospital
from tests.site.test_given import bringing

GIVEN = "f" * 64  # the model that a study brings
DP = {"mechanism": "dp_sgd", "epsilon": 8.0, "delta": 1e-4}
SCALES: Mapping[str, Sequence[object]] = {
    "minimum_persons": [2, 10, 72, 80, 5000],
    "minimum_cell": [1, 2, 5, 8, 20, 100],
    "near_cohorts": ["answered", "refused"],
    "rounding": [1, 5, 20, 10**4],
    "targets": [list(STUDY_TARGETS), [each for each in STUDY_TARGETS if each != "torch."], ["models."]],
    "minimum_batch": [1, 2, 8, 17, 100],
    "persons_per_parameter": [0, 1, 3, 10],
    "maximum_parameters": [10**8, 14, 13],
    "maximum_rounds": [10**6, 2, 1],
    "maximum_steps": [10**6, 20, 5, 1],
    "maximum_seconds": [21600.0, 3600.0],  # a site that reaches it ends: nothing is answered then
    "maximum_memory": [1000.0, 32.0],  # likewise
    "maximum_change": [100.0, 0.05, 1e-6],
    "maximum_questions": [10, 3, 2, 1],
    "share": [1.0, 0.5, 0.2],
    "least_sites": [1, 2, 4],
    "secure_aggregation": [None, "required"],
    "privacy": [None, DP, {**DP, "epsilon": 2.0}, {**DP, "epsilon": 2.0, "delta": 1e-6}],
    "models": [None, ["0" * 64, GIVEN], ["0" * 64], []],
    "releases": [
        ["statistics", "describe", "metrics", "outcomes", "weights", "levels"],
        ["statistics", "metrics", "weights"],
        ["statistics", "weights"],
        ["statistics"],
        [],
    ],
    "trackers": [None, ["other", "wandb"], ["wandb"], []],
    "approval": ["none", {"keys": KEYS}, {"keys": {"ada": KEYS["ada"]}}, {"keys": KEYS, "needed": 2}],  # ada has signed
    "release": [None, *({"stages": STAGES[:many], "keys": KEYS} for many in (1, 2, 3))],
}
"""Values of each rule, the loosest first."""
LOOSEST = {rule: scale[0] for rule, scale in SCALES.items()}
STUDIES = {
    "plain": ["strategy.min_sites=2", "strategy.rounds=2"],
    "private": ["privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=4.0"],
    "applied": ["strategy.min_sites=2"],
    "summed": ["privacy=secure_aggregation", "strategy.min_sites=3"],
    "weighted": ["strategy.site_weights={cleveland: 2, hungarian: 1, switzerland: 1, va: 1}"],
}


def test_every_rule_has_its_scale():
    assert {field.name for field in fields(Policy)} == set(SCALES)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Hospital]:
    made = {name: Hospital(tmp_path_factory.mktemp(name), *words) for name, words in STUDIES.items()}
    values = yaml.safe_load(made["summed"].file.read_text())
    made["summed"].file.write_text(yaml.safe_dump({**values, "peers": {"hungarian": "ab" * 32, "va": "cd" * 32}}))
    made["applied"].study = bringing(made["applied"].study, GIVEN)
    for each in made.values():
        sign(each)
    return made


def sign(hospital: Hospital) -> None:
    """Have one person approve the study, as it is and for many runs."""
    place, manifest = hospital.silo.place, json.loads(hospital.study.manifest_text)
    terms = {"runs": 10**6, "reason": "test", "ethics": "none", "expires": "2099-12-31"}
    envelope = Envelope(site=place.name, data=data_of(place.site), manifest=manifest, free={}, **terms)
    places = Approvals(place.name, place.site, place.home)
    places.keep(Approval(envelope, []).signed("ada", PERSONS["ada"]))


def asked(hospital: Hospital, rules: Mapping[str, object]) -> list[Reply]:
    """What a site answers to a study and to some questions besides, under these rules."""
    values = yaml.safe_load(hospital.file.read_text()) | {"policy": dict(rules)}
    hospital.file.write_text(yaml.safe_dump(values))
    tasks = [
        hospital.task("statistics"),
        hospital.task("describe"),
        hospital.edges(0.0),
        hospital.other_split(0.7, "other"),
        hospital.task("fit"),
        hospital.moved(0.001, 1),
        hospital.moved(0.001, 1, "evaluate", split="validate"),
        hospital.task("evaluate", split="test"),
        keys_of(hospital.task("fit")),
    ]
    return [hospital.silo.answer(replace(task, params={**task.params, TRACKERS: "wandb"})) for task in tasks]


def keys_of(fit: Task) -> Task:
    """The step by which a sum of a fit begins; no study has it that makes no sums."""
    return replace(fit, step="keys", weights={}, state={}, params={"session": "s", "fit": fit.digest})


def told(reply: Reply) -> set[tuple[str, ...]]:
    """By name all that a reply tells; of a summary also how many of its numbers are not suppressed."""
    found = {("weights", name) for name in reply.weights} | {("state", name) for name in reply.state}
    found |= {("metrics", name) for name in reply.metrics} | ({("examples",)} if reply.examples else set())
    for topic, each in reply.summaries.items():
        for name, summary in each.items():
            shown = int(np.count_nonzero(np.nan_to_num(summary.values)))
            found |= {("summary", topic.value, name, str(number)) for number in range(shown)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", SCALES)
def test_each_step_of_a_rule_answers_no_more_than_the_one_before(hospitals, rule):
    hospital = hospitals[{"privacy": "private", "share": "weighted", "models": "applied"}.get(rule, "plain")]
    others = LOOSEST | ({"minimum_cell": 5} if rule == "near_cohorts" else {})  # of a cell of 1 none is near
    always, later = [], []  # a site that was as tight from the start, and one that has answered under all before
    for value in SCALES[rule]:
        fresh(hospital)
        always.append(asked(hospital, others | {rule: value}))
    fresh(hospital)
    for value in SCALES[rule]:
        later.append(asked(hospital, others | {rule: value}))
    for before, after in [*pairwise(always), *pairwise(later), *zip(always, later, strict=True)]:
        assert_no_more(before, after)
    if rule not in ("maximum_seconds", "maximum_memory"):  # which no task here comes near
        assert sum(map(len, map(told, always[-1]))) < sum(map(len, map(told, always[0])))


def assert_no_more(looser: Sequence[Reply], tighter: Sequence[Reply]) -> None:
    for before, after in zip(looser, tighter, strict=True):
        assert before.fault is None or after.fault is not None
        assert told(after) <= told(before)


def some_rules(most: int) -> some.SearchStrategy[dict[str, int]]:
    """So many rules at most, and how many steps of its scale each goes on."""
    steps = some.sampled_from(sorted(SCALES)).flatmap(
        lambda rule: some.tuples(some.just(rule), some.integers(1, len(SCALES[rule]) - 1))
    )
    return some.lists(steps, max_size=most, unique_by=lambda each: each[0]).map(dict)


def test_a_study_of_sums_is_answered_by_the_loosest_policy_up_to_its_keys(hospitals):
    fresh(hospitals["summed"])
    replies = asked(hospitals["summed"], LOOSEST)
    assert [reply.fault for reply in (replies[4], replies[-1])] == [None, None]
    assert {*replies[-1].state} and not dict(replies[4].weights)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=some.data())
def test_the_tighter_of_two_policies_never_answers_more(hospitals, data):
    hospital = hospitals[data.draw(some.sampled_from(sorted(STUDIES)), label="study")]
    first = data.draw(some_rules(2), label="beyond the loosest")
    more = data.draw(some_rules(3), label="tighter by")
    second = {rule: min(first.get(rule, 0) + more.get(rule, 0), len(SCALES[rule]) - 1) for rule in SCALES}
    loose = {rule: scale[first.get(rule, 0)] for rule, scale in SCALES.items()}
    tight = {rule: scale[second[rule]] for rule, scale in SCALES.items()}
    fresh(hospital)
    before, later = asked(hospital, loose), asked(hospital, tight)
    fresh(hospital)
    always = asked(hospital, tight)
    assert_no_more(before, always)
    assert_no_more(always, later)


def fresh(hospital: Hospital) -> None:
    """The site as it was before anybody asked."""
    shutil.rmtree(hospital.folder / "home", ignore_errors=True)
    hospital.open()
