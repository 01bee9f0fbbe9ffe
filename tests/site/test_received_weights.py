"""A coordinator does not choose the weights that a hospital trains or scores: honest rounds pass, questions do not."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flip.config.build import initial_module
from flip.config.study import Study
from flip.files import ALONE, CENTRALIZED
from flip.messages import Fault, Payload, Reply
from flip.messages.summary import Topic
from flip.messages.weights import digest, to_arrays
from flip.site.received_weights import SETS, name_of
from flip.site.silo import Silo
from flip.strategies.fedadam import FedAdam
from flip.strategies.fedyogi import FedYogi
from tests.site.chosen_weights import WIDE, ask, hospital, score_at, stolen, study_of, training_rows, trap

GENTLE = "model.optimizer.lr=0.01"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_of(tmp_path / "data", GENTLE)


@pytest.fixture
def silo(study: Study, tmp_path: Path) -> Silo:
    return hospital(study, tmp_path / "home")


def start(study: Study) -> Payload:
    return to_arrays(initial_module(study.manifest))


def moved(weights: Payload, by: float, seed: int = 0) -> Payload:
    """The weights after a change of this root mean square."""
    rng = np.random.default_rng(seed)
    changes = {name: rng.choice([-1, 1], array.shape) * by for name, array in weights.items()}
    return {name: (array + changes[name]).astype(array.dtype) for name, array in weights.items()}


def log_of(silo: Silo) -> str:
    return (silo.home / "site.log").read_text()


@pytest.mark.parametrize("number", [0, 1])
def test_one_fit_from_weights_made_for_it_yields_no_row(tmp_path, number):
    study = study_of(tmp_path / "data", *WIDE)
    silo = hospital(study, tmp_path / "home")
    sent = trap(initial_module(study.manifest).linear[0].in_features)
    reply = ask(silo, study, "fit", sent, number)
    assert stolen(sent, reply.weights, training_rows(silo)) == 0
    assert (reply.fault, dict(reply.weights)) == (Fault.REFUSED_WEIGHTS, {})


def test_the_same_fit_yields_most_rows_where_a_site_takes_any_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("flip.site.received_weights.Received.check", lambda self: None)
    study = study_of(tmp_path / "data", *WIDE)
    silo = hospital(study, tmp_path / "home")
    sent = trap(initial_module(study.manifest).linear[0].in_features)
    reply = ask(silo, study, "fit", sent)
    assert stolen(sent, reply.weights, training_rows(silo)) >= 60  # of 79


def persons_told(silo: Silo, study: Study, questions: int) -> int:
    """Of so many scores of weights that see the age alone, how many steps of one person the counts show."""
    cuts = np.linspace(0.5, 1.6, questions)
    replies = [ask(silo, study, "evaluate", score_at(study, cut), split="test") for cut in cuts]
    counts = [predicted_ill(reply) for reply in replies if reply.fault is None]
    return sum(before - after == 1 for before, after in itertools.pairwise(counts))


def predicted_ill(reply: Reply) -> int:
    states = reply.summaries[Topic.METRIC]
    return int(sum(states[f"accuracy/{name}"].values.item() for name in ("tp", "fp") if f"accuracy/{name}" in states))


def test_sixty_scores_are_no_sixty_questions(study, tmp_path):
    silo = hospital(study, tmp_path / "home", minimum_cell=2)
    assert persons_told(silo, study, 60) == 0
    assert "can move them by" in log_of(silo)


def test_twelve_scores_tell_of_single_persons_where_a_site_takes_any_weights(study, tmp_path, monkeypatch):
    silo = hospital(study, tmp_path / "home", minimum_cell=2)
    monkeypatch.setattr("flip.site.received_weights.Received.check", lambda self: None)
    monkeypatch.setattr("flip.site.gate.SCORES_A_ROUND", 12)
    assert persons_told(silo, study, 12) >= 2


def test_a_round_has_few_different_weights(silo, study):
    near = [moved(start(study), 0.01, seed) for seed in range(SETS + 1)]
    replies = [ask(silo, study, "fit", each, 1) for each in (*near, near[0])]
    assert [reply.fault for reply in replies] == [*[None] * SETS, Fault.REFUSED_WEIGHTS, None]


def test_the_first_round_begins_from_the_seeded_start_and_nothing_else(silo, study):
    assert ask(silo, study, "fit", moved(start(study), 0.001)).fault is Fault.REFUSED_WEIGHTS
    assert "seeded start" in log_of(silo)
    rounded = {name: np.nextafter(array, np.float32(9)) for name, array in start(study).items()}
    assert ask(silo, study, "fit", rounded).fault is None  # as another processor rounds


def test_a_round_moves_the_weights_so_far_and_several_rounds_so_much_farther(silo, study):
    assert ask(silo, study, "fit", start(study)).fault is None
    assert ask(silo, study, "fit", moved(start(study), 0.051), 1).fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "fit", moved(start(study), 0.049), 1).fault is None
    assert ask(silo, study, "fit", moved(start(study), 0.19), 4).fault is None  # not asked in rounds 3 and 4
    assert ask(silo, study, "fit", moved(start(study), 0.3), 4).fault is Fault.REFUSED_WEIGHTS


def test_a_restarted_site_knows_what_it_took(silo, study, tmp_path):
    first = moved(start(study), 0.04)
    assert ask(silo, study, "fit", first, 1).fault is None
    again = hospital(study, tmp_path / "home")
    assert ask(again, study, "evaluate", moved(first, 0.04), 1, split="test").fault is None
    assert ask(again, study, "evaluate", moved(start(study), -0.05), 2, split="test").fault is Fault.REFUSED_WEIGHTS
    kept = [*again.place.store("run").folder.glob("received*")]
    assert kept
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


def test_rounds_that_the_study_does_not_have_are_refused(silo, study):
    for number in (-2, 5, 10**6):
        assert ask(silo, study, "evaluate", start(study), number, split="test").fault is Fault.REFUSED_PROTOCOL


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_are_no_numbers_are_refused(silo, study, value):
    sent = {name: np.full_like(array, value) for name, array in start(study).items()}
    assert ask(silo, study, "fit", sent, 1).fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize("change", ["missing", "other", "shape"])
def test_arrays_that_the_model_does_not_send_are_refused(silo, study, change):
    sent = dict(start(study))
    bias = sent.pop("linear.bias")
    sent |= {"missing": {}, "other": {"bias": bias}, "shape": {"linear.bias": np.zeros(7, np.float32)}}[change]
    for number in (0, 1):
        assert ask(silo, study, "fit", sent, number).fault is Fault.REFUSED_PROTOCOL


def test_a_hospital_scores_its_own_model_and_no_other_sites(silo, study):
    own = ask(silo, study, "fit", start(study), 0, ALONE, alone="cleveland")
    assert own.fault is None
    assert ask(silo, study, "evaluate", own.weights, 4, ALONE, split="test", alone="cleveland").fault is None
    others = moved(own.weights, 0.001)
    assert ask(silo, study, "evaluate", others, 4, ALONE, split="test", alone="va").fault is Fault.REFUSED_WEIGHTS
    assert ask(silo, study, "evaluate", others, 4, CENTRALIZED, split="test").fault is Fault.REFUSED_WEIGHTS


def test_what_the_study_states_is_tighter_than_the_policy_and_never_looser(tmp_path):
    for stated, by, fault in (
        (0.01, 0.02, Fault.REFUSED_WEIGHTS),
        (9.0, 0.06, Fault.REFUSED_WEIGHTS),
        (9.0, 0.04, None),
    ):
        study = study_of(tmp_path / f"{stated}{by}", GENTLE, f"strategy.most_change={stated}")
        silo = hospital(study, tmp_path / f"home{stated}{by}")
        assert ask(silo, study, "fit", moved(start(study), by), 1).fault is fault


def test_a_control_of_scaffolds_cannot_carry_weights_elsewhere(tmp_path):
    study = study_of(tmp_path / "data", GENTLE, "strategy=scaffold", "strategy.rounds=5")
    silo = hospital(study, tmp_path / "home")
    weights = start(study)
    for size, fault in ((100.0, Fault.REFUSED_WEIGHTS), (np.nan, Fault.REFUSED_WEIGHTS), (0.1, None)):
        control = {f"control/{name}": np.full_like(array, size) for name, array in weights.items()}
        assert ask(silo, study, "fit", weights, state=control).fault is fault


def test_cyclic_sends_what_another_site_trained_in_the_same_round(tmp_path):
    study = study_of(tmp_path / "data", GENTLE, "strategy=cyclic", "strategy.visits=1", "strategy.rounds=5")
    silo = hospital(study, tmp_path / "home", share=1)
    assert ask(silo, study, "fit", moved(start(study), 0.04), 0).fault is None
    assert ask(silo, study, "fit", moved(start(study), 0.06), 0).fault is Fault.REFUSED_WEIGHTS


@pytest.mark.parametrize("made", [FedAdam, FedYogi])
def test_no_series_of_changes_takes_an_adaptive_step_beyond_its_reach(made):
    strategy = made(rounds=1, server_lr=1.0, beta_1=0.9, beta_2=0.99, tau=1e-9)
    rng, farthest = np.random.default_rng(0), 0.0
    for spread in (0.0, 0.5, 2.0):
        moments = [np.zeros(500), np.zeros(500)]
        for number in range(200):
            change = np.exp(spread * rng.normal(size=500)) * (0.9 / 0.99) ** -min(number, 60)
            step, moments = strategy.step(change / change.max(), moments)
            farthest = max(farthest, float(abs(step).max()))
    assert 0.5 * strategy.reach(1.0) < farthest <= strategy.reach(1.0)


def test_a_resumed_round_may_differ_and_the_next_goes_on_from_it(silo, study):
    first, other = moved(start(study), 0.04), moved(start(study), 0.04, seed=1)
    for weights, number in ((start(study), 0), (first, 1), (other, 1), (moved(other, 0.04), 2)):
        assert ask(silo, study, "fit", weights, number).fault is None


def test_digests_of_what_was_taken_are_all_that_a_site_writes_of_them(silo, study):
    ask(silo, study, "fit", start(study))
    known = json.loads((silo.place.store("run").folder / "received.json").read_text())
    assert known == {f"{name_of(0.05)}/0": [digest(start(study))]}


def test_a_simulated_site_that_states_no_bound_takes_far_weights_of_later_rounds(study, tmp_path):
    silo = Silo("cleveland", replace(study.sites["cleveland"]), tmp_path / "home")
    assert ask(silo, study, "evaluate", moved(start(study), 50.0), 4, split="test").fault is None


def test_without_a_bound_no_model_is_built_in_later_rounds_and_weights_are_still_numbers(study, tmp_path, monkeypatch):
    silo = Silo("cleveland", replace(study.sites["cleveland"]), tmp_path / "home")
    assert ask(silo, study, "fit", start(study), 0).fault is None
    monkeypatch.setattr("flip.site.received_weights.start_of", None)
    assert ask(silo, study, "fit", moved(start(study), 50.0), 1).fault is None
    endless = {name: np.full_like(array, np.inf) for name, array in start(study).items()}
    assert ask(silo, study, "fit", endless, 2).fault is Fault.REFUSED_WEIGHTS
