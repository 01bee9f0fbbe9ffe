"""How much wider an interval has to be because persons have several rows: sums that can be added over sites.

An interval of a summed metric takes rows as independent. Where persons have several, the variance of the metric is
estimated twice at the site, by leaving out groups of persons and by leaving out groups of rows (delete-a-group
jackknife: Kott PS, J Off Stat 2001;17:521-526). Both are summed over sites, each times the square of the site's rows;
their ratio is the design effect (Kish L, Survey Sampling, 1965, 8.2) by which the coordinator multiplies the variance.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flip.contracts import HasInterval, SummableMetric
from flip.metrics import metric_states

GROUPS = 50  # of persons, and of rows: a site's variance is then known to a fifth, a sum over sites better
Floats = NDArray[np.float64]
Rows = Sequence[tuple[torch.Tensor, ...]]


class RowsSeen:
    """What metrics with an interval are given, batch by batch, while `with` holds; only numbers by row, no masks.

    Args:
        metrics: the metrics by name.
    """

    def __init__(self, metrics: Mapping[str, SummableMetric]) -> None:
        self.metrics = {name: each for name, each in metrics.items() if isinstance(each, HasInterval)}
        self.rows: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in self.metrics}

    def __enter__(self) -> "RowsSeen":
        self.updates: dict[str, Any] = {name: metric.update for name, metric in self.metrics.items()}
        for name, metric in self.metrics.items():
            metric.update = partial(self._take, name)  # type: ignore[method-assign]
        return self

    def __exit__(self, *why: object) -> None:
        for name, metric in self.metrics.items():
            metric.update = self.updates[name]  # type: ignore[method-assign]

    def _take(self, name: str, *rows: torch.Tensor) -> None:
        if all(each.ndim in (1, 2) for each in rows):
            self.rows[name].append(rows)
        self.updates[name](*rows)


def spread(metric: SummableMetric, rows: Rows, person: NDArray[np.int64]) -> Floats | None:
    """The sums [4] of a metric: both variances, by persons and by rows, times the square of the rows; and, for where
    no row varies, the sum of squares of the persons' rows, and the rows.

    `rows` are what the metric was given, `person` [n] whose each row is. None where they do not belong together, where
    there are fewer than two persons, and where the metric does not add up over persons.
    """
    if not rows or sum(len(each[0]) for each in rows) != len(person):
        return None
    together = tuple(torch.cat(each) for each in zip(*rows, strict=True))
    _, code, counts = np.unique(person, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    draw = np.random.default_rng(0)  # which persons share a group says nothing of them, and stays here
    grouped = [_variance(metric, together, draw, units) for units in (code, np.arange(len(person)))]
    if any(each is None for each in grouped):
        return None
    known = np.array(grouped, np.float64) * len(person) ** 2
    return np.array([*(known if np.isfinite(known).all() else (0.0, 0.0)), (counts**2).sum(), len(person)], np.float64)


def _variance(
    metric: SummableMetric, rows: tuple[torch.Tensor, ...], draw: np.random.Generator, units: NDArray[np.int64]
) -> float | None:
    """Variance of a metric by leaving out one group of units after the other; None where it does not add up."""
    number = int(units.max()) + 1
    size = min(GROUPS, number)
    group = draw.permutation(np.arange(number) % size)[units]
    again = copy.deepcopy(metric)
    parts: list[dict[str, torch.Tensor]] = []
    for each in range(size):
        inside = torch.from_numpy(np.flatnonzero(group == each))
        again.reset()
        again.update(*(column[inside] for column in rows))
        parts.append({name: state.double() for name, state in metric_states(again).items()})
    own = {name: state.clone() for name, state in metric_states(metric).items()}
    whole = {name: torch.stack([part[name] for part in parts]).sum(0) for name in own}
    if not all(torch.allclose(whole[name], state.double(), rtol=1e-4, atol=1e-4) for name, state in own.items()):
        return None
    values = np.array([_value(again, {n: whole[n] - part[n] for n in own}, own) for part in parts])
    return float((size - 1) / size * np.square(values - values.mean()).sum())


def _value(metric: SummableMetric, states: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> float:
    metric.reset()
    for name, state in states.items():
        setattr(metric, name, state.to(like[name].dtype))
    metric._update_count = 1
    return float(metric.compute())
