"""The round loop with stub sites: who is asked what, what is refused, what is written down."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric

from flip.coordinator.evaluation import Evaluation
from flip.coordinator.loop import Coordinator
from flip.coordinator.roster import Roster
from flip.errors import StudyFailed
from flip.messages import Fault, Reply, Task
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.privacy import Mechanism
from flip.privacy.local_dp import LocalDP
from flip.strategies.fedavg import FedAvg


class Module(torch.nn.Module):
    monitor, higher_is_better = "loss", False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.metrics = torch.nn.ModuleDict({"loss": MeanMetric()})


@dataclass
class Notes:
    """A recorder that keeps everything."""

    lines: list = field(default_factory=list)
    cohorts: dict = field(default_factory=dict)
    rounds: list = field(default_factory=list)
    bests: list = field(default_factory=list)

    def line(self, record):
        self.lines.append(record)

    def cohort(self, cohort):
        self.cohorts = cohort

    def complete(self, progress):
        self.rounds.append(progress.round)

    def best(self, model):
        self.bests.append(model.weights["weight"].tolist())

    def panels(self, panels):
        pass

    def outcomes(self, outcomes):
        raise AssertionError("this study has no outcomes")


@dataclass
class Sites:
    """Stub sites: each adds 1 to the weights; `spoil` may change a reply."""

    validate: int = 0
    spoil: object = lambda reply, task: reply
    tasks: list = field(default_factory=list)

    def ask(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        for name in names:
            self.tasks.append((task.step, task.round, name, dict(task.params)))
            yield self.spoil(getattr(self, task.step)(task, name), task)

    def statistics(self, task, name):
        metrics = {"persons": 10.0, "train": 6.0, "validate": float(self.validate), "test": 4.0}
        moments = {"moments/age": Summary(SummaryKind.MOMENTS, np.array([6.0, 300.0, 16000.0]), 10)}
        return Reply(name, task.digest, 6, metrics, summaries={Topic.STATISTICS: moments})

    def fit(self, task, name):
        return Reply(name, task.digest, 6, {"loss": 0.5}, {"weight": task.weights["weight"] + np.float32(1)})

    def evaluate(self, task, name):
        loss = float(abs(task.weights["weight"][0] - 2))
        states = {"loss/mean_value": loss * 4, "loss/weight": 4.0}
        sums = {key: Summary(SummaryKind.SUM, np.array(value), 4) for key, value in states.items()}
        return Reply(name, task.digest, 4, {"loss": loss}, summaries={Topic.METRIC: sums})


def coordinator(notes: Notes, trains=("a", "b", "c"), tested=(), **strategy) -> Coordinator:
    made = FedAvg(**{"rounds": 4, "min_sites": 1, **strategy})
    roster = Roster("r", "{}", {**dict.fromkeys(trains, True), **dict.fromkeys(tested, False)}, made.min_sites, notes)
    return Coordinator(roster, Evaluation(roster, Module(), None, made.rounds), seed=1, strategy=made)


def fault_at(site: str, step: str, fault: Fault):
    return lambda reply, task: (
        Reply(site, task.digest, fault=fault) if (reply.site, task.step) == (site, step) else reply
    )


def test_a_study_asks_for_statistics_then_rounds_then_the_test_split_once():
    sites = Sites()
    coordinator(Notes(), trains=("a",), rounds=2)(sites.ask)
    assert [task[0] for task in sites.tasks] == ["statistics", "fit", "fit", "evaluate"]
    assert sites.tasks[-1][3]["split"] == "test"


def test_weights_are_the_mean_after_all_rounds():
    assert coordinator(Notes())(Sites().ask)["weight"].tolist() == [4, 4]


def test_a_site_that_is_only_tested_on_never_trains():
    sites = Sites()
    coordinator(Notes(), trains=("a",), tested=("z",))(sites.ask)
    assert {name for step, _, name, _ in sites.tasks if step == "fit"} == {"a"}
    assert {name for step, _, name, _ in sites.tasks if step == "evaluate"} == {"a", "z"}


def test_the_validation_split_chooses_the_best_weights():
    notes = Notes()
    coordinator(notes)(Sites(validate=2).ask)
    assert notes.bests == [[1, 1], [2, 2]]


def test_without_a_validation_split_nothing_is_called_best():
    notes = Notes()
    coordinator(notes)(Sites().ask)
    assert notes.bests == []


def test_a_faulty_site_is_left_out_and_written_down():
    notes, sites = Notes(), Sites(spoil=fault_at("b", "fit", Fault.RAISED))
    assert coordinator(notes, min_sites=2)(sites.ask)["weight"].tolist() == [4, 4]
    assert {line["fault"] for line in notes.lines if line["site"] == "b" and line["phase"] == "fit"} == {"RAISED"}


def test_too_few_usable_sites_end_the_study_with_who_and_why():
    notes = Notes()
    with pytest.raises(
        StudyFailed, match=r"2 usable sites in round 1, strategy.min_sites=3. b: the site's training"
    ) as failed:
        coordinator(notes, min_sites=3)(Sites(spoil=fault_at("b", "fit", Fault.RAISED)).ask)
    assert failed.value.status == "failed"
    assert notes.rounds == []


def test_every_site_is_needed_where_no_number_is_declared():
    spoil = fault_at("b", "fit", Fault.RAISED)
    with pytest.raises(
        StudyFailed, match=r"not every site could be used in round 1, .*null needs each one. b: the site"
    ):
        coordinator(Notes(), min_sites=None)(Sites(spoil=spoil).ask)


@pytest.mark.parametrize("fault", [Fault.REFUSED_COHORT, Fault.DATA, Fault.TIMEOUT])
def test_a_site_without_a_cohort_ends_the_study_where_no_number_is_declared(fault):
    with pytest.raises(StudyFailed, match="not every site could be used before the first round") as failed:
        coordinator(Notes(), min_sites=None)(Sites(spoil=fault_at("b", "statistics", fault)).ask)
    assert failed.value.status == ("refused" if fault.refused else "failed")


def test_a_site_that_is_only_tested_on_is_not_needed():
    spoil = fault_at("z", "statistics", Fault.DATA)
    study = coordinator(Notes(), tested=("z",), min_sites=None)
    assert study(Sites(spoil=spoil).ask)["weight"].tolist() == [4, 4]


def test_half_of_the_sites_are_needed_where_half_are_asked():
    sites = Sites()
    coordinator(Notes(), trains=("a", "b"), fraction=0.5, min_sites=None, rounds=2)(sites.ask)
    assert len([step for step, *_ in sites.tasks if step == "fit"]) == 2


def test_a_round_in_which_only_a_site_of_weight_0_answers_ends_the_study():
    spoil = fault_at("a", "fit", Fault.LOST)
    weights = {"a": 1.0, "b": 0.0}
    with pytest.raises(StudyFailed, match=r"0 usable sites in round 1, strategy.min_sites=1. a: the site was lost"):
        coordinator(Notes(), trains=("a", "b"), site_weights=weights)(Sites(spoil=spoil).ask)


def test_a_refusal_alone_ends_the_study_as_refused():
    spoil = fault_at("b", "statistics", Fault.REFUSED_COHORT)
    with pytest.raises(StudyFailed, match="fewer distinct persons") as failed:
        coordinator(Notes(), min_sites=3)(Sites(spoil=spoil).ask)
    assert failed.value.status == "refused"


@pytest.mark.parametrize("fault", [Fault.REFUSED_PROTOCOL, Fault.REFUSED_RULE])
def test_what_sites_say_to_a_run_that_goes_on_with_others_than_it_began_with_has_a_remedy(fault):
    with pytest.raises(StudyFailed) as failed:
        coordinator(Notes(), min_sites=None)(Sites(spoil=fault_at("b", "fit", fault)).ask)
    told = "start the study anew, without resume=" in str(failed.value)
    assert told == (fault is Fault.REFUSED_PROTOCOL)


def test_a_site_that_refused_is_not_asked_again():
    sites = Sites(spoil=fault_at("b", "statistics", Fault.REFUSED_COHORT))
    coordinator(Notes())(sites.ask)
    assert [step for step, _, name, _ in sites.tasks if name == "b"] == ["statistics"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"weights": {"weight": np.array([np.nan, 1], np.float32)}}, "NOT_FINITE"),
        ({"weights": {"weight": np.array([np.inf, 1], np.float32)}}, "NOT_FINITE"),
        ({"weights": {"weight": np.ones(3, np.float32)}}, "INVALID"),
        ({"weights": {}}, "INVALID"),
        ({"weights": {"weight": np.ones(2, np.float64)}}, "INVALID"),
        ({"task_digest": "of an old round"}, "INVALID"),
        ({"examples": 0}, "IMPLAUSIBLE"),
        ({"examples": -(10**6)}, "IMPLAUSIBLE"),
        ({"examples": 10**9}, "IMPLAUSIBLE"),
        ({"weights": {"weight": np.array([3e38, 0], np.float32)}}, "IMPLAUSIBLE"),
        ({"weights": {"weight": np.array([0, -5e9], np.float32)}}, "IMPLAUSIBLE"),
        ({"metrics": []}, "INVALID"),
        ({"summaries": {"moments": 5}}, "INVALID"),
        ({"fingerprint": None}, "INVALID"),
        ({"examples": True}, "INVALID"),
        ({"metrics": {"name of a patient": 1.0}}, "INVALID"),
        ({"metrics": {"loss": "text"}}, "INVALID"),
        ({"metrics": {"loss": 10**400}}, "INVALID"),  # JSON's whole numbers know no end
        ({"metrics": {"loss": float("nan")}}, "NOT_FINITE"),
        ({"examples": 7}, "IMPLAUSIBLE"),  # more than the site said that it has
        ({"examples": "6"}, "INVALID"),
        ({"state": {"weight": np.ones(2, np.float32)}}, "INVALID"),
    ],
)
def test_a_reply_that_does_not_fit_is_a_fault_and_not_averaged(change, fault):
    notes = Notes()
    spoil = lambda reply, task: replace(reply, **change) if (reply.site, task.step) == ("b", "fit") else reply  # noqa: E731
    assert coordinator(notes)(Sites(spoil=spoil).ask)["weight"].tolist() == [4, 4]
    assert notes.lines[4]["site"] == "b"
    assert notes.lines[4]["fault"] == fault


@pytest.mark.parametrize(("most", "fault"), [(1.0, None), (0.99, "IMPLAUSIBLE"), (None, None)])
def test_a_site_whose_weights_moved_beyond_the_studys_bound_is_named_and_not_averaged(most, fault):
    notes = Notes()
    still = lambda reply, task: (  # noqa: E731
        replace(reply, weights=task.weights) if (reply.site, task.step) in (("a", "fit"), ("c", "fit")) else reply
    )
    weights = coordinator(notes, rounds=2, most_change=most)(Sites(spoil=still).ask)["weight"]
    assert [line["fault"] for line in notes.lines if (line["site"], line["phase"]) == ("b", "fit")] == [fault] * 2
    assert weights.tolist() == pytest.approx([0, 0] if fault else [2 / 3, 2 / 3])


def test_a_sites_own_noise_is_no_part_of_how_far_its_training_moved_the_weights():
    notes = Notes()
    made = coordinator(notes, rounds=2, most_change=0.9)
    made.mechanisms = [LocalDP(clip=0.1, delta=1e-5, noise_multiplier=0.5)]  # deviation .1 in what one site sends
    assert made(Sites().ask)["weight"].tolist() == [2, 2]
    assert {line["fault"] for line in notes.lines} == {None}


def moments(*numbers: float) -> dict[Topic, dict[str, Summary]]:
    return {Topic.STATISTICS: {"moments/age": Summary(SummaryKind.MOMENTS, np.array(numbers, float), 10)}}


@pytest.mark.parametrize(
    "change",
    [
        {"summaries": moments(-1e6, 300, 16000)},
        {"summaries": moments(1e9, 300, 16000)},
        {"summaries": moments(6, 300, 10)},  # squares of less than the mean's
        {"summaries": moments(6, 1e150, 1e300)},
        {"summaries": {Topic.STATISTICS: {"count/label": Summary(SummaryKind.COUNT, np.array([-5.0, 6.0]), 10)}}},
        {"metrics": {"persons": 10.0, "train": -1e6, "validate": 0.0, "test": 4.0}},
        {"metrics": {"persons": 10.0, "train": 1e9, "validate": 0.0, "test": 4.0}, "examples": 10**9},
        {"metrics": {"persons": 10.0, "train": 6.5, "validate": 0.0, "test": 4.0}},
    ],
)
def test_sums_and_counts_that_cannot_be_leave_their_site_out_before_they_reach_the_others(change):
    seen, notes = [], Notes()

    def spoil(reply, task):
        seen.append(task)
        return replace(reply, **change) if (reply.site, task.step) == ("b", "statistics") else reply

    assert coordinator(notes)(Sites(spoil=spoil).ask)["weight"].tolist() == [4, 4]
    assert [line["fault"] for line in notes.lines if line["site"] == "b"] == ["IMPLAUSIBLE"]
    assert seen[-1].state["statistics/moments/age"].tolist() == [12, 600, 32000]


def test_a_site_whose_size_is_not_known_has_at_most_half_of_the_mean():
    def spoil(number):
        def late(reply, task):
            if (reply.site, task.step) == ("b", "statistics"):
                return Reply("b", task.digest, fault=Fault.TIMEOUT)
            return replace(reply, examples=number) if (reply.site, task.step) == ("b", "fit") else reply

        return late

    for number, fault in ((12, None), (13, "IMPLAUSIBLE")):
        notes = Notes()
        coordinator(notes, rounds=1)(Sites(spoil=spoil(number)).ask)
        assert [line["fault"] for line in notes.lines if line["site"] == "b" and line["phase"] == "fit"] == [fault]


def test_a_loss_of_fewer_than_no_rows_is_a_fault():
    def spoil(reply, task):
        if (reply.site, task.step) != ("b", "evaluate"):
            return reply
        wrong = Summary(SummaryKind.SUM, np.array(-1e6), 4)
        return replace(reply, summaries={Topic.METRIC: {**reply.summaries[Topic.METRIC], "loss/weight": wrong}})

    notes = Notes()
    coordinator(notes, rounds=1)(Sites(spoil=spoil).ask)
    assert [line["fault"] for line in notes.lines if line["site"] == "b"][-1] == "IMPLAUSIBLE"


@pytest.mark.parametrize("seconds", ["long", float("inf"), 10**400, -1.0])
def test_what_a_site_says_of_its_seconds_ends_no_study(seconds):
    notes = Notes()
    coordinator(notes)(Sites(spoil=lambda reply, task: replace(reply, seconds=seconds)).ask)
    assert {line["seconds"] for line in notes.lines} == {0.0}


def test_the_agreed_statistics_are_the_sum_over_training_sites_and_go_out_with_every_task():
    seen = []
    sites = Sites(spoil=lambda reply, task: seen.append(task) or reply)
    coordinator(Notes(), trains=("a", "b"), tested=("z",), rounds=1)(sites.ask)
    assert seen[-1].state["statistics/moments/age"].tolist() == [12, 600, 32000]


def test_sites_are_sampled_by_name_the_same_in_every_run():
    first, second = Sites(), Sites()
    coordinator(Notes(), fraction=0.3)(first.ask)
    coordinator(Notes(), fraction=0.3)(second.ask)
    fits = [task for task in first.tasks if task[0] == "fit"]
    assert fits == [task for task in second.tasks if task[0] == "fit"]
    assert len({name for _, _, name, _ in fits}) > 1


def test_pooled_metrics_are_computed_from_merged_states():
    study = coordinator(Notes(), trains=("a", "b"), rounds=1)
    study(Sites().ask)
    assert study.evaluation.metrics["test/pooled/loss"] == pytest.approx(1.0)
    assert study.evaluation.metrics["test/site/a/loss"] == pytest.approx(1.0)


def test_a_score_that_is_no_state_of_the_metrics_is_a_fault():
    def spoil(reply, task):
        if (reply.site, task.step) != ("b", "evaluate"):
            return reply
        wrong = Summary(SummaryKind.SUM, np.zeros(3), 4)
        return replace(reply, summaries={Topic.METRIC: {**reply.summaries[Topic.METRIC], "loss/weight": wrong}})

    notes = Notes()
    study = coordinator(notes, rounds=1)
    study(Sites(spoil=spoil).ask)
    assert [line["fault"] for line in notes.lines if line["site"] == "b" and line["phase"] == "test"] == ["INVALID"]
    assert "test/site/b/loss" not in study.evaluation.metrics


def test_a_number_skipped_that_is_not_one_number_is_a_fault():
    two = {Topic.SKIPPED: {"a gap": Summary(SummaryKind.COUNT, np.ones(2), 10)}}
    notes, sites = Notes(), Sites(spoil=lambda reply, _: replace(reply, summaries=two) if reply.site == "b" else reply)
    coordinator(notes)(sites.ask)
    assert notes.cohorts["b"]["fault"] == "INVALID"


def test_statistics_that_cannot_be_added_leave_the_site_out():
    def spoil(reply, task):
        other = Summary(SummaryKind.MOMENTS, np.zeros((2, 3)), 10)
        found = {Topic.STATISTICS: {"moments/age": other}}
        return replace(reply, summaries=found) if task.step == "statistics" else reply

    notes = Notes()
    sites = Sites(spoil=lambda reply, task: spoil(reply, task) if reply.site == "b" else reply)
    coordinator(notes)(sites.ask)
    assert notes.cohorts["b"]["fault"] == "INVALID"
    assert {name for step, _, name, _ in sites.tasks if step == "fit"} == {"a", "c"}


def test_a_pooled_metric_needs_every_site_that_was_scored():
    def spoil(reply, task):
        withheld = task.step == "evaluate" and reply.site == "b"
        return replace(reply, summaries={}) if withheld else reply

    study = coordinator(Notes(), rounds=1)
    study(Sites(spoil=spoil).ask)
    assert "test/site/b/loss" in study.evaluation.metrics
    assert "test/pooled/loss" not in study.evaluation.metrics


def test_a_study_that_nobody_could_score_has_failed():
    spoil = lambda reply, task: Reply(reply.site, task.digest, fault=Fault.RAISED) if task.step == "evaluate" else reply  # noqa: E731
    with pytest.raises(StudyFailed, match=f"no site could score its test split: a: {Fault.RAISED.value}; b: "):
        coordinator(Notes())(Sites(spoil=spoil).ask)


def test_text_of_a_site_is_not_passed_on_as_a_reason():
    def spoil(reply, task):
        found = {reason: Summary(SummaryKind.COUNT, np.ones(1), 10) for reason in ("a gap", "/data/doe_john")}
        return replace(reply, summaries={Topic.SKIPPED: found}) if task.step == "statistics" else reply

    notes = Notes()
    study = coordinator(notes)
    study.reasons = frozenset({"a gap"})
    study(Sites(spoil=spoil).ask)
    assert notes.cohorts["a"]["skipped"] == {"a gap": 1, "another reason, which the site's own log names": 1}


def test_privacy_mechanisms_stand_between_the_coordinator_and_the_sites():
    seen = []

    class Watch(Mechanism):
        def __init__(self, name):
            self.name = name

        def wrap_ask(self, ask):
            def wrapped(task, names):
                seen.append(self.name)
                yield from ask(task, names)

            return wrapped

    study = coordinator(Notes(), rounds=1)
    study.mechanisms = [Watch("outer"), Watch("inner")]
    study(Sites().ask)
    assert seen[:2] == ["outer", "inner"]
    assert len(seen) == 2 * 3  # statistics, fit, test
