"""`job=measure`: the sites apply a finished run's model to their whole cohorts, and keep what it measures."""

from dataclasses import replace

from flip.coordinator.check_replies import Wanted
from flip.coordinator.cohorts import gather
from flip.coordinator.loop import Coordinator
from flip.errors import StudyFailed
from flip.messages import Ask


def measure(loop: Coordinator, ask: Ask) -> None:
    """Send the weights to every site that has a cohort; each answers that it has measured, and nothing more.

    Raises StudyFailed, once all have answered, if one could not.
    """
    roster, ask = loop.roster, loop.through_mechanisms(ask)
    faults = gather(roster, ask, loop.reasons)
    given = loop.given[0]  # the job is for a study that names one (`flip.config.checks`)
    roster.prepare_as(given)
    task = roster.task("measure", 0, given.weights)
    task = replace(task, state={**task.state, **loop.applied.state()})
    for reply in roster.asked(ask, task, roster.sites(training=False), "measure", Wanted({}, {}, frozenset(), {}, {})):
        if reply.fault is not None:
            faults[reply.site] = reply.fault
    roster.recorder.description("measure", {}, {})
    if faults:
        why = "; ".join(f"{site}: {fault.value}" for site, fault in sorted(faults.items()))
        raise StudyFailed(f"not every site could measure its cohort. {why}", faults.values())
