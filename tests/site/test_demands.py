"""What a hospital demands in its own file is asked of every study, and nothing outside of the file loosens it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.multimodal import Multimodal
from datamodules.records import Records
from datamodules.tabular import Tabular
from datamodules.targets import Binary
from flip.config.demands import largest_share
from flip.config.policy import Policy
from flip.config.rules import RELEASES
from flip.config.site_file import load_site
from flip.errors import UserError
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.privacy import Mechanism, Spent
from flip.privacy.dp_sgd import DPSGD
from flip.site.disclosure import released
from flip.site.refusal import Refusal
from flip.site.releases import OF_TOPIC
from flip.site.silo import Silo
from flip.strategies.cyclic import Cyclic
from flip.strategies.fedavg import FedAvg
from tests.cohorts.dermatology import dermatology
from tests.site import test_gate
from tests.studies import compose_study

RULES = {"minimum_persons": 10, "minimum_cell": 5, "persons_per_parameter": 0, "maximum_change": 100.0}
RULES |= {"approval": "none"}


class Hospital(test_gate.Hospital):
    """A deployed site that permits a small model."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        super().__init__(folder, *overrides)
        self.policy(RULES)


DP = {"mechanism": "dp_sgd", "epsilon": 3, "delta": 1e-5}
PRIVATE = ("privacy=dp_sgd", "dataset.batch_size=8")


def statistics(folder: Path, rules: dict[str, object], *overrides: str) -> tuple[Fault | None, str]:
    """The answer to the first task of a study under these rules, and the site's log."""
    own = Hospital(folder, *overrides)
    own.policy(RULES | rules)
    reply = own.silo.answer(own.task("statistics"))
    return reply.fault, (folder / "home" / "site.log").read_text() if reply.fault else ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "the study does not have it"),
        ([*PRIVATE, "privacy.dp_sgd.target_epsilon=2.1"], "policy.privacy.epsilon=3: the study spends 3.1 here"),
        ([*PRIVATE, "privacy.dp_sgd.target_epsilon=2", "privacy.dp_sgd.delta=1.0e-4"], "policy.privacy.delta=1e-05"),
        ([*PRIVATE, "privacy.dp_sgd.target_epsilon=2"], ""),
    ],
)
def test_a_study_without_the_demanded_mechanism_or_that_states_more_is_refused_first(tmp_path, overrides, words):
    fault, log = statistics(tmp_path, {"privacy": DP}, *overrides)
    assert fault is (Fault.REFUSED_RULE if words else None)
    assert words in log


def test_a_mechanism_states_what_it_spends_where_that_does_not_depend_on_the_data():
    assert DPSGD(1.0, 1e-5, noise_multiplier=1.0).stated() is None
    assert DPSGD(1.0, 1e-5, target_epsilon=2.0).stated() == Spent(2.0, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ({}, None),
        ({"site_weights": {"a": 1, "b": 0, "c": 0}}, 1.0),
        ({"site_weights": {"a": 1, "b": 1, "c": 2}}, 0.5),
        ({"site_weights": {"a": 1, "b": 1, "c": 1, "d": 1}, "fraction": 0.5}, 0.5),
        ({"site_weights": {"a": 1, "b": 1, "c": 1, "d": 1}, "min_sites": 1}, 1.0),
    ],
)
def test_the_share_of_a_site_is_that_in_the_smallest_round(arguments, share):
    assert largest_share(FedAvg(1, **arguments)) == share


def test_a_site_that_is_sent_what_another_one_trained_sees_all_of_it():
    assert largest_share(Cyclic(1)) == 1.0


def test_weights_that_single_out_one_site_are_refused(tmp_path):
    one_hot = "strategy.site_weights={cleveland: 1, hungarian: 0, switzerland: 0, va: 0}"
    fault, log = statistics(tmp_path, {}, one_hot)
    assert (fault, "policy.share=0.5: the strategy can give one site a share of 1" in log) == (Fault.REFUSED_RULE, True)


@pytest.mark.parametrize(("sites", "fault"), [("2", Fault.REFUSED_RULE), ("3", None)])
def test_a_study_that_goes_on_with_fewer_sites_is_refused(tmp_path, sites, fault):
    assert statistics(tmp_path, {"least_sites": 3}, f"strategy.min_sites={sites}")[0] is fault


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy=local_dp", "dataset.scaling=declared", "strategy.most_change=2"], "up to strategy.most_change=2"),
        (["privacy=local_dp", "dataset.scaling=declared", "strategy.most_change=0.05"], ""),
        (["strategy.most_change=2"], ""),
    ],
)
def test_a_study_that_states_noise_beyond_what_a_site_takes_is_refused_before_it_is_spent(tmp_path, overrides, words):
    fault, log = statistics(tmp_path, {"maximum_change": 0.05}, *overrides)
    assert fault is (Fault.REFUSED_RULE if words else None)
    assert words in log
    assert not (words and (tmp_path / "home" / "ledger.jsonl").exists())


# What leaves.


def test_every_topic_of_a_reply_is_of_a_kind_that_a_site_can_keep():
    assert set(OF_TOPIC) == set(Topic) and set(OF_TOPIC.values()) <= set(RELEASES)


def reply_to(step: str, *releases: str) -> Reply:
    """All that a step can answer, under a list of what leaves."""
    sums = {topic: {"auroc/x": Summary(SummaryKind.SUM, np.ones(1), 9)} for topic in Topic}
    weights = {"w": np.ones(1)} if step == "fit" else {}
    fields = {"examples": 9, "metrics": {"loss": 1.0, "privacy/epsilon": 1.0}, "weights": weights, "summaries": sums}
    return released(9, Policy(2, 2, releases=releases), step, private=False, site="a", task_digest="", **fields)


@pytest.mark.parametrize(("step", "kind"), [("statistics",) * 2, ("describe",) * 2, ("fit", "weights")])
def test_a_step_whose_whole_answer_stays_is_refused(step, kind):
    assert reply_to(step, kind).examples == 9
    with pytest.raises(Refusal, match=Fault.REFUSED_RULE.value):
        reply_to(step, *(each for each in RELEASES if each != kind))


def test_metrics_that_stay_are_named_and_nothing_else_of_an_evaluation_leaves():
    reply = reply_to("evaluate", "outcomes")
    assert (reply.examples, dict(reply.metrics), set(reply.summaries)) == (
        0,
        {"privacy/epsilon": 1.0},
        {Topic.OUTCOMES},
    )
    assert reply.withheld["auroc"] is Withheld.RELEASES
    assert Topic.OUTCOMES not in reply_to("evaluate", "metrics").summaries


# Whose a row is.


def test_the_study_does_not_say_at_a_hospital_whose_a_row_is(tmp_path):
    own = Hospital(tmp_path, "dataset.header=null", "dataset.person=null")
    root = tmp_path / "data" / "uci_heart" / "processed.cleveland.data"
    names = own.study.manifest["dataset"]
    used = [*names["numeric"], *names["categorical"], names["label"]]
    row = ",".join("1" for _ in used)
    root.write_text("\n".join([",".join([*used, "MRN"]), *(f"{row},{index % 3}" for index in range(120))]) + "\n")
    rules = json.dumps(RULES)
    for person, fault in (("", Fault.REFUSED_RULE), ("person: MRN", Fault.REFUSED_COHORT), ("person: row", None)):
        own.file.write_text(f"root: {root}\n{person}\npolicy: {rules}\n")
        assert own.silo.answer(own.task("statistics")).fault is fault


def test_nor_does_it_of_images_and_tables():
    target = Binary("died", positive=[1])
    for person, column in (("MRN", "MRN"), (None, None), ("", "visit")):
        data = Multimodal(".", target=target, tabular=Tabular(["age"]), person=person, records=Records(person="visit"))
        assert data.query.records.person == column


@pytest.mark.parametrize(
    ("declared", "releases", "fault"), [(False, (), Fault.REFUSED_RULE), (True, (), None), (False, RELEASES, None)]
)
def test_names_of_levels_leave_a_hospital_where_the_study_declares_them_or_the_site_says_so(
    tmp_path, declared, releases, fault
):
    levels = ["dataset.tabular.categorical={region: [ARM, BACK, FACE]}"] if declared else []
    study = compose_study("experiment=dermatology", "federation=inprocess", *dermatology(tmp_path), *levels)
    site = replace(next(iter(study.sites.values())), person="patient_id", secret=None)
    rules = (
        RULES | {"minimum_cell": 2, "maximum_parameters": 10**9} | ({"releases": list(releases)} if releases else {})
    )
    silo = Silo("clinic_0", replace(site, policy=rules), tmp_path / "home", deployed=True)
    reply = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text))
    assert reply.fault is fault
    log = (tmp_path / "home" / "site.log").read_text() if fault else ""
    assert ("does not declare those of region" in log) == bool(fault)


def test_a_sites_file_takes_no_environment_variable_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "/data")
    (tmp_path / "site.yaml").write_text("root: ${oc.env:HERE}\npolicy: {minimum_persons: 9, minimum_cell: 2}\n")
    with pytest.raises(UserError, match=r"root .*write the value itself"):
        load_site(tmp_path / "site.yaml")


# Sums that nobody can open but together.


@pytest.mark.parametrize("overrides", [(), PRIVATE])
def test_a_hospital_that_requires_secure_sums_refuses_every_study_without_them(tmp_path, overrides):
    own = Hospital(tmp_path, *overrides)
    own.policy(RULES | {"secure_aggregation": "required"})
    asked = [own.task("statistics"), own.task(), own.task(stage="alone", alone="cleveland")]
    assert {own.silo.answer(each).fault for each in asked} == {Fault.REFUSED_RULE}
    log = (tmp_path / "home" / "site.log").read_text()
    assert "policy.secure_aggregation=required: the study has no mechanism by which only a sum" in log


def test_a_mechanism_that_makes_secure_sums_meets_the_demand(tmp_path):
    class Sums(Mechanism):
        secure_sums = True

    manifest, strategy = Hospital(tmp_path).study.manifest, FedAvg(rounds=1)
    policy = Policy(2, 2, secure_aggregation="required")
    assert policy.refuses_parts(manifest, strategy, [Sums()]) is None
    assert policy.refuses_parts(manifest, strategy, [Mechanism()]) is not None


def test_secure_aggregation_is_required_or_left_out():
    with pytest.raises(UserError, match="secure_aggregation=True: must be required, or null"):
        Policy.read("kings", RULES | {"secure_aggregation": True})
