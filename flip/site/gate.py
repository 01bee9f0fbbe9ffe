"""The one gate of a site: what every task passes before the site computes an answer, or repeats one that it gave.

The rules stand in `RULES`, in the order in which they are asked. A rule takes the `Question` and raises Refusal; the
first that does ends the matter. A new rule is a function and a line there.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from flip.config.policy import Policy
from flip.config.rules import is_sha256
from flip.files import ALONE, APPLIED
from flip.messages import TRACKERS, Fault, Task
from flip.messages.forms import check_task
from flip.messages.weights import digest
from flip.messages.wire import take
from flip.site.admission import Accepted, Place
from flip.site.approvals import Approvals
from flip.site.counters import Counter
from flip.site.protocol import (
    MODEL,
    MOST_ALONE,
    SCORES_A_ROUND,
    SCORES_OF_A_MODEL,
    STEPS,
    Expected,
    unknown_params,
    unknown_state,
    unknown_weights,
)
from flip.site.refusal import Refusal
from flip.site.releases import WEIGHTS
from flip.site.sums import SHAPES, sum_slots


@dataclass(frozen=True)
class Question:
    """A task at the gate of a site, under the policy that its file holds now."""

    task: Task
    place: Place
    policy: Policy
    accept: Callable[[str, Policy], Accepted]

    @cached_property
    def study(self) -> Accepted:
        """The study, once the site has accepted it. Raises Refusal."""
        return self.accept(self.task.manifest, self.policy)


def well_formed(question: Question) -> None:
    """The task has a step, a stage and parameters that the protocol knows."""
    task = question.task
    try:
        check_task(task)
    except ValueError as error:
        raise Refusal(Fault.REFUSED_PROTOCOL, "a task whose parts are of another type or range") from error
    if task.step not in STEPS or task.stage not in STEPS[task.step].stages:
        raise Refusal(Fault.REFUSED_PROTOCOL, f"unknown step {task.step[:80]!a} in stage {task.stage[:80]!a}")
    for problem in unknown_params(task):
        raise Refusal(Fault.REFUSED_PROTOCOL, problem)
    if task.step == "fit" and task.params.get("alone", question.place.name) != question.place.name:
        raise Refusal(Fault.REFUSED_PROTOCOL, "a training alone, of another site")


def tracked(question: Question) -> None:
    """The study's numbers go to no online tracker but those that the site permits; who names none has none."""
    if why := question.policy.refuses_trackers(str(question.task.params.get(TRACKERS, ""))):
        raise Refusal(Fault.REFUSED_RULE, why)


def approved(question: Question) -> None:
    """Persons at the site have signed for this study, where its file asks for that; its run is counted then."""
    if (approvers := question.policy.approval) is None:
        return
    place, task = question.place, question.task
    if why := Approvals(place.name, place.site, place.home).refusal(task.manifest, task.run, approvers):
        raise Refusal(Fault.REFUSED_APPROVAL, why)


def accepted(question: Question) -> None:
    """The site's policy permits the study, the site has its code, and its own check finds no mistake in it."""
    _ = question.study


def within_rounds(question: Question) -> None:
    """The round is one of the study's; before the first and for other jobs it is 0."""
    task, rounds = question.task, question.study.expected.rounds
    last = rounds - 1 if task.step in ("fit", "evaluate", *SHAPES) else 0
    if not 0 <= task.round <= last:
        raise Refusal(Fault.REFUSED_PROTOCOL, f"round {ascii(task.round)[:80]} of {task.step}: from 0 to {last}")
    if not 1 <= (further := int(task.params.get("rounds", 1))) <= rounds:
        raise Refusal(Fault.REFUSED_PROTOCOL, f"training further for {further} rounds: from 1 to {rounds}")


def trainable(question: Question) -> None:
    """The study's model can be trained in rounds."""
    task, problems = question.task, question.study.round_problems
    if problems and task.step == "fit" and task.stage != ALONE:
        raise Refusal(Fault.REFUSED_MANIFEST, "; ".join(problems))


def expected_arrays(question: Question) -> None:
    """Weights and state have the names, shapes and types of the study's; nothing is copied before."""
    task, expected = question.task, question.study.expected
    for problem in (*unknown_weights(task, expected), *unknown_state(task, expected)):
        raise Refusal(Fault.REFUSED_PROTOCOL, problem)


def summed_as_permitted(question: Question) -> None:
    """A step of a sum is of a fit that was answered under the policy, and without the persons opted out, as of now."""
    task, place = question.task, question.place
    if task.step not in SHAPES:
        return
    fit = str(task.params["fit"])
    found = place.store(task.run).has_fit(fit, question.policy) if is_sha256(fit) else None
    if found is None:
        raise Refusal(Fault.REFUSED_PROTOCOL, f"{task.step}: of a fit that this site has not answered")
    if not found:
        raise Refusal(Fault.REFUSED_RULE, f"{task.step}: of a fit that was not made under the site's file as it is now")


def counted(question: Question) -> None:
    """The run has not asked more than its protocol has; the question is on disk before it is answered.

    The same task again is no new question.
    """
    task, study = question.task, question.study
    counter = Counter(question.place.store(task.run).folder / "asked.jsonl")
    for name, asked, most in [*agreed_once(task), *threshold_once(task), *slots(task, study.expected)]:
        if not counter.take(f"{study.digest[:16]}/{name}", asked, most):
            raise Refusal(Fault.REFUSED_PROTOCOL, f"{name}: this run has asked {most} times already, which are all")


def agreed_once(task: Task) -> list[tuple[str, str, int]]:
    """A run has one set of agreed statistics: two that differ in a row tell of this row. A model that was trained
    elsewhere brings its own, which are named with it."""
    own = task.step in ("describe", "fit", "evaluate") and task.stage != APPLIED
    return [("statistics/agreed", digest(take(task.state, "statistics")), 1)] if own else []


def threshold_once(task: Task) -> list[tuple[str, str, int]]:
    """A model is scored at one threshold beside its own: two would tell of the few rows between them."""
    if (chosen := task.params.get("threshold")) is None:
        return []
    model = "tuned" if task.stage == "fine_tuned" else "model"
    return [(f"threshold/{task.params['split']}/{model}/{digest(task.weights)[:16]}", str(float(chosen)), 1)]


def slots(task: Task, expected: Expected) -> list[tuple[str, str, int]]:
    """Under which names a task is counted, as which question, and the most questions that each may have in a run."""
    if task.step in SHAPES:
        return sum_slots(task)
    match task.step, task.stage:
        case "fit", "study":
            return [("fit", task.digest, expected.fits)]
        case "begin", _:
            return [("begin", str(task.params.get(MODEL) or digest(task.weights)), 1)]
        case "evaluate", "study":
            return [(f"evaluate/{task.round}", task.digest, SCORES_A_ROUND)]
        case "evaluate", "alone":
            site = str(task.params["alone"])
            own = hashlib.sha256(site.encode()).hexdigest()[:16]
            return [("alone", own, MOST_ALONE), (f"evaluate/alone/{own}", task.digest, SCORES_OF_A_MODEL)]
        case "evaluate", "applied":
            return [("evaluate/applied", task.digest, SCORES_OF_A_MODEL * expected.models)]
        case "evaluate", stage:
            return [(f"evaluate/{stage}", task.digest, SCORES_OF_A_MODEL)]
        case "describe", _:
            part = "tries" if task.params.get("tries") else "edges" if take(task.state, "edges") else "cohort"
            return [(f"describe/{part}", task.digest, 1)]
    return [(f"{task.step}/{task.stage}", task.digest, 1)]


def handed_out(question: Question) -> None:
    """The rows themselves may be taken out, to train on them with others': nothing of the site waits or stays then."""
    policy = question.policy
    if policy.release is not None:
        why = "policy.release: without federation what is trained cannot wait here for a person to see it"
        raise Refusal(Fault.REFUSED_RULE, why)
    if WEIGHTS not in policy.releases:
        raise Refusal(Fault.REFUSED_RULE, f"policy.releases: {WEIGHTS} are not among them")


RULES: tuple[Callable[[Question], None], ...] = (
    well_formed,
    tracked,
    approved,
    accepted,
    within_rounds,
    trainable,
    expected_arrays,
    summed_as_permitted,
    counted,
)
"""Every rule of the gate, in order."""


OF_ROWS = (tracked, approved, accepted, handed_out)
"""What is asked where one owner has all sites and takes their rows out, in order."""


def let_in(question: Question) -> None:
    """Hold a task against every rule. Raises Refusal of the first that it breaks."""
    for rule in RULES:
        rule(question)
