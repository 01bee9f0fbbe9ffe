"""Curves from counts in bins, which can be summed over sites: one of the ROC, one of precision and recall."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.metrics.bins import Binned, in_order
from models.metrics.intervals import UNKNOWN, Bounds, around, wilson, with_bounds

NAN = torch.tensor(math.nan)


def area(negatives: Tensor, positives: Tensor) -> Tensor:
    """Area under the ROC curve [...] of counts [..., bins], from (0, 0) to (1, 1); rows in one bin are tied."""
    return in_order(negatives, positives) / (negatives.sum(-1) * positives.sum(-1))


def delong(negatives: Tensor, positives: Tensor) -> Bounds:
    """Area under the ROC curve of counts [bins] and its standard error; unknown with fewer than two rows of a class.

    Ties within a bin count half. Source: DeLong ER et al., Biometrics 1988;44:837-845, with each bin's placement value
    weighted by its count.
    """
    n, m = negatives.double(), positives.double()
    if n.sum() < 2 or m.sum() < 2:
        return UNKNOWN
    of_positives = (n.cumsum(0) - n / 2) / n.sum()
    of_negatives = 1 - (m.cumsum(0) - m / 2) / m.sum()
    mean = (m * of_positives).sum() / m.sum()
    spread = [
        (count * (place - mean).square()).sum() / (count.sum() - 1) / count.sum()
        for count, place in ((m, of_positives), (n, of_negatives))
    ]
    return float(mean), math.sqrt(float(sum(spread)))


class BinnedAUROC(Binned):
    """Area under the ROC curve from counts in bins, the mean over several curves; NaN where none has both classes."""

    method = "DeLong, from bins; squared and added to what merging bins can lose"
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def compute(self) -> Tensor:
        """The mean over the curves that there are."""
        return area(*self.expected())[self.known()].mean()

    def interval(self) -> Bounds:
        """Mean of the areas -/+ z times the mean of their standard errors by `delong`, and what merging can lose.

        Several areas share rows, and bins do not tell how they vary together: a mean's standard error is at most the
        mean of the standard errors (Cauchy and Schwarz), so that the interval is wide rather than narrow. Classes that
        do not overlap have a standard error of 0, which is no certainty: there Wilson's interval takes its place.
        """
        known = self.known()
        if not known.any():
            return UNKNOWN
        found = [delong(*each) for each in zip(*(counts[known] for counts in self.expected()), strict=True)]
        value, error = (sum(each) / len(found) for each in zip(*found, strict=True))
        worst, best = (float(area(*counts)[known].mean()) for counts in self.bounds())
        sampled = self._without_spread(value) if error == 0 and value in (0, 1) else around(value, error, 0.0, 1.0)
        return with_bounds(value, sampled, (worst, best))

    def _without_spread(self, value: float) -> Bounds:
        """Wilson's interval of as many disjoint pairs of rows as the smallest class holds, all in one order."""
        pairs = int(self.ends[0].sum(-1)[:, self.known()].min())
        return wilson(round(value) * pairs, pairs)


def average_precision(negatives: Tensor, positives: Tensor) -> float:
    """Average precision of counts [bins]; with none of a class NaN.

    Within a bin every order is as likely: a positive that stands behind the share t of its bin has precision
    (a + 1 + t (d - 1)) / (c + 1 + t (k - 1)), of a positives and c rows above the bin, d and k in it; over t that is an
    integral in closed form. Rows at probabilities of exactly 0 and 1 are really tied and get one precision. Source:
    Davis J, Goadrich M, ICML 2006, section 4, for the path between two points.
    """
    d, e = positives.double().flip(0), negatives.double().flip(0)
    if not (d.any() and e.any()):
        return math.nan
    above, rows = d.cumsum(0) - d, (d + e).cumsum(0) - d - e
    own = torch.minimum(d, torch.ones(()))  # shares of a group can be less than one row
    own[[0, -1]] = d[[0, -1]]
    tied = torch.zeros_like(e)
    tied[[0, -1]] = e[[0, -1]]
    first, more = above + own, d - own
    start, width = rows + own + tied, d + e - own - tied
    path = more / width + (first - more * start / width) / width * torch.log1p(width / start)
    precision = torch.where(width > 1e-9, path, first / start)
    return float((d * precision)[d > 0].sum() / d.sum())


class BinnedAUPRC(Binned):
    """Average precision from counts in bins; NaN with one class alone.

    The interval is the logit one of Boyd K et al., ECML PKDD 2013, with the number of positives, and what merging bins
    can lose: a positive that passes a negative never lowers the average precision, so that the ends bound it.
    """

    method = "logit, from bins; squared and added to what merging bins can lose"
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def compute(self) -> Tensor:
        """The average precision."""
        return torch.tensor(average_precision(*(each[0] for each in self.expected())))

    def interval(self) -> Bounds:
        """Logit interval with what merging can lose; unknown where the precision is 0 or 1."""
        value, positives = float(self.compute()), int(self.ends[0, 1].sum())
        if not 0 < value < 1:
            return UNKNOWN
        ends = around(math.log(value / (1 - value)), 1 / math.sqrt(positives * value * (1 - value)))
        low, high = (1 / (1 + math.exp(-end)) for end in ends)
        worst, best = (average_precision(*(each[0] for each in counts)) for counts in self.bounds())
        return with_bounds(value, (low, high), (worst, best))
