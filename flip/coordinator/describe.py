"""The jobs that train nothing: what the sites' cohorts hold, by the same loop, tasks and replies as a training."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flip.coordinator.check_replies import Wanted, addable
from flip.coordinator.cohorts import gather
from flip.coordinator.loop import Coordinator
from flip.coordinator.pooled_metrics import merge_into
from flip.coordinator.roster import Roster
from flip.messages import Ask, Fault, Payload, Scalar
from flip.messages.summary import INTENSITIES, Moments, Summaries, Summary, Topic
from flip.messages.wire import join

BINS = 24  # of a histogram
SPREAD = 3.0  # deviations from the mean at which the outermost bins begin, which are open
TOPICS = (Topic.DESCRIPTION, Topic.SHAPE)
Described = dict[str, Summaries]


def check(loop: Coordinator, ask: Ask) -> None:
    """`job=check`: what each site would bring, with a histogram of its images alone. Raises as `_described` does."""
    _described(loop, ask, "check", histograms=False)


def statistics(loop: Coordinator, ask: Ask) -> None:
    """`job=statistics`: the same with histograms, over bins that all sites have in common."""
    _described(loop, ask, "statistics", histograms=True)


def _described(loop: Coordinator, ask: Ask, job: str, *, histograms: bool) -> None:
    """Ask every site for its cohort, then for one step of the model on its data, of which nothing is kept.

    Raises StudyFailed, once all is written down, as `agree` does.
    """
    roster, ask = loop.roster, loop.through_mechanisms(ask)
    faults = gather(roster, ask, loop.reasons)
    found, edges = _asked(roster, ask, {}, faults), dict[str, np.ndarray]()
    if histograms:
        edges = agreed_edges(found)
        for site, more in _asked(roster, ask, edges, faults).items():
            before = found.get(site, {})
            found[site] = {topic: {**before.get(topic, {}), **more[topic]} for topic in TOPICS}
    roster.recorder.description(job, {**edges, **of_images(found)}, found)
    _asked(roster, ask, {}, faults, tries=True)
    roster.enough(len({*roster.sites(training=True)} - {*faults}), faults, "before the first round")
    roster.learnable()


def _asked(roster: Roster, ask: Ask, edges: Payload, faults: dict[str, Fault], **params: Scalar) -> Described:
    """What each site that answers tells of its cohort; the others' faults go to `faults`."""
    task = roster.task("describe", 0, {}, "study", **params)
    task = replace(task, state={**task.state, **join(edges=edges)})
    wanted = Wanted({}, {}, frozenset(), {}, {})
    found: Described = {}
    for reply in roster.asked(ask, task, roster.sites(training=False), "describe", wanted):
        if reply.fault is not None:
            faults[reply.site] = reply.fault
            continue
        found[reply.site] = {topic: reply.summaries.get(topic, {}) for topic in TOPICS}
    return found


def pooled(found: Mapping[str, Summaries]) -> dict[str, Summary]:
    """The sums over the sites; a site whose summary is of another form than the first's is left out of that one."""
    merged: dict[str, Summary] = {}
    for told in found.values():
        sums = told.get(Topic.DESCRIPTION, {})
        merge_into(merged, {name: each for name, each in sums.items() if addable({name: each}, merged)})
    return merged


def of_images(found: Mapping[str, Summaries]) -> dict[str, np.ndarray]:
    """Edges of the bins of images' intensities, 0 to 1 of the study's window; none where no site has images."""
    told = pooled(found).get(f"histogram/{INTENSITIES}")
    return {} if told is None or told.withheld else {INTENSITIES: np.linspace(0, 1, told.values.size + 1)}


def agreed_edges(found: Mapping[str, Summaries]) -> dict[str, np.ndarray]:
    """Edges of the bins by column, from the mean and deviation over all sites: no one's extreme value is told."""
    edges = {}
    for name, summary in pooled(found).items():
        if name.startswith("moments/"):
            moments = Moments.of(summary.values.tolist())
            if moments and moments.deviation > 1e-9 * max(abs(moments.mean), 1.0):
                reach = SPREAD * moments.deviation
                edges[name.removeprefix("moments/")] = np.linspace(moments.mean - reach, moments.mean + reach, BINS + 1)
    return edges
