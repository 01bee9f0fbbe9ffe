"""Exact metrics of one site: they keep its rows, which stay there. Each has a binned or weighted partner that travels.

`auroc` is exact at a site; its partner `auroc_binned` is what can be summed. The engine gives an interval
by a bootstrap of its rows to each that has none of its own.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAUROC,
    MultilabelAUROC,
)
from torchmetrics.utilities import dim_zero_cat

from models.metrics.calibration import calibration_slope
from models.metrics.intervals import UNKNOWN, Bounds, around

NONE = torch.tensor(math.nan)


def _both(target: Tensor) -> bool:
    return bool((target == 0).any() and (target == 1).any())


class AUROC(BinaryAUROC):
    """Area under the ROC curve; NaN with one class alone."""

    def compute(self) -> Tensor:
        """The area."""
        return super().compute() if self.target and _both(dim_zero_cat(self.target)) else NONE


class AUPRC(BinaryAveragePrecision):
    """Average precision; NaN with one class alone."""

    def compute(self) -> Tensor:
        """The average precision."""
        return super().compute() if self.target and _both(dim_zero_cat(self.target)) else NONE


class ClassAUROC(MulticlassAUROC):
    """Macro one-against-rest area under the ROC curve, over the classes that occur."""

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes, average=None)

    def compute(self) -> Tensor:
        """The mean over classes."""
        if not self.target:
            return NONE
        counts = torch.bincount(dim_zero_cat(self.target), minlength=self.num_classes)
        with warnings.catch_warnings():  # torchmetrics warns of classes that do not occur: they are left out here
            warnings.simplefilter("ignore")
            areas: Tensor = super().compute()
        return areas[(counts > 0) & (counts < counts.sum())].mean()


class LabelAUROC(MultilabelAUROC):
    """Macro area under the ROC curve over labels of which both values occur; -1 is a label that is not known."""

    def __init__(self, labels: int) -> None:
        super().__init__(num_labels=labels, average=None, ignore_index=-1)

    def compute(self) -> Tensor:
        """The mean over labels."""
        if not self.target:
            return NONE
        target = dim_zero_cat(self.target)
        both = (target == 0).any(0) & (target == 1).any(0)
        with warnings.catch_warnings():  # torchmetrics warns of labels of one value: they are left out here
            warnings.simplefilter("ignore")
            areas: Tensor = super().compute()
        return areas[both].mean()


class CalibrationSlope(Metric):
    """Slope of the label's logistic regression on the logit of its probability (`calibration_slope`)."""

    full_state_update = False
    method = "Wald"
    predicted: list[Tensor]
    label: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("label", [], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add probabilities [n] and labels [n], 0 or 1."""
        self.predicted.append(predicted)
        self.label.append(label)

    def compute(self) -> Tensor:
        """The slope; NaN where there is none."""
        return torch.tensor(self._fit()[0])

    def interval(self) -> Bounds:
        """Slope -/+ z standard errors."""
        return around(*self._fit())

    def _fit(self) -> Bounds:
        if not self.label:
            return UNKNOWN
        predicted, label = (dim_zero_cat(each).cpu().double().numpy() for each in (self.predicted, self.label))
        return calibration_slope(predicted, label, label * 0 + 1)
