"""What a site's reply must look like before anyone uses it: it comes from elsewhere, so nothing in it is believed."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flip.messages import Fault, Payload, Reply, Task
from flip.messages.summary import Summary, Topic

HEX = re.compile("[0-9a-f]{64}")
BLOCK = 1 << 20  # numbers that are looked at together: what is computed beside a large array stays small
MOST_WHOLE = 2**53  # the largest of the whole numbers that a float64 holds exactly
MOST_EXAMPLES = 10**9  # of a site whose number of training examples is not known yet; more is no hospital's


@dataclass(frozen=True)
class Wanted:
    """What a task's reply must hold.

    Attributes:
        weights: arrays of the names, shapes and types of the weights; empty where none are asked for.
        state: the same for the strategy's arrays.
        metrics: names that may occur.
        states: arrays like the summed states of metrics, by `metric/state`.
        most: the most examples that the site can have, by site.
    """

    weights: Payload
    state: Payload
    metrics: frozenset[str]
    states: Payload
    most: Mapping[str, int]


def checked(reply: Reply, task: Task, wanted: Wanted) -> Reply:
    """The reply, or in its place a fault of the site without any content."""
    fault = reply.fault or problem(reply, task, wanted)
    seconds = reply.seconds if isinstance(reply.seconds, float) and math.isfinite(reply.seconds) else 0.0
    return Reply(reply.site, task.digest, fault=fault, seconds=seconds) if fault else replace(reply, seconds=seconds)


def problem(reply: Reply, task: Task, wanted: Wanted) -> Fault | None:
    """Why a reply cannot be used, or None."""
    if reply.task_digest != task.digest or not {*reply.metrics, *reply.withheld} <= wanted.metrics:
        return Fault.INVALID
    if not (is_number(reply.examples) and isinstance(reply.examples, int)):
        return Fault.INVALID
    least = 1 if task.step == "fit" else 0
    if not least <= reply.examples <= wanted.most.get(reply.site, MOST_EXAMPLES):
        return Fault.INVALID
    if not (isinstance(reply.fingerprint, Mapping) and all(map(is_print, reply.fingerprint.items()))):
        return Fault.INVALID
    if not all(is_number(value) for value in reply.metrics.values()):
        return Fault.INVALID
    if not (same_form(reply.weights, wanted.weights) and same_form(reply.state, wanted.state)):
        return Fault.INVALID
    summaries = [(topic, name, each) for topic, named in reply.summaries.items() for name, each in named.items()]
    if not all(sound(topic, name, each, wanted=wanted) for topic, name, each in summaries):
        return Fault.INVALID
    arrays = [*reply.weights.values(), *reply.state.values(), *(each.values for *_, each in summaries)]
    if not all(map(math.isfinite, reply.metrics.values())) or not all(map(finite, arrays)):
        return Fault.NOT_FINITE
    return None


def is_print(item: tuple[object, object]) -> bool:
    """Whether an entry is a fingerprint: one of two names, and 64 hexadecimal digits."""
    part, value = item
    return part in ("data", "file") and isinstance(value, str) and HEX.fullmatch(value) is not None


def is_number(value: object) -> bool:
    """Whether a value is a number that can be computed with, and no truth value: JSON's whole numbers know no end."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= MOST_WHOLE
    return isinstance(value, float)


def same_form(arrays: Payload, wanted: Payload) -> bool:
    """Whether arrays have exactly the names, shapes and types of others."""
    return set(arrays) == set(wanted) and all(
        array.shape == wanted[name].shape and array.dtype == wanted[name].dtype for name, array in arrays.items()
    )


def sound(topic: Topic, name: str, summary: Summary, *, wanted: Wanted) -> bool:
    """Whether a summary is of the form that its topic has; what a metric counts in whole numbers cannot be negative."""
    if summary.values.dtype != np.float64 or not isinstance(summary.persons, int) or summary.persons < 0:
        return False
    if topic in (Topic.METRIC, Topic.RESCALED):
        like = wanted.states.get(name)
        counts = like is not None and np.issubdtype(like.dtype, np.integer)
        return like is not None and summary.values.shape == like.shape and not (counts and (summary.values < 0).any())
    if topic is Topic.SPREAD:
        return name in wanted.metrics and summary.values.shape == (4,) and bool((summary.values >= 0).all())
    return topic not in (Topic.SKIPPED, Topic.REMARKS, Topic.WARNINGS, Topic.ABSENT) or summary.values.shape == (1,)


def finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinite numbers."""
    if not np.issubdtype(array.dtype, np.inexact):
        return True
    flat = array.reshape(-1)
    return all(np.isfinite(flat[start : start + BLOCK]).all() for start in range(0, flat.size, BLOCK))


def addable(found: Mapping[str, Summary], sums: Mapping[str, Summary]) -> bool:
    """Whether summaries can be added to the sums of the sites before: the same kind and form under the same name."""
    return all(
        summary.kind is sums[name].kind and summary.values.shape == sums[name].values.shape
        for name, summary in found.items()
        if name in sums
    )
