"""Intervals of 95 % confidence from sums alone, each with the name of its method."""

from __future__ import annotations

import math

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics import Metric

Z = 1.959964  # standard normal deviate of a two-sided 95 %
Bounds = tuple[float, float]
UNKNOWN: Bounds = (math.nan, math.nan)


def wilson(hits: int, total: int) -> Bounds:
    """Interval of a proportion, by scipy. Source: Wilson EB, J Am Stat Assoc 1927;22:209-212."""
    if not total:
        return UNKNOWN
    found = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def around(value: float, error: float, low: float = -math.inf, high: float = math.inf) -> Bounds:
    """Normal interval of a value with its standard error, within what the value can be; unknown where they are."""
    if math.isnan(value + error):
        return UNKNOWN
    return max(low, value - Z * error), min(high, value + Z * error)


def with_bounds(value: float, sampled: Bounds, possible: Bounds) -> Bounds:
    """An interval of sampling together with the bounds of an error of another kind, of what is from 0 to 1.

    The distances from the value are squared and added, so that it holds both. Source: Zou GY,
    Donner A, Stat Med 2008;27:1693-1702.
    """
    if any(map(math.isnan, (value, *sampled, *possible))):
        return UNKNOWN
    low, high = (
        [max(0.0, (ends[side] - value) * sign) for ends in (sampled, possible)] for side, sign in ((0, -1), (1, 1))
    )
    return max(0.0, value - math.hypot(*low)), min(1.0, value + math.hypot(*high))


def spread(count: int, total: float, squares: float, low: float = -math.inf, high: float = math.inf) -> Bounds:
    """Normal interval of a mean from number, sum and sum of squares; unknown for fewer than two."""
    if count < 2:
        return UNKNOWN
    variance = max(squares - total**2 / count, 0.0) / (count - 1)
    return around(total / count, math.sqrt(variance / count), low, high)


class Mean(Metric):
    """Mean of one number an example, with a normal interval from its spread.

    States: how many, their sum, the sum of their squares. NaN numbers are not counted.
    """

    higher_is_better = False
    full_state_update = False
    method = "normal, from the spread over examples"
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        for name in ("total", "squares"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def add(self, numbers: Tensor) -> None:
        """Add numbers, of any shape."""
        known = numbers[~numbers.isnan()].cpu().double()  # not every device has double precision
        self.count += len(known)
        self.total += known.sum().to(self.total)
        self.squares += known.square().sum().to(self.squares)

    def update(self, numbers: Tensor) -> None:
        """Add numbers, of any shape."""
        self.add(numbers)

    def compute(self) -> Tensor:
        """The mean; NaN of none."""
        return self.total / self.count

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors; unknown for fewer than two."""
        return spread(int(self.count), float(self.total), float(self.squares))


class Examples(Metric):
    """How many examples were scored."""

    full_state_update = False
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, *rows: Tensor) -> None:
        """Count rows."""
        self.count += len(rows[0])

    def compute(self) -> Tensor:
        """Their number."""
        return self.count
