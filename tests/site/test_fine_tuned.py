"""A site trains the final weights further once in a run, within the study's rounds, and scores what it has itself."""

from dataclasses import replace

import pytest

from flip.messages import Fault
from flip.site.devices import fit_on
from tests.site.test_gate import Hospital

STEPS = 5  # of a round


@pytest.fixture
def hospital(tmp_path) -> Hospital:
    return Hospital(tmp_path)


def answer(hospital: Hospital, step: str = "fit", by: float = 0.0, number: int = 2, **params):
    return hospital.silo.answer(hospital.moved(by, number, step, stage="fine_tuned", **params))


def test_the_model_stays_at_the_site(hospital):
    reply = answer(hospital, rounds=1)
    assert (reply.fault, dict(reply.weights), dict(reply.state)) == (None, {}, {})
    assert reply.metrics["loss"] > 0
    assert answer(hospital, "evaluate", split="test").fault is None


def test_other_final_weights_in_the_same_run_are_refused_and_the_same_again_are_not(hospital):
    faults = [answer(hospital, by=by, rounds=1).fault for by in (0.0, 0.1, 0.0)]
    assert faults == [None, Fault.REFUSED_PROTOCOL, None]


@pytest.mark.parametrize("rounds", [{}, {"rounds": 0}, {"rounds": 4}, {"rounds": True}, {"rounds": "1"}])
def test_it_is_for_1_to_all_rounds_of_the_study(hospital, rounds):
    assert answer(hospital, **rounds).fault is Fault.REFUSED_PROTOCOL


def test_rounds_are_no_parameter_of_a_round(hospital):
    assert hospital.silo.answer(hospital.task(rounds=1)).fault is Fault.REFUSED_PROTOCOL


def test_a_score_before_it_is_refused(hospital):
    assert answer(hospital, "evaluate", split="test").fault is Fault.REFUSED_PROTOCOL


def test_final_weights_farther_off_than_the_rounds_can_move_are_refused(hospital):
    assert answer(hospital, by=301.0, rounds=1).fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize(("most", "fault"), [(1, Fault.REFUSED_RULE), (STEPS, Fault.REFUSED_RULE), (3 * STEPS, None)])
def test_all_its_steps_are_within_those_of_a_round_by_the_sites_policy(hospital, most, fault):
    from tests.site.test_gate import RULES

    hospital.policy(RULES | {"maximum_steps": most})
    assert answer(hospital, rounds=3).fault is fault


def test_a_model_that_was_tuned_before_the_last_round_is_not_scored_as_the_final_one(hospital):
    assert answer(hospital, number=0, rounds=1).fault is None
    score = hospital.moved(0.1, 2, "evaluate", stage="fine_tuned", split="test")
    assert hospital.silo.answer(score).fault is Fault.REFUSED_WEIGHTS
    assert answer(hospital, "evaluate", number=0, split="test").fault is None


def test_after_it_there_is_no_further_round(hospital):
    assert hospital.silo.answer(hospital.task()).fault is None
    assert answer(hospital, number=0, rounds=1).fault is None
    assert hospital.silo.answer(hospital.task(number=1)).fault is Fault.REFUSED_WEIGHTS
    assert hospital.silo.answer(hospital.task()).fault is None  # the same round again, as after a resume


def test_weights_of_an_earlier_round_than_the_last_are_not_trained_further(hospital):
    for number in (0, 1, 2):
        assert hospital.silo.answer(hospital.moved(0.1 * number, number)).fault is None
    assert answer(hospital, number=0, by=0.1, rounds=1).fault is Fault.REFUSED_WEIGHTS


def test_it_is_refused_under_a_privacy_mechanism(tmp_path):
    private = Hospital(tmp_path, "privacy=dp_sgd", "dataset.scaling=declared")
    reply = answer(private, rounds=1)
    assert reply.fault is not None
    log = (private.folder / "home" / "site.log").read_text()
    assert "under a privacy mechanism" in log


@pytest.fixture
def sharing(tmp_path) -> Hospital:
    """A hospital that keeps the bias of the model to itself."""
    return Hospital(tmp_path, "strategy.share=[linear.weight]")


def shared(task):
    return replace(task, weights={"linear.weight": task.weights["linear.weight"]})


def test_it_goes_on_from_the_parameters_that_the_site_has_kept_in_the_last_round(sharing, monkeypatch):
    begins = []

    def noted(module, *others, **named):
        begins.append(module.linear.bias.item())
        return fit_on(module, *others, **named)

    monkeypatch.setattr("flip.site.fit.fit_on", noted)
    assert sharing.silo.answer(shared(sharing.task())).fault is None
    assert sharing.silo.answer(shared(sharing.task(number=1))).fault is None
    assert sharing.silo.answer(shared(sharing.task(number=0, stage="fine_tuned", rounds=1))).fault is None
    assert begins[2] == begins[1] != begins[0]


def test_parameters_that_do_not_travel_are_not_sent_for_it(sharing):
    assert sharing.silo.answer(shared(sharing.task())).fault is None
    assert sharing.silo.answer(sharing.task(stage="fine_tuned", rounds=1)).fault is Fault.REFUSED_PROTOCOL
