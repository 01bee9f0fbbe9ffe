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
)

from models.metrics.binned import BinnedAUROC
from models.metrics.intervals import UNKNOWN, Bounds, Mean, around, spread, wilson


class Share:
    """A share of rows, with Wilson's interval; NaN of none. `counted` gives those that count and all.

    The states are the four counts of a decision, of which a row is in one: their length for it, `row_norm`, is 1.
    """

    method = "Wilson"
    row_norm = 1.0

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
        self.row_norm = math.hypot(1, classes - 1)  # a right row: itself, and rightly none of the others

    def counted(self) -> tuple[Tensor, Tensor]:
        """Right classes of all."""
        return self.tp.sum(), (self.tp + self.fn).sum()


class BalancedAccuracy(MulticlassAccuracy):
    """Mean over the classes that occur of the share of their rows that is recognized (macro recall)."""

    method = "delta, over classes"

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, average="macro")
        self.row_norm = math.sqrt(classes)  # a row is in one of four counts of each class

    def _shares(self) -> tuple[Tensor, Tensor]:
        found, total = self.tp.cpu().double(), (self.tp + self.fn).cpu().double()
        return found[total > 0] / total[total > 0], total[total > 0]

    def compute(self) -> Tensor:
        """The mean of the shares."""
        return self._shares()[0].mean()

    def interval(self) -> Bounds:
        """From the binomial variances of the classes, whose rows are different ones; where all rows are recognized,
        or none, that variance is 0, which is no certainty: there Wilson's interval of the smallest class.
        """
        shares, total = self._shares()
        if not len(shares):
            return UNKNOWN
        if bool((shares == shares[0]).all()) and shares[0] in (0, 1):
            rows = int(total.min())
            return wilson(int(shares[0]) * rows, rows)
        variance = (shares * (1 - shares) / total).sum() / len(shares) ** 2
        return around(float(shares.mean()), math.sqrt(float(variance)), 0.0, 1.0)


class BinnedClassAUROC(BinnedAUROC):
    """Macro one-against-rest area under the ROC curve, in bins."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, classes] and classes [n]."""
        self.add(predicted, torch.nn.functional.one_hot(label.long(), predicted.shape[1]))


class BinnedLabelAUROC(BinnedAUROC):
    """Macro area under the ROC curve over labels, in bins; -1 is a label that is not known."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, labels] and labels [n, labels]."""
        self.add(predicted, label)


class LabelAccuracy(Mean):
    """Share of known labels that are decided rightly at probability .5. A row has several: the interval is narrow."""

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n, k] and labels [n, k], -1 where not known."""
        right = ((predicted >= 0.5) == (label > 0)).float()
        self.add(right.masked_fill(label < 0, math.nan))

    def interval(self) -> Bounds:
        """Share -/+ z standard errors, from 0 to 1."""
        return spread(int(self.count), float(self.total), float(self.squares), 0.0, 1.0)

    def thin(self, cell: int) -> bool:
        """Whether fewer than `cell` decisions are right, or wrong, but some: number and sum tell both."""
        right = round(float(self.total))
        return any(0 < number < cell for number in (right, int(self.count) - right))


class Brier(Mean):
    """Mean squared distance of the probabilities from what happened, summed over classes where there are several.

    Source: Brier GW, Mon Weather Rev 1950;78:1-3.
    """

    plot_lower_bound, plot_upper_bound = 0.0, 2.0

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add [n] and [n]; [n, classes] and [n]; or [n, k] and [n, k] with -1 where not known."""
        if predicted.ndim > label.ndim:
            self.add((predicted - torch.nn.functional.one_hot(label, predicted.shape[1])).square().sum(1))
        else:
            self.add((predicted - label).square().masked_fill(label < 0, math.nan))

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors, from 0 to 2: what a wrong class at probability 1 scores."""
        return spread(int(self.count), float(self.total), float(self.squares), 0.0, 2.0)
