"""Calibration: its slope, and the expected calibration error, from counts in bins and from rows."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.bins import BINS, EDGES, Binned, Counted, bins, histogram
from models.metrics.intervals import UNKNOWN, Bounds, Z, around

Floats = NDArray[np.float64]
MIDDLES = (EDGES.double() + torch.cat([EDGES[1:], torch.ones(1)]).double()) / 2  # probability in the middle of a bin


def calibration_slope(probability: Floats, label: Floats, weight: Floats) -> tuple[float, float]:
    """Slope of a logistic regression of the label on the logit of its probability, and its standard error.

    1 is well calibrated, below 1 too extreme. NaN where one class is absent or the classes do not overlap.
    Source: Cox DR, Biometrika 1958;45:562-565.
    """
    known = weight > 0
    probability, label, weight = probability[known], label[known], weight[known]
    logit = np.log(np.clip(probability, 1e-6, 1) / np.clip(1 - probability, 1e-6, 1))[:, None]
    of = [logit[label == each] for each in (0, 1)]
    if not all(map(len, of)) or of[0].max() <= of[1].min() or of[1].max() <= of[0].min():
        return UNKNOWN
    from sklearn.linear_model import LogisticRegression  # takes a third of a second to import

    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(logit, label, sample_weight=weight)
    share = fitted.predict_proba(logit)[:, 1]
    design = np.hstack([np.ones_like(logit), logit])
    information = design.T @ (design * (weight * share * (1 - share))[:, None])
    return float(fitted.coef_[0, 0]), float(np.sqrt(np.linalg.inv(information)[1, 1]))


class BinnedCalibrationSlope(Binned):
    """Calibration slope from counts in bins, each at its middle; a group's rows of both classes at their mean bin.

    A regression on the mean of groups of the regressor is nearly unbiased where both classes stand at the same mean.
    Source: Berkson J, J Am Stat Assoc 1950;45:164-180.
    """

    method = "Wald, from bins; squared and added to what merging bins can move"
    higher_is_better = None
    tolerance = 0.1

    def places(self, inside: Tensor, group: slice) -> tuple[int, int]:
        """The mean bin of a group, as both of its ends."""
        rows = inside.sum(0)
        mean = group.start + round(float((rows * torch.arange(len(rows))).sum() / max(int(rows.sum()), 1)))
        return mean, mean

    def merged(self, cell: int) -> dict[str, Tensor]:
        """As `Counted.merged`; `within` holds the rows in groups instead of pairs, which have no order at one mean."""
        states = super().merged(cell)
        return states | {"within": self.counts().sum((0, 2)).to(states["within"]).expand(2, -1).clone()}

    def compute(self) -> Tensor:
        """The slope."""
        return torch.tensor(self._fit()[0])

    def interval(self) -> Bounds:
        """Slope -/+ z standard errors, and the tolerance of a merge where a site has merged its bins."""
        slope, error = self._fit()
        return around(slope, math.hypot(error, self.tolerance / Z if self.within.any() else 0.0))

    def _fit(self) -> tuple[float, float]:
        counts = self.ends[0, :, 0].cpu().double().numpy()
        return calibration_slope(np.tile(MIDDLES.numpy(), 2), np.repeat([0.0, 1.0], BINS), counts.ravel())


class BinnedCalibrationError(Counted):
    """Expected calibration error over ten even bins, as torchmetrics computes it from rows, from sums of each bin.

    States [10]: rows, positives, and the sum of their probabilities. Under a minimum cell each group of rows counts in
    the bin of its mean probability; the groups are those of the other binned metrics, so that nothing follows from the
    difference. What is too sure and too unsure within a group cancels, as in any bin: the error is rather small than
    large. Source: Naeini MP et al., AAAI 2015.
    """

    SIZE = 10
    tolerance = 0.02
    higher_is_better = False
    rows: Tensor
    hits: Tensor
    confidence: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("rows", "hits"):
            self.add_state(name, torch.zeros(self.SIZE, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(self.SIZE), dist_reduce_fx="sum")
        self._clear()

    def _clear(self) -> None:
        self.fine = torch.zeros(2, 1, BINS, dtype=torch.long)  # of these rows, which stay at their site
        self.sums = torch.zeros(BINS, dtype=torch.float64)

    def reset(self) -> None:
        """Forget rows and states."""
        super().reset()
        self._clear()

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n] and labels [n], 0 or 1."""
        predicted, label = predicted.cpu().float(), label.cpu()  # weighted counts are deterministic there alone
        bin_ = even(predicted)
        self.rows += torch.bincount(bin_, minlength=self.SIZE).to(self.rows)
        self.hits += torch.bincount(bin_[label > 0], minlength=self.SIZE).to(self.hits)
        self.confidence += torch.bincount(bin_, weights=predicted, minlength=self.SIZE).to(self.confidence)
        self.fine += histogram(predicted[:, None], label[:, None])
        self.sums += torch.bincount(bins(predicted), weights=predicted.double(), minlength=BINS)

    def compute(self) -> Tensor:
        """The mean over rows of the distance between a bin's mean probability and its share of positives."""
        if not self.rows.any():
            return torch.tensor(math.nan)
        return (self.hits - self.confidence).abs().sum() / self.rows.sum()

    def counts(self) -> Tensor:
        """As `Counted.counts`."""
        return self.fine

    def merged(self, cell: int) -> dict[str, Tensor]:
        """As `Counted.merged`."""
        states = {name: torch.zeros_like(getattr(self, name), device="cpu") for name in self._defaults}
        for group in self.slices(0, cell):
            rows, total = self.fine[:, 0, group].sum(), self.sums[group].sum()
            place = even((total / rows.clamp(min=1)).float())
            states["rows"][place] += rows
            states["hits"][place] += self.fine[1, 0, group].sum()
            states["confidence"][place] += total.float()
        return states


class TopCalibrationError(BinnedCalibrationError):
    """Expected calibration error of the most probable class, from sums of each bin."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, classes] and classes [n]."""
        confidence, most = predicted.max(1) if len(predicted) else (predicted.sum(1), label)
        super().update(confidence, (most == label).long())


def even(probability: Tensor) -> Tensor:
    """Which of ten even bins probabilities lie in."""
    size = BinnedCalibrationError.SIZE
    return (torch.bucketize(probability, torch.linspace(0, 1, size + 1), right=True) - 1).clamp(0, size - 1)
