"""What a site's reply must look like before anyone uses it: it comes from elsewhere, so nothing in it is believed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flip.messages import Fault, Payload, Reply, Task
from flip.messages.forms import MOST_WHOLE, check_reply
from flip.messages.summary import Summaries, Summary, SummaryKind, Topic
from flip.messages.weights import BLOCK, change
from flip.text import printable

ONE = (Topic.SKIPPED, Topic.REMARKS, Topic.WARNINGS, Topic.ABSENT, Topic.COMPARED)  # of one number each
MOST_EXAMPLES = 10**8  # of a site whose number of training examples nothing else bounds; a country's, not a hospital's
GROWTH = 1e9  # times that a fit may enlarge the largest number of an array, or 1; a variance of raw CT grows 10^6 times
LARGEST = 1e36  # of a sum over persons: that of a hundred sites still fits into float32, in which the sites compute
ROUNDING = 1e-6  # of sums of squares, relative
COUNTS = ("persons", "train", "validate", "test")  # metrics of the reply to "statistics"
FREE = (Topic.DESCRIPTION, Topic.SHAPE, Topic.OUTCOMES)  # topics whose names are the sites' own, and are shown


@dataclass(frozen=True)
class Wanted:
    """What a task's reply must hold.

    Attributes:
        weights: arrays of the names, shapes and types of the weights, those sent; empty where none are asked for.
        state: the same for the strategy's arrays.
        metrics: names that may occur.
        states: arrays like the summed states of metrics, by `metric/state`.
        most: the most examples that the site can have, by site.
        noised: sums have noise, so that a count of few can be below 0.
        moves: the largest root mean square by which the weights may have moved from those sent; None: any.
    """

    weights: Payload
    state: Payload
    metrics: frozenset[str]
    states: Payload
    most: Mapping[str, int]
    noised: bool = False
    moves: float | None = None


def checked(reply: Reply, task: Task, wanted: Wanted) -> Reply:
    """The reply, or in its place a fault of the site without any content. Raises nothing, whatever the reply holds."""
    try:
        check_reply(reply)
        journal = reply.journal
        fault, summaries = reply.fault or problem(reply, task, wanted), shown(reply.summaries)
    except (ValueError, TypeError, AttributeError):  # fields of types that no reply has
        fault, summaries, journal = Fault.INVALID, {}, ""
    seconds = reply.seconds if isinstance(reply.seconds, float) and 0 <= reply.seconds < math.inf else 0.0
    if fault:
        return Reply(reply.site, task.digest, fault=fault, seconds=seconds, journal=journal)
    return replace(reply, seconds=seconds, summaries=summaries)


def problem(reply: Reply, task: Task, wanted: Wanted) -> Fault | None:
    """Why a reply cannot be used, or None. Raises ValueError, TypeError or AttributeError for fields of other types."""
    if reply.task_digest != task.digest or not {*reply.metrics, *reply.withheld} <= wanted.metrics:
        return Fault.INVALID
    if not (same_form(reply.weights, wanted.weights) and same_form(reply.state, wanted.state)):
        return Fault.INVALID
    summaries = [(topic, name, each) for topic, named in reply.summaries.items() for name, each in named.items()]
    if not all(well_formed(topic, name, each, wanted) for topic, name, each in summaries):
        return Fault.INVALID
    sizes = {name: largest(array) for name, array in reply.weights.items()}
    others = [largest(array) for array in (*reply.state.values(), *(each.values for *_, each in summaries))]
    if not all(map(math.isfinite, (*reply.metrics.values(), *sizes.values(), *others))):
        return Fault.NOT_FINITE
    grown = any(size > bound(wanted.weights[name]) for name, size in sizes.items())
    if not grown and wanted.moves is not None:
        grown = change(reply.weights, task.weights) > wanted.moves
    counted = likely(reply, task, wanted) and all(credible(*each, wanted, reply) for each in summaries)
    return Fault.IMPLAUSIBLE if grown or not counted or max(others, default=0) > LARGEST else None


def likely(reply: Reply, task: Task, wanted: Wanted) -> bool:
    """Whether numbers of examples can be: those of a fit are at most what the site said before, those of splits too."""
    least = 1 if task.step == "fit" else 0
    if not least <= reply.examples <= wanted.most.get(reply.site, MOST_EXAMPLES):
        return False
    if task.step != "statistics":
        return True
    counts = [reply.metrics[name] for name in COUNTS if name in reply.metrics]
    return all(0 <= each <= MOST_EXAMPLES and each == int(each) for each in counts)


def same_form(arrays: Payload, wanted: Payload) -> bool:
    """Whether arrays have exactly the names, shapes and types of others; none of their numbers is read."""
    return set(arrays) == set(wanted) and all(
        array.shape == wanted[name].shape and array.dtype == wanted[name].dtype for name, array in arrays.items()
    )


def well_formed(topic: Topic, name: str, summary: Summary, wanted: Wanted) -> bool:
    """Whether a summary is of the form that its topic, or its kind, has."""
    shape = summary.values.shape
    if summary.values.dtype != np.float64:
        return False
    if topic in (Topic.METRIC, Topic.RESCALED):
        return name in wanted.states and shape == wanted.states[name].shape
    if topic is Topic.SPREAD:
        return name in wanted.metrics and shape == (4,)
    if topic in ONE:
        return shape == (1,)
    return summary.withheld or summary.kind is not SummaryKind.MOMENTS or shape[-1:] == (3,)


def credible(topic: Topic, name: str, summary: Summary, wanted: Wanted, reply: Reply) -> bool:
    """Whether the numbers of an aggregate can be what it says.

    No count is below 0; the squares of so many numbers with this sum are at least sum^2 / n (Cauchy, Schwarz); and what
    all sites agree on is of one value for each training example at most.
    """
    values = summary.values
    if topic is Topic.SPREAD:
        return bool((values >= 0).all())
    if topic in (Topic.METRIC, Topic.RESCALED):
        counts = np.issubdtype(wanted.states[name].dtype, np.integer)
        weighs = counts or name.endswith("/weight")  # of torchmetrics' MeanMetric: how many rows
        return not weighs or wanted.noised or bool(((values >= 0) & (values <= MOST_WHOLE)).all())
    if summary.kind is SummaryKind.SUM or summary.withheld:
        return True
    most = reply.metrics.get("train", 0) if topic is Topic.STATISTICS else MOST_WHOLE
    if summary.kind is SummaryKind.MOMENTS:
        number, total, squares = np.moveaxis(values, -1, 0)
        with np.errstate(over="ignore"):
            fits = number * squares * (1 + ROUNDING) >= total**2
        values = np.where(fits & (squares >= 0), number, -1)
    return bool(((values >= 0) & (values <= most)).all())


def shown(summaries: Summaries) -> Summaries:
    """Summaries with names that can be shown. Raises ValueError where two names of a topic would look alike."""
    found = {}
    for topic, named in summaries.items():
        found[topic] = {printable(name): each for name, each in named.items()} if topic in FREE else dict(named)
        if len(found[topic]) < len(named):
            raise ValueError("names that look alike")
    return found


def largest(array: np.ndarray) -> float:
    """The largest absolute number of an array, a block at a time; NaN where it holds one, 0 for whole numbers."""
    if not (np.issubdtype(array.dtype, np.inexact) and array.size):
        return 0.0
    flat = array.reshape(-1)
    blocks = (flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK))
    return float(np.max([max_of(block) for block in blocks]))


def max_of(block: np.ndarray) -> float:
    """The largest absolute number of a block, without a copy of it."""
    return float(np.maximum(block.max(), -block.min()))


def bound(sent: np.ndarray) -> float:
    """The largest number that a fit from this array can give: beyond it sums over sites overflow, or no fit came so."""
    most = float(np.finfo(sent.dtype).max) / 4 if np.issubdtype(sent.dtype, np.inexact) else 0.0
    return min(GROWTH * max(1.0, largest(sent)), most)


def addable(found: Mapping[str, Summary], sums: Mapping[str, Summary]) -> bool:
    """Whether summaries can be added to the sums of the sites before: the same kind and form under the same name."""
    return all(
        summary.kind is sums[name].kind and summary.values.shape == sums[name].values.shape
        for name, summary in found.items()
        if name in sums
    )
