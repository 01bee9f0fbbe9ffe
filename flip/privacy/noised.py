"""Gaussian noise on the sums behind test metrics, so that what leaves a site hides whether a person was among its rows.

Each person's part of a sum is clipped to a length that the metric states, whatever the rows hold; the noise is in units
of that length (Dwork C, Roth A, The Algorithmic Foundations of Differential Privacy, 2014, appendix A). So one extreme
row moves a sum no further than any other. Metrics that are made of the same counts share them, and their noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flip.contracts import BoundedByRow, SummableMetric
from flip.messages.summary import Summary
from flip.metrics import metric_states
from flip.privacy.noise import Stream

Floats = NDArray[np.float64]
PURPOSE = "metrics/noise"


@dataclass(frozen=True)
class Noised(Summary):
    """A sum under noise that the site's ledger holds: the only summary that leaves under a private mechanism."""


@dataclass(frozen=True)
class Counts:
    """Sums that one or several metrics are made of.

    Attributes:
        metrics: the metrics' names; the sums are read from the first.
        shapes: the shape of each sum, by the name of the state.
        bound: the largest length (L2) of what one person adds to all of them together.
    """

    metrics: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    bound: float

    def states(self, flat: Floats) -> dict[str, Floats]:
        """The states of every metric, by `metric/state`, from all sums one after the other."""
        found, start = {}, 0
        for state, shape in self.shapes.items():
            size = math.prod(shape)
            found[state], start = flat[start : start + size].reshape(shape), start + size
        return {f"{name}/{state}": array for name in self.metrics for state, array in found.items()}


def counts_of(metrics: Mapping[str, SummableMetric]) -> list[Counts]:
    """The sums that can have noise: of the metrics that say how much a row adds. It depends on no data."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name, metric in metrics.items():
        if isinstance(metric, BoundedByRow):
            found.setdefault(_made_of(metric), []).append(name)
    return [Counts(tuple(names), _shapes(metrics[names[0]]), _bound(metrics[names[0]])) for names in found.values()]


def _made_of(metric: SummableMetric) -> tuple[object, ...]:
    """What a metric's sums depend on beside its rows: two that are alike in it have the same sums.

    One with a setting that is no plain value is like no other.
    """
    settings = {name: value for name, value in vars(metric).items() if name not in metric._defaults}
    own = {name: value for name, value in settings.items() if not name.startswith("_") and not callable(value)}
    plain = all(isinstance(value, str | int | float | bool | None) for value in own.values())
    return (type(metric).update, *(sorted(own.items()) if plain else [id(metric)]))


def _shapes(metric: SummableMetric) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in sorted(metric_states(metric).items())}


def _bound(metric: object) -> float:
    assert isinstance(metric, BoundedByRow)
    return float(metric.row_norm)


def clipped(part: Floats, bound: float) -> Floats:
    """A person's part, scaled to the bound where it is longer; of numbers that are none, nothing."""
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(part))
    if not math.isfinite(length):
        return np.zeros_like(part)
    return part * min(1.0, bound / length) if length else part


def deviation(counts: Counts, all_counts: Sequence[Counts], multiplier: float) -> float:
    """Standard deviation of the noise on each number: `multiplier` is that of all sums, each over its bound, together.

    One person moves those by the root of their number at most.
    """
    return multiplier * math.sqrt(len(all_counts)) * counts.bound


def with_noise(
    all_counts: Sequence[Counts], sums: Sequence[Floats], multiplier: float, key: bytes
) -> dict[str, Floats]:
    """Sums of clipped parts under noise, as states by `metric/state`; the same key gives the same noise."""
    stream, found = Stream(key, PURPOSE), dict[str, Floats]()
    for counts, flat in zip(all_counts, sums, strict=True):
        noise = stream.gaussians(len(flat)) * deviation(counts, all_counts, multiplier)
        found |= counts.states(flat + noise)
    return found


def likeliest(states: Mapping[str, NDArray[Any]], like: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Sums under noise as a metric takes them: of a count the nearest whole number, 0 or more; `like` has the types."""
    return {
        name: np.maximum(np.rint(array), 0.0) if np.issubdtype(like[name].dtype, np.integer) else array
        for name, array in states.items()
    }
