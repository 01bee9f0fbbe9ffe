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
    """Normal interval of a value with its standard error, within what the value can be."""
    return max(low, value - Z * error), min(high, value + Z * error)


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
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, numbers: Tensor) -> None:
        """Add numbers, of any shape."""
        known = numbers[~numbers.isnan()].double().cpu()
        self.count += len(known)
        self.total += known.sum()
        self.squares += known.square().sum()

    def update(self, numbers: Tensor) -> None:
        """Add numbers, of any shape."""
        self.add(numbers)

    def compute(self) -> Tensor:
        """The mean; NaN of none."""
        return self.total / self.count

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors; unknown for fewer than two."""
        if self.count < 2:
            return UNKNOWN
        mean = self.total / self.count
        variance = ((self.squares - self.count * mean**2) / (self.count - 1)).clamp(min=0)
        return around(float(mean), math.sqrt(float(variance / self.count)))


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
