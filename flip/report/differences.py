"""The models of a run's first screen, and how far the run is from each of its baselines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from flip.errors import several
from flip.report.format import number, signed

Ends = tuple[float, float]


@dataclass(frozen=True)
class Model:
    """The main metric of one model on the test data of all sites that train.

    `protocol`: of rows scaled as no site scales them, to compare with what is published.
    """

    name: str
    value: float
    interval: Ends | None
    protocol: bool = False


@dataclass(frozen=True)
class Difference:
    """The main metric of this run less that of a baseline, at the same sites' test data.

    `value` is the mean over `sites`, weighted by their test examples. `interval` is of 95 %: of what another set of
    such sites would give, not of other persons at these. None with fewer than three. `worse` are the sites where this
    run is worse.
    """

    against: str
    value: float
    interval: Ends | None
    sites: Sequence[str]
    worse: Sequence[str]

    def says(self, higher_is_better: bool) -> str:
        """Whether this run is better or worse, as far as the interval tells; empty without one."""
        if self.interval is None:
            return ""
        low, high = self.interval if higher_is_better else (-self.interval[1], -self.interval[0])
        found = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
        return f"{found} {self.against}"

    @property
    def _spread(self) -> str:
        return f"by the spread of the differences over the {len(self.sites)} sites, not over persons"

    @property
    def words(self) -> str:
        """The difference with its interval, and where this run is worse."""
        ends = f" ({number(self.interval[0])} to {number(self.interval[1])}, {self._spread})" if self.interval else ""
        where = f": {', '.join(self.worse)}" if 0 < len(self.worse) < min(len(self.sites), 6) else ""
        return f"{signed(self.value)}{ends}, worse at {len(self.worse)} of {several(len(self.sites), 'site')}{where}"


def paired(gaps: Sequence[float], weights: Sequence[float]) -> tuple[float, Ends | None]:
    """Weighted mean of the differences at several sites, and its 95 % interval over the sites by Student's t.

    The variance is of a ratio of sums over sites (Cochran, Sampling Techniques, 1977, 6.4); None below three sites.
    """
    total, number_ = sum(weights), len(gaps)
    value = sum(gap * weight for gap, weight in zip(gaps, weights, strict=True)) / total
    if number_ < 3:
        return value, None
    from scipy.stats import t

    spread = fmean((weight * (gap - value)) ** 2 for gap, weight in zip(gaps, weights, strict=True)) * number_
    error = math.sqrt(spread * number_ / (number_ - 1)) / total
    half = float(t.ppf(0.975, number_ - 1)) * error
    return value, (value - half, value + half)
