"""Every rule of what may leave a site, one function each. What it protects is counted in distinct persons.

The first argument of a rule is the persons who stand behind a number: how many, or as `Persons` of a split, from which
a count of examples follows as the fewest persons that it can be of. `released` is the only way to a reply: it has a
rule for every field. A minimum cell of 1 asks for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flip.config.policy import Policy
from flip.contracts import FederatedModule
from flip.contracts.dataset import Arrays
from flip.messages import Fault, Payload, Reply, Withheld
from flip.messages.summary import Summaries, Summary, SummaryKind
from flip.metrics import EXAMPLES, exact_of, levels_of, metrics_of
from flip.site.complementary import suppress_table
from flip.site.persons import Persons
from flip.site.refusal import Refusal
from flip.site.releases import kept_in, under_noise
from flip.site.rounding import rounded

Behind = Callable[[Any], Any]


def enough(persons: int, cell: int) -> bool:
    """Whether a number may leave that rests on so many persons."""
    return cell <= 1 or persons >= cell


def suppress_number(persons: int, number: int, cell: int) -> int:
    """A number of examples or persons; 0 where too few persons stand behind it."""
    return number if enough(persons, cell) else 0


def suppress_metrics(persons: int, metrics: Mapping[str, float], cell: int) -> Mapping[str, float]:
    """Metrics and losses; none where too few persons stand behind them."""
    return metrics if enough(persons, cell) else {}


def refuse_few(persons: int, arrays: Payload, cell: int) -> Payload:
    """Weights and the strategy's arrays. Raises Refusal where the fit has drawn too few persons.

    Nothing is sent in their place: a step on one person's row tells the row.
    """
    if arrays and not enough(persons, cell):
        raise Refusal(Fault.REFUSED_FEW_PERSONS, f"weights of fewer persons than minimum_cell: {cell}")
    return arrays


def suppress_summaries(persons: int, summaries: Summaries, cell: int) -> Summaries:
    """Aggregates that may leave, each by the persons behind it and none of more than `persons`."""
    kept = {}
    for topic, named in summaries.items():
        found = {name: suppress_summary(min(each.persons, persons), each, cell) for name, each in named.items()}
        kept[topic] = {name: each for name, each in found.items() if not each.withheld}
    return {topic: named for topic, named in kept.items() if named}


def unprotected(persons: int, value: object, cell: int) -> object:
    """What says nothing of a person: the site's name, the task, words of a closed list, the machine's seconds."""
    return value


RULES: Mapping[str, Callable[[int, Any, int], Any]] = {
    **dict.fromkeys(("site", "task_digest", "withheld", "fault", "seconds", "journal", "sent"), unprotected),
    "examples": suppress_number,
    "metrics": suppress_metrics,
    "weights": refuse_few,
    "state": refuse_few,
    "summaries": suppress_summaries,
    "fingerprint": unprotected,  # under the site's secret
}
"""The rule of every field of a reply."""


def released(persons: int, policy: Policy, step: str, *, private: bool, **fields: Any) -> Reply:
    """The reply to a step, each field by its rule, and under a `private` mechanism by that of `under_noise` too.

    Counts without noise are rounded where the policy says so.

    `persons` stand behind all that has no number of its own.
    """
    kept = kept_in(policy.releases, step, fields)
    kept = {name: RULES[name](persons, value, policy.minimum_cell) for name, value in kept.items()}
    return Reply(**(under_noise(kept) if private else rounded(kept, policy.rounding, step)))


# Counts and sums.


def suppress_summary(persons: int, summary: Summary, cell: int, behind: Behind = lambda counts: counts) -> Summary:
    """An aggregate without what rests on too few persons; withheld (`persons` 0) where it does as a whole.

    Counts of too few become 0, moments too; neighboring bins of a histogram are merged. `behind` says of how many
    persons a count is, where the aggregate counts examples.
    """
    if not enough(persons, cell):
        return Summary(summary.kind, np.zeros(0), 0)
    values = summary.values
    if cell > 1 and summary.kind is SummaryKind.MOMENTS:
        values = np.where(behind(values[..., :1]) >= cell, values, 0.0)
    elif cell > 1 and summary.kind is SummaryKind.HISTOGRAM:
        values = merge_bins(values, cell, behind)
    elif cell > 1 and summary.kind is SummaryKind.COUNT:
        values = np.where(behind(values) >= cell, values, 0.0)
    return replace(summary, values=values)


def merge_bins(persons: NDArray[Any], cell: int, behind: Behind = lambda counts: counts) -> NDArray[Any]:
    """Move the mass of thin bins (last axis) forward into the next full one; a thin tail goes back into the last."""
    merged = np.zeros_like(persons)
    for row, out in zip(persons.reshape(-1, persons.shape[-1]), merged.reshape(-1, persons.shape[-1]), strict=True):
        carried, last = 0.0, None
        for index, count in enumerate(row):
            carried += count
            if carried and behind(carried) >= cell:
                out[index], carried, last = carried, 0.0, index
        if carried and last is not None:
            out[last] += carried
    return merged


def suppress_outcomes(persons: Persons, arrays: Mapping[str, NDArray[Any]], cell: int) -> dict[str, Summary]:
    """What a study adds to the report, of the examples of a split.

    The cells of a table, and the rows of a histogram, add up to all examples, whose number leaves too; and those of a
    class to its examples, which other numbers tell.
    """
    found = {}
    for name, array in arrays.items():
        kind, values = SummaryKind(name.split("/")[0]), np.asarray(array, np.float64)
        cells = {SummaryKind.COUNT: values, SummaryKind.HISTOGRAM: values.sum(-1, keepdims=True)}.get(kind)
        if cells is not None and cell > 1:
            told = suppress_table(persons.behind(cells), cell)
            values = np.where(told > 0, values, 0.0)
        summary = Summary(kind, values, persons.number)
        found[name] = suppress_summary(persons.number, summary, cell, persons.behind)
    return found


# Scores of a split.


def thin(persons: NDArray[Any], cell: int) -> bool:
    """Whether one of several counts is of some persons, but too few."""
    return bool(np.any((persons > 0) & (persons < cell)))


def suppress_levels(persons: Persons, counts: Mapping[str, int], cell: int) -> set[str]:
    """Levels of a subgroup to withhold, by their examples; those beyond them are examples whose level is not known.

    So many are withheld, the smallest first, that no thin one follows from the others and the total.
    """
    unknown = max(persons.examples - sum(counts.values()), 0)
    if not thin(persons.behind([*counts.values(), unknown]), cell):
        return set()
    hidden, kept = unknown, set()
    for level in sorted(counts, key=lambda name: (counts[name], name)):
        if counts[level] and not (enough(int(persons.behind(counts[level])), cell) and persons.behind(hidden) >= cell):
            kept.add(level)
            hidden += counts[level]
    return kept


def withheld_metrics(
    persons: Persons, module: FederatedModule, states: Arrays, *, split: str, own: Mapping[str, Withheld], cell: int
) -> dict[str, Withheld]:
    """The metrics of a split that stay at the site and why, by the states of all, `metric/state`, and by `own` rules.

    With a thin cell, of a small subgroup, or exact with a partner that has a thin cell; an exact metric without a
    partner cannot be judged.
    """
    found = dict(own)
    for key, state in states.items():
        if np.issubdtype(state.dtype, np.integer) and thin(persons.behind(state), cell):
            found[key.rpartition("/")[0]] = Withheld.CELL
    summed, levels = metrics_of(module, split), levels_of(module)
    for group, names in levels.items():
        counts = {level: int(states.get(f"{group}/{level}/{EXAMPLES}/count", 0)) for level in names}
        for level in suppress_levels(persons, counts, cell):
            found |= dict.fromkeys((each for each in summed if each.startswith(f"{group}/{level}/")), Withheld.LEVEL)
    for name in module.metrics:
        for group, names in levels.items():
            told = [each for level in names if (each := f"{group}/{level}/{name}") not in found]
            if thin(persons.behind(_left_over(states, name, told)), cell):
                found |= dict.fromkeys(told, Withheld.LEVEL)
    for name in exact_of(module) if split == "test" else ():
        partners = [other for other in summed if other.startswith(f"{name}_")]
        if cell > 1 and not partners:
            found[name] = Withheld.PARTNER
        elif any(found.get(other) is Withheld.CELL for other in partners):
            found[name] = Withheld.CELL
    return found


def _left_over(states: Arrays, name: str, levels: Sequence[str]) -> NDArray[np.int64]:
    """What a metric's whole-number states hold beyond those of some levels, which anyone can subtract: flat.

    Of bins, which are merged for each by itself, the sums over the last axis.
    """
    rests: list[np.ndarray] = [np.zeros(1, np.int64)]
    for key, whole in states.items():
        metric, _, state = key.rpartition("/")
        parts = [states[f"{level}/{state}"] for level in levels if f"{level}/{state}" in states]
        if metric == name and parts and np.issubdtype(whole.dtype, np.integer):
            rest = whole - sum(parts)
            rests.append((rest.sum(-1) if rest.ndim else rest).ravel())
    return np.concatenate(rests)
