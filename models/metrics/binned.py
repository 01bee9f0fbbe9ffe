"""Curves from counts in bins of the predicted probability, which can be summed over sites: torchmetrics' binned ones.

A count matrix `confmat` [thresholds, 2, 2] says how many of each class lie at or above each threshold: it is a
histogram of each class's probabilities. Before it leaves a site, thin bins are merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, BinaryCalibrationError

from models.metrics.intervals import UNKNOWN, Bounds, around

BINS = 200  # thresholds from 0 to 1: a bin is half a percent wide
LOGITS = torch.linspace(
    -8, 8, BINS - 1
)  # thresholds of the slope: bins of .08 of a logit, the first is what lies below
Floats = NDArray[np.float64]


def histogram(confmat: Tensor) -> Tensor:
    """Counts [2, ..., bins] of the negatives and positives, from [bins, ..., 2, 2]."""
    above = torch.stack([confmat[..., 0, 1], confmat[..., 1, 1]]).movedim(1, -1)
    return above - torch.nn.functional.pad(above[..., 1:], (0, 1))


def from_histogram(counts: Tensor) -> Tensor:
    """The count matrix [bins, ..., 2, 2] of counts [2, ..., bins]."""
    above = counts.flip(-1).cumsum(-1).flip(-1).movedim(-1, 1)
    below = counts.sum(-1)[:, None] - above
    return torch.stack([torch.stack([below[0], above[0]], -1), torch.stack([below[1], above[1]], -1)], -2)


def merged(counts: Tensor, cell: int) -> Tensor:
    """Neighboring bins put together until each holds `cell`, at the mean bin of those that it comes from.

    What is left at the end goes to the last. Counts of fewer than `cell` in all come back as they are.
    """
    rows = counts.reshape(-1, counts.shape[-1])
    out = torch.zeros_like(rows)
    for row, kept in zip(rows.tolist(), out, strict=True):
        groups: list[list[tuple[int, int]]] = [[]]
        for index, count in enumerate(row):
            if count:
                groups[-1].append((index, count))
                if sum(number for _, number in groups[-1]) >= cell:
                    groups.append([])
        rest = groups.pop()
        if groups:
            groups[-1] += rest
        else:
            groups = [[bin_] for bin_ in rest]
        for group in groups:
            size = sum(number for _, number in group)
            kept[round(sum(index * number for index, number in group) / size)] += size
    return out.reshape(counts.shape)


def delong(negatives: Tensor, positives: Tensor) -> Bounds:
    """Area under the ROC curve of two histograms and its standard error; unknown with fewer than two rows of a class.

    Ties within a bin count half. Source: DeLong ER et al., Biometrics 1988;44:837-845, with each bin's placement value
    weighted by its count.
    """
    n, m = negatives.double(), positives.double()
    if n.sum() < 2 or m.sum() < 2:
        return UNKNOWN
    of_positives = (n.cumsum(0) - n / 2) / n.sum()
    of_negatives = 1 - (m.cumsum(0) - m / 2) / m.sum()
    area = (m * of_positives).sum() / m.sum()
    spread = [
        (count * (place - area).square()).sum() / (count.sum() - 1) / count.sum()
        for count, place in ((m, of_positives), (n, of_negatives))
    ]
    return float(area), math.sqrt(float(sum(spread)))


@contextmanager
def plain_counts() -> Iterator[None]:
    """Let torchmetrics count by `torch.bincount`, which is deterministic for counts.

    Where torch's deterministic algorithms are on, as the engine has them, torchmetrics 1.9 compares every row with
    every bin instead: 131 GB for 256 rows of 20 classes.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Binned:
    """What binned metrics have in common: a state that may leave once its thin bins are merged; of one curve or k."""

    confmat: Tensor

    def update(self, *rows: Tensor) -> None:
        """Add probabilities [n] or [n, k] and labels."""
        with plain_counts():
            super().update(*rows)  # type: ignore[misc]

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The states, each bin with `cell` persons or none, where there are that many."""
        return {"confmat": from_histogram(merged(histogram(self.confmat), cell)) if cell > 1 else self.confmat}

    def classes(self) -> tuple[Tensor, Tensor]:
        """Histograms [bins] or [k, bins] of negatives and positives."""
        negatives, positives = histogram(self.confmat.cpu())
        return negatives, positives

    def both(self) -> bool:
        """Whether both classes occur, without which there is no curve."""
        return all(bool(each.any()) for each in self.classes())


class BinnedAUROC(Binned, BinaryAUROC):
    """Area under the ROC curve in bins; NaN with one class alone."""

    method = "DeLong, from bins"

    def __init__(self) -> None:
        super().__init__(thresholds=BINS)

    def compute(self) -> Tensor:
        """The area."""
        return super().compute() if self.both() else torch.tensor(math.nan)

    def interval(self) -> Bounds:
        """Area -/+ z standard errors by `delong`."""
        return around(*delong(*self.classes()), 0.0, 1.0)


class BinnedAUPRC(Binned, BinaryAveragePrecision):
    """Average precision in bins; NaN with one class alone.

    The interval is the logit one of Boyd K et al., ECML PKDD 2013, with the number of positives.
    """

    method = "logit, from bins"

    def __init__(self) -> None:
        super().__init__(thresholds=BINS)

    def compute(self) -> Tensor:
        """The average precision."""
        return super().compute() if self.both() else torch.tensor(math.nan)

    def interval(self) -> Bounds:
        """Logit interval; unknown where the precision is 0 or 1."""
        value, positives = float(self.compute()), int(self.classes()[1].sum())
        if not 0 < value < 1:
            return UNKNOWN
        low, high = around(math.log(value / (1 - value)), 1 / math.sqrt(positives * value * (1 - value)))
        return 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))


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
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(logit, label, sample_weight=weight)
    share = fitted.predict_proba(logit)[:, 1]
    design = np.hstack([np.ones_like(logit), logit])
    information = design.T @ (design * (weight * share * (1 - share))[:, None])
    return float(fitted.coef_[0, 0]), float(np.sqrt(np.linalg.inv(information)[1, 1]))


class BinnedCalibrationSlope(BinnedAUROC):
    """Calibration slope from bins that are even in the logit, each at its middle; beyond +/- 8 they are one bin."""

    method = "Wald, from bins"
    higher_is_better = None

    def __init__(self) -> None:
        BinaryAUROC.__init__(self, thresholds=torch.cat([torch.zeros(1), LOGITS.sigmoid()]))

    def compute(self) -> Tensor:
        """The slope."""
        return torch.tensor(self._fit()[0])

    def interval(self) -> Bounds:
        """Slope -/+ z standard errors."""
        return around(*self._fit())

    def _fit(self) -> tuple[float, float]:
        negatives, positives = (each.double().numpy() for each in self.classes())
        half = float(LOGITS[1] - LOGITS[0]) / 2
        middle = (torch.cat([LOGITS[:1] - half, LOGITS + half])).double().sigmoid().numpy()
        labels = np.repeat([0.0, 1.0], BINS)
        return calibration_slope(np.tile(middle, 2), labels, np.concatenate([negatives, positives]))


class BinnedCalibrationError(BinaryCalibrationError):
    """Expected calibration error over ten bins, as torchmetrics computes it from rows, from sums of each bin.

    States [10]: rows, positives, and the sum of their probabilities. Source: Naeini MP et al., AAAI 2015.
    """

    SIZE = 10
    rows: Tensor
    hits: Tensor
    confidence: Tensor

    def __init__(self) -> None:
        super().__init__(n_bins=self.SIZE)
        del self.confidences, self.accuracies  # torchmetrics keeps the rows, which must not leave a site
        self._defaults.clear()
        self._reductions.clear()
        self._persistent.clear()
        for name in ("rows", "hits"):
            self.add_state(name, torch.zeros(self.SIZE, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(self.SIZE), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n] and labels [n], 0 or 1."""
        predicted, label = predicted.cpu(), label.cpu()  # weighted counts are deterministic there alone
        edges = torch.linspace(0, 1, self.SIZE + 1)
        bin_ = (torch.bucketize(predicted, edges, right=True) - 1).clamp(0, self.SIZE - 1)
        self.rows += torch.bincount(bin_, minlength=self.SIZE).to(self.rows)
        self.hits += torch.bincount(bin_[label > 0], minlength=self.SIZE).to(self.hits)
        self.confidence += torch.bincount(bin_, weights=predicted, minlength=self.SIZE).to(self.confidence)

    def compute(self) -> Tensor:
        """The mean over rows of the distance between a bin's mean probability and its share of positives."""
        if not self.rows.any():
            return torch.tensor(math.nan)
        return (self.hits - self.confidence).abs().sum() / self.rows.sum()

    def coarse(self, cell: int) -> dict[str, Tensor]:
        """The states with neighboring bins put together until each holds `cell` of either class, or none of one."""
        if cell <= 1:
            return {"rows": self.rows, "hits": self.hits, "confidence": self.confidence}
        states = [self.rows.tolist(), self.hits.tolist(), self.confidence.tolist()]
        groups: list[list[float]] = []
        for each in zip(*states, strict=True):
            thin = bool(groups) and any(0 < number < cell for number in (groups[-1][1], groups[-1][0] - groups[-1][1]))
            if thin or (groups and not groups[-1][0]):
                groups[-1] = [a + b for a, b in zip(groups[-1], each, strict=True)]
            else:
                groups.append(list(each))
        while len(groups) > 1 and any(0 < number < cell for number in (groups[-1][1], groups[-1][0] - groups[-1][1])):
            rest = groups.pop()
            groups[-1] = [a + b for a, b in zip(groups[-1], rest, strict=True)]
        padded = torch.tensor(groups + [[0.0] * 3] * (self.SIZE - len(groups)), dtype=torch.float64).T
        return {"rows": padded[0].long(), "hits": padded[1].long(), "confidence": padded[2].float()}
