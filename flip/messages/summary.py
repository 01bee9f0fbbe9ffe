"""Aggregates over the persons of a site, which merge by addition."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

LABELS = "count/label"  # among the agreed statistics: persons of each outcome in the training rows
KNOWN = "count/known/"  # of a described cohort, by column: persons with a value, without one, with an undeclared one

IMAGE = "image"  # column of a described cohort: how images look, and their mean
INTENSITIES = "image intensities"  # histogram of a described cohort: shares of pixels from 0 to 1 of the window


class SummaryKind(Enum):
    """What the numbers of a `Summary` are; each kind merges by addition."""

    COUNT = "count"
    SUM = "sum"
    MOMENTS = "moments"  # [..., 3]: number, sum, sum of squares
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Summary:
    """An aggregate over `persons` distinct persons of a site, which can be added to another site's.

    `values` is an array of float64 (any shape; the last axis is [n, sum, sum of squares] for moments). A withheld
    summary has `persons == 0` and no values: it merges as nothing.
    """

    kind: SummaryKind
    values: np.ndarray
    persons: int

    @property
    def withheld(self) -> bool:
        """Whether the site kept these numbers back because too few persons stood behind them."""
        return self.persons == 0

    def merge(self, other: "Summary") -> "Summary":
        """Add another site's summary. Raises ValueError when kind or shape differ."""
        if self.withheld or other.withheld:
            return other if self.withheld else self
        if self.kind is not other.kind or self.values.shape != other.values.shape:
            raise ValueError(
                f"cannot merge {self.kind.value} {self.values.shape} with {other.kind.value} {other.values.shape}"
            )
        return Summary(self.kind, self.values + other.values, self.persons + other.persons)


EVERYBODY = "persons, all of them: "
"""Begins a remark of a site's that is of everybody: its number is of persons."""
OPTED_OUT = "the person opted out or withdrew, by the site's own list"
"""Why examples are left out of any dataset; others are the datasets' own."""


class Topic(Enum):
    """What a summary is about: who reads it at the coordinator."""

    STATISTICS = "statistics"  # what all sites agree on before the first round
    SKIPPED = "skipped"  # examples that were left out, by reason
    ABSENT = "absent"  # what no training row has, by its number among what must occur
    COMPARED = "compared"  # what has to be alike at all sites, as persons by unit
    WARNINGS = "warnings"  # of the remarks, those that put a result in doubt
    REMARKS = "remarks"  # what is to know of the examples that were kept, by remark
    DESCRIPTION = "description"  # what a cohort holds, by column
    SHAPE = "shape"  # of each part of an example
    METRIC = "metric"  # the states of a metric, by `metric/state`
    RESCALED = "rescaled"  # the same, of the test rows as a dataset scales them the other way (`ScaledForPooling`)
    SPREAD = "spread"  # by metric, what several rows of a person do to its interval (`flip.site.clusters`)
    OUTCOMES = "outcomes"  # what the study adds to the report


Summaries = Mapping[Topic, Mapping[str, Summary]]
"""Summaries by what they are about, and by name."""


@dataclass(frozen=True)
class Moments:
    """Number, mean and deviation of a column at a site, or over sites."""

    number: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Moments | None":
        """From [number, sum, sum of squares]; None without a value."""
        number, total, squares = values
        if not number:
            return None
        mean = total / number
        return cls(number, mean, math.sqrt(max(squares / number - mean**2, 0.0)))
