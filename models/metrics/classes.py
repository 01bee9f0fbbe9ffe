"""Metrics of decisions: shares of rows, with intervals of shares, and curves as means over classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryRecall,
    BinarySpecificity,
    MulticlassAccuracy,
    MulticlassAUROC,
    MultilabelAUROC,
)

from models.metrics.binned import BINS, Binned, delong, histogram
from models.metrics.intervals import UNKNOWN, Bounds, Mean, around, wilson


class Share:
    """A share of rows, with Wilson's interval; NaN of none. `counted` gives those that count and all."""

    method = "Wilson"

    def counted(self) -> tuple[Tensor, Tensor]:
        """How many of how many."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The share, as torchmetrics computes it."""
        computed: Tensor = super().compute()  # type: ignore[misc]
        return computed if self.counted()[1] else torch.full_like(computed, math.nan)

    def interval(self) -> Bounds:
        """Wilson's interval."""
        hits, total = (int(each) for each in self.counted())
        return wilson(hits, total)


class Accuracy(Share, BinaryAccuracy):
    """Share of rows that the decision gets right."""

    def counted(self) -> tuple[Tensor, Tensor]:
        """Right decisions of all."""
        return self.tp + self.tn, self.tp + self.tn + self.fp + self.fn


class Sensitivity(Share, BinaryRecall):
    """Share of the positives that the decision finds."""

    def counted(self) -> tuple[Tensor, Tensor]:
        """Found positives of all positives."""
        return self.tp, self.tp + self.fn


class Specificity(Share, BinarySpecificity):
    """Share of the negatives that the decision leaves."""

    def counted(self) -> tuple[Tensor, Tensor]:
        """Left negatives of all negatives."""
        return self.tn, self.tn + self.fp


class ClassAccuracy(Share, MulticlassAccuracy):
    """Share of rows whose most probable class is the true one."""

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, average="micro")

    def counted(self) -> tuple[Tensor, Tensor]:
        """Right classes of all."""
        return self.tp.sum(), (self.tp + self.fn).sum()


class BalancedAccuracy(MulticlassAccuracy):
    """Mean over the classes that occur of the share of their rows that is recognized (macro recall)."""

    method = "delta, over classes"

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, average="macro")

    def _shares(self) -> tuple[Tensor, Tensor]:
        found, total = self.tp.cpu().double(), (self.tp + self.fn).cpu().double()
        return found[total > 0] / total[total > 0], total[total > 0]

    def compute(self) -> Tensor:
        """The mean of the shares."""
        return self._shares()[0].mean()

    def interval(self) -> Bounds:
        """From the binomial variances of the classes, whose rows are different ones."""
        shares, total = self._shares()
        if not len(shares):
            return UNKNOWN
        variance = (shares * (1 - shares) / total).sum() / len(shares) ** 2
        return around(float(shares.mean()), math.sqrt(float(variance)), 0.0, 1.0)


class Curves(Binned):
    """Mean of a curve's area over those classes (labels) of which there are both sorts of rows."""

    method = "DeLong, from bins, the mean standard error of the classes: conservative"

    def compute(self) -> Tensor:
        """The mean over classes."""
        areas: Tensor = super().compute()  # type: ignore[misc]
        both = histogram(self.confmat).any(-1).all(0)
        return areas[both].mean()

    def interval(self) -> Bounds:
        """Mean of the areas -/+ z times the mean of their standard errors by `delong`.

        The areas share rows, and bins do not tell how they vary together: a mean's standard error is at most the mean
        of the standard errors (Cauchy and Schwarz), so that the interval is wide rather than narrow.
        """
        found = [delong(*each) for each in zip(*self.classes(), strict=True) if all(map(torch.any, each))]
        if not found:
            return UNKNOWN
        area, error = (sum(each) / len(found) for each in zip(*found, strict=True))
        return around(area, error, 0.0, 1.0)


class BinnedClassAUROC(Curves, MulticlassAUROC):
    """Macro one-against-rest area under the ROC curve, in bins."""

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, average=None, thresholds=BINS)


class BinnedLabelAUROC(Curves, MultilabelAUROC):
    """Macro area under the ROC curve over labels, in bins; -1 is a label that is not known."""

    def __init__(self, labels: int) -> None:
        super().__init__(num_labels=labels, average=None, thresholds=BINS, ignore_index=-1)


class LabelAccuracy(Mean):
    """Share of known labels that are decided rightly at probability .5. A row has several: the interval is narrow."""

    higher_is_better = True

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, k] and labels [n, k], -1 where not known."""
        right = ((predicted >= 0.5) == (label > 0)).float()
        self.add(right.masked_fill(label < 0, math.nan))


class Brier(Mean):
    """Mean squared distance of the probabilities from what happened, summed over classes where there are several.

    Source: Brier GW, Mon Weather Rev 1950;78:1-3.
    """

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add [n] and [n]; [n, classes] and [n]; or [n, k] and [n, k] with -1 where not known."""
        if predicted.ndim > label.ndim:
            self.add((predicted - torch.nn.functional.one_hot(label, predicted.shape[1])).square().sum(1))
        else:
            self.add((predicted - label).square().masked_fill(label < 0, math.nan))
