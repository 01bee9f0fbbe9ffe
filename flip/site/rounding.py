"""Counts rounded where the site's policy says so (`rounding`): the rule of NHS Digital and the ONS, to the nearest 5.

Subtraction then yields what lies around a number, not the number: of two reports over cohorts or bins that differ a
little too. Each count is rounded by itself, and all else is made to fit: means and shares stay what they are, nearly.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flip.messages.summary import Summaries, Summary, SummaryKind, Topic

DECIMALS = 2  # of a value that is a share of persons: more would tell how many there are
SCORES = (Topic.METRIC, Topic.RESCALED, Topic.SPREAD)


def nearest(counts: ArrayLike, base: int) -> NDArray[np.float64]:
    """Counts to the nearest multiple of `base`, half of it upwards; of any shape."""
    multiples: NDArray[np.float64] = np.floor(np.asarray(counts, np.float64) / base + 0.5) * base
    return multiples


def rounded(fields: Mapping[str, object], base: int, step: str) -> dict[str, Any]:
    """The fields of a reply to a step with every count rounded; as they are for a base of 1."""
    found: dict[str, Any] = dict(fields)
    if base <= 1:
        return found
    if "examples" in found:
        found["examples"] = int(nearest(found["examples"], base))
    if "metrics" in found:
        sizes = step == "statistics"
        found["metrics"] = {
            name: float(nearest(value, base)) if sizes else round(value, DECIMALS)
            for name, value in found["metrics"].items()
        }
    if "summaries" in found:
        found["summaries"] = _summaries(found["summaries"], base)
    return found


def _summaries(summaries: Summaries, base: int) -> Summaries:
    return {
        topic: _scores(named, base) if topic in SCORES else {name: _summary(each, base) for name, each in named.items()}
        for topic, named in summaries.items()
    }


def _persons(summary: Summary, base: int) -> int:
    """The persons behind a summary; those of one that leaves are never none."""
    return max(int(nearest(summary.persons, base)), base) if summary.persons else 0


def _summary(summary: Summary, base: int) -> Summary:
    """Counts and bins, each by itself; moments with the number rounded, their mean and deviation as they were."""
    values = np.asarray(summary.values, np.float64)
    if summary.kind in (SummaryKind.COUNT, SummaryKind.HISTOGRAM):
        values = nearest(values, base)
    elif summary.kind is SummaryKind.MOMENTS:
        number = values[..., :1]
        values = np.concatenate([nearest(number, base), values[..., 1:] * _ratio(number, base)], axis=-1)
    return replace(summary, values=values, persons=_persons(summary, base))


def _scores(named: Mapping[str, Summary], base: int) -> dict[str, Summary]:
    """The states of metrics: whole numbers are rounded, the sums beside them multiplied by as much."""
    whole = {name for name, each in named.items() if np.array_equal(each.values, np.rint(each.values))}
    scales: dict[str, float] = {}  # by metric, of its largest count
    for name in sorted(whole, key=lambda name: float(np.max(named[name].values, initial=0))):
        scales[name.rpartition("/")[0]] = float(_ratio(np.max(named[name].values, initial=0), base))
    return {
        name: replace(
            each,
            values=nearest(each.values, base)
            if name in whole
            else each.values * scales.get(name.rpartition("/")[0], 1.0),
            persons=_persons(each, base),
        )
        for name, each in named.items()
    }


def _ratio(counts: ArrayLike, base: int) -> NDArray[np.float64]:
    """What rounding multiplies counts by, 0 for those of nobody."""
    whole = np.asarray(counts, np.float64)
    return np.where(whole > 0, nearest(whole, base) / np.where(whole > 0, whole, 1), 0.0)
