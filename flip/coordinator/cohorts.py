"""Before round 0: the sites' cohorts, what they skipped, and the statistics of the dataset that all agree on."""

import json
from dataclasses import replace
from typing import Any

import numpy as np

from flip.config.outcome_names import outcome_names
from flip.coordinator.check_replies import COUNTS, Wanted, addable
from flip.coordinator.pooled_metrics import merge_into
from flip.coordinator.roster import Roster
from flip.messages import Ask, Fault, Reply
from flip.messages.summary import LABELS, OPTED_OUT, Summary, Topic
from flip.messages.wire import join

OTHER_REASON = "another reason, which the site's own log names"


def agree(roster: Roster, ask: Ask, reasons: frozenset[str]) -> None:
    """Ask for the cohorts. Raises StudyFailed if too few sites can train, or all of them lack what must occur."""
    faults = gather(roster, ask, reasons)
    roster.enough(len(roster.sites(training=True)), faults, "before the first round")
    roster.learnable()


def gather(roster: Roster, ask: Ask, reasons: frozenset[str]) -> dict[str, Fault]:
    """Ask every site for its cohort and tell the roster; returns the faults by site.

    `reasons` are those for which the dataset can skip an example, and its remarks: no other text of a site's passes.
    """
    cohort: dict[str, Any] = {}
    merged: dict[str, Summary] = {}
    faults: dict[str, Fault] = {}
    absent: list[set[str]] = []
    compared: dict[str, dict[str, np.ndarray]] = {}
    wanted = Wanted({}, {}, frozenset(COUNTS), {}, {})
    task = roster.task("statistics", 0, {})
    for reply in roster.asked(ask, task, sorted(roster.trains), "statistics", wanted):
        agreed = reply.summaries.get(Topic.STATISTICS, {})
        fault = reply.fault or (None if addable(agreed, merged) else Fault.INVALID)
        cohort[reply.site] = told = _cohort(roster, replace(reply, fault=fault), reasons)
        if fault is not None:
            faults[reply.site] = fault
            continue
        roster.validates |= told["validate"] > 0
        roster.trained_on[reply.site] = reply.examples  # `train`; where that number stays at the site, 1
        compared[reply.site] = {name: each.values for name, each in reply.summaries.get(Topic.COMPARED, {}).items()}
        if roster.trains[reply.site]:
            compared[reply.site] |= {name: each.values for name, each in agreed.items()}
            merge_into(merged, agreed)
            absent.append(set(reply.summaries.get(Topic.ABSENT, {})))
    everywhere = set.intersection(*absent) if absent else set()
    roster.absent = [name for number, name in enumerate(roster.must_occur) if str(number) in everywhere]
    roster.against = roster.compare(compared)
    roster.recorder.cohort(cohort)
    roster.agreed = join(statistics={name: summary.values for name, summary in merged.items()})
    unusable = (Fault.DATA, Fault.INVALID, Fault.IMPLAUSIBLE)
    roster.left_out = {site for site, fault in faults.items() if fault.refused or fault in unusable}
    return faults


def _cohort(roster: Roster, reply: Reply, reasons: frozenset[str]) -> dict[str, Any]:
    """What is written down of a site's cohort."""
    return {
        **{name: int(reply.metrics.get(name, 0)) for name in COUNTS},
        "trains": roster.trains[reply.site],
        "skipped": counted(reply, Topic.SKIPPED, reasons | {OPTED_OUT}),
        "remarks": counted(reply, Topic.REMARKS, reasons),
        "warnings": counted(reply, Topic.WARNINGS, reasons),
        "outcomes": outcomes(reply.summaries.get(Topic.STATISTICS, {}).get(LABELS), roster.manifest),
        "fault": reply.fault.name if reply.fault else None,
        "fingerprint": dict(reply.fingerprint),
    }


def outcomes(persons: Summary | None, manifest: str) -> dict[str, int]:
    """Persons of each outcome among the training rows, by the study's own names; empty where a site tells none.

    One that the site withholds is left out, as is one that nobody has.
    """
    if persons is None:
        return {}
    counts = persons.values.ravel().tolist()
    names = outcome_names(json.loads(manifest).get("dataset") or {})
    if len(names) != len(counts):
        names = [f"outcome {index + 1}" for index in range(len(counts))]
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def counted(reply: Reply, topic: Topic, known: frozenset[str]) -> dict[str, int]:
    """What a site skipped or remarked, by the dataset's own words; what it does not declare is one reason."""
    found: dict[str, int] = {}
    for own, summary in reply.summaries.get(topic, {}).items():
        reason = own if own in known else OTHER_REASON
        found[reason] = found.get(reason, 0) + int(summary.values[0])
    return found
