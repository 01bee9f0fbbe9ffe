"""`job=measure` and `job=predict`: sites apply a finished run's model to their cohorts, and keep what comes of it."""

from dataclasses import replace

from flip.coordinator.check_replies import Wanted
from flip.coordinator.cohorts import gather
from flip.coordinator.loop import Coordinator
from flip.errors import StudyFailed
from flip.messages import Ask, Scalar

WORDS = {"measure": "measure", "predict": "predict for"}


def measure(loop: Coordinator, ask: Ask) -> None:
    """Have the study's `outcomes` measure every person, at every site that has a cohort.

    Raises StudyFailed, once all have answered, if one could not.
    """
    _apply(loop, ask, "measure")


def predict(loop: Coordinator, ask: Ask) -> None:
    """Have every site that has a cohort predict for its rows, which need no label.

    Raises StudyFailed, once all have answered, if one could not.
    """
    _apply(loop, ask, "predict", pooled=loop.given[0].pooled)


def _apply(loop: Coordinator, ask: Ask, step: str, **params: Scalar) -> None:
    """Send the weights to the sites; each answers that it has applied them, and nothing more."""
    roster, ask = loop.roster, loop.through_mechanisms(ask)
    faults = gather(roster, ask, loop.reasons)
    given = loop.given[0]  # the job is for a study that names one (`flip.config.checks`)
    roster.prepare_as(given)
    task = roster.task(step, 0, given.weights)
    task = replace(task, state={**task.state, **loop.applied.state()}, params={**task.params, **params})
    for reply in roster.asked(ask, task, roster.sites(training=False), step, Wanted({}, {}, frozenset(), {}, {})):
        if reply.fault is not None:
            faults[reply.site] = reply.fault
    roster.recorder.description(step, {}, {})
    if faults:
        why = "; ".join(f"{site}: {fault.value}" for site, fault in sorted(faults.items()))
        raise StudyFailed(f"not every site could {WORDS[step]} its cohort. {why}", faults.values())
