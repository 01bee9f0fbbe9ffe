"""Heads of classification: yes or no, one of several classes, several labels at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from models.metrics.binned import BinnedAUPRC, BinnedAUROC
from models.metrics.bins import EDGES, on_grid
from models.metrics.calibration import BinnedCalibrationError, BinnedCalibrationSlope, TopCalibrationError
from models.metrics.classes import (
    Accuracy,
    BalancedAccuracy,
    BinnedClassAUROC,
    BinnedLabelAUROC,
    Brier,
    ClassAccuracy,
    LabelAccuracy,
    Sensitivity,
    Specificity,
)
from models.metrics.counts import Confusion, LabelDecisions
from models.metrics.exact import AUPRC, AUROC, CalibrationSlope, ClassAUROC, LabelAUROC
from models.metrics.thresholds import yes
from models.panels import binary, classes, labels

Batch = Mapping[str, Tensor]
Scored = Mapping[str, Mapping[str, Metric]]
Panels = list[dict[str, Any]]
YOUDEN, SENSITIVITY, HALF = "youden", "sensitivity", 0.5
ROUNDING = 1e-9  # of a sum of shares


class Binary(nn.Module):
    """Yes or no by a logistic output. Batches hold `label` float32 [n], 0 or 1.

    Args:
        width: size of the embedding that it gets.
        threshold: probability from which the decision is yes: a number in (0, 1), taken at the nearest edge of
            `models.metrics.bins`, at most .0022 away; `youden`, which maximizes sensitivity plus specificity, or
            `{sensitivity: 0.9}`, the highest with that sensitivity. The last two are chosen on the validation data of
            the sites after the last round; until then it is .5.
    """

    monitor, higher_is_better = "auroc_binned", True

    def __init__(self, width: int, threshold: float | str | Mapping[str, float] = HALF) -> None:
        super().__init__()
        wanted = threshold.get(SENSITIVITY) if isinstance(threshold, Mapping) and len(threshold) == 1 else threshold
        if not (wanted == YOUDEN or (isinstance(wanted, int | float) and 0 < wanted < 1)):
            raise ValueError(
                f"model.head.threshold={threshold!r}: write a number in (0, 1), youden or {{sensitivity: 0.9}}"
            )
        self.linear, self.threshold = nn.Linear(width, 1), threshold
        self.wanted_sizes = {"target.classes": 2}
        self.chooses_threshold = not isinstance(threshold, int | float)
        self.at = on_grid(threshold) if isinstance(threshold, int | float) else HALF
        self.known = None if self.chooses_threshold else self.at

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits [n]."""
        logits: Tensor = self.linear(embedding).squeeze(1)
        return logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy; 0 of no row."""
        losses = functional.binary_cross_entropy_with_logits(output, batch["label"], reduction="none")
        return losses.sum() / max(len(losses), 1)

    def scored(self, output: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics take: probabilities [n] and labels [n]."""
        return output.sigmoid(), batch["label"].long()

    def predicted(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`probability` [n]; `positive` [n], 1 from the threshold on, NaN where that is to be chosen and was not."""
        found = output.sigmoid()
        unknown = torch.full_like(found, torch.nan)
        return {"probability": found, "positive": unknown if self.known is None else yes(found, self.known)}

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        return {
            "auroc_binned": BinnedAUROC(),
            "auprc_binned": BinnedAUPRC(),
            "accuracy": Accuracy(),
            "sensitivity": Sensitivity(),
            "specificity": Specificity(),
            "brier": Brier(),
            "calibration_slope_binned": BinnedCalibrationSlope(),
            "calibration_error_binned": BinnedCalibrationError(),
        }

    def exact(self) -> dict[str, Metric]:
        """Metrics of a site's own rows."""
        return {
            "auroc": AUROC(),
            "auprc": AUPRC(),
            "calibration_slope": CalibrationSlope(),
            "calibration_error": BinaryCalibrationError(n_bins=BinnedCalibrationError.SIZE),
        }

    def panels(self, scored: Scored, names: Sequence[str]) -> Panels:
        """As `models.panels.binary`."""
        return binary.panels(scored, names)

    def choose(self, metrics: Mapping[str, Metric]) -> float | None:
        """The threshold from the counts of the validation data; None where they hold one class alone.

        Thresholds are the edges of the bins. Of the best by Youden's index the middle one is taken (of the highest run
        of neighbors), of those with the wanted sensitivity the highest. Reads `auroc_binned` alone.
        """
        counts = metrics["auroc_binned"]
        assert isinstance(counts, BinnedAUROC)
        if not counts.known().all():
            return None
        above = (each[0].flip(0).cumsum(0) for each in counts.expected())
        false, true = (each / each[-1] for each in above)
        thresholds = EDGES.flip(0)
        if self.threshold == YOUDEN:
            best = (true - false >= (true - false).max() - ROUNDING).nonzero().flatten()
            first = int((best == best[0] + torch.arange(len(best))).sum())  # those next to each other
            return float(thresholds[best[first // 2]])
        assert isinstance(self.threshold, Mapping)
        return float(thresholds[true >= self.threshold[SENSITIVITY] - ROUNDING].max())


class MultiClass(nn.Module):
    """One of several classes. Batches hold `label` int64 [n].

    Args:
        width: size of the embedding that it gets.
        classes: number of classes, from three.
        weights: weight of each class in the loss; `agreed`: of each row the batch's `class_weight` float32 [n], by the
            persons of each class over all sites (datamodules.agreed_target); null: all alike.
    """

    monitor, higher_is_better = "balanced_accuracy", True

    def __init__(self, width: int, classes: int, weights: Sequence[float] | Literal["agreed"] | None = None) -> None:
        super().__init__()
        if classes < 3:
            raise ValueError(f"model.head.classes={classes}: of two, {Binary.__module__}.Binary decides")
        self.agreed = weights == "agreed"
        if isinstance(weights, str) and not self.agreed:
            raise ValueError(f"model.head.weights={weights}: write agreed, one number a class, or null")
        own = None if self.agreed or weights is None else [float(each) for each in weights]
        if own is not None and len(own) != classes:
            raise ValueError(f"model.head.weights: has {len(own)} numbers for {classes} classes; give one a class")
        self.linear, self.classes, self.wanted_sizes = nn.Linear(width, classes), classes, {"target.classes": classes}
        self.register_buffer("weights", torch.tensor(own) if own else None, persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits [n, classes]."""
        logits: Tensor = self.linear(embedding)
        return logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over rows of the (weighted) cross-entropy; 0 of no row. ValueError for a class beyond `classes`."""
        if len(output) and int(batch["label"].max()) >= self.classes:
            raise ValueError(
                f"model.head.classes={self.classes}: the data have class {int(batch['label'].max()) + 1}; "
                "set it to the number of dataset.target.levels"
            )
        losses = functional.cross_entropy(output, batch["label"], weight=self.weights, reduction="none")
        losses = losses * batch["class_weight"] if self.agreed else losses
        return losses.sum() / max(len(losses), 1)

    def scored(self, output: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics take: probabilities [n, classes] and classes [n]."""
        return output.softmax(1), batch["label"]

    def predicted(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`probability` [n, classes], and which of them is `predicted` [n]."""
        return {"probability": output.softmax(1), "predicted": output.argmax(1)}

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        return {
            "balanced_accuracy": BalancedAccuracy(self.classes),
            "accuracy": ClassAccuracy(self.classes),
            "auroc_binned": BinnedClassAUROC(self.classes),
            "brier": Brier(),
            "calibration_error_binned": TopCalibrationError(),
            "confusion": Confusion(self.classes),
        }

    def exact(self) -> dict[str, Metric]:
        """Metrics of a site's own rows."""
        error = MulticlassCalibrationError(num_classes=self.classes, n_bins=BinnedCalibrationError.SIZE)
        return {"auroc": ClassAUROC(self.classes), "calibration_error": error}

    def panels(self, scored: Scored, names: Sequence[str]) -> Panels:
        """As `models.panels.classes`."""
        return classes.panels(scored, names)


class MultiLabel(nn.Module):
    """Several labels at once, each yes or no. Batches hold `label` float32 [n, labels], NaN where one is not known.

    Args:
        width: size of the embedding that it gets.
        labels: number of labels.
    """

    monitor, higher_is_better = "auroc_binned", True

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.linear, self.labels, self.at = nn.Linear(width, labels), labels, HALF
        self.wanted_sizes = {"target.labels": labels}

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits [n, labels]."""
        logits: Tensor = self.linear(embedding)
        return logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over rows of the mean cross-entropy of a row's known labels; 0 where there is none."""
        known = ~batch["label"].isnan()
        label = batch["label"].nan_to_num()
        losses = functional.binary_cross_entropy_with_logits(output, label, reduction="none") * known
        by_row = losses.sum(1) / known.sum(1).clamp(min=1)
        return by_row.sum() / max(len(by_row), 1)

    def scored(self, output: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics take: probabilities [n, labels] and labels [n, labels], -1 where not known."""
        return output.sigmoid(), batch["label"].nan_to_num(nan=-1.0).long()

    def predicted(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`probability` [n, labels]."""
        return {"probability": output.sigmoid()}

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        decisions = {"accuracy": LabelAccuracy(), "decisions": LabelDecisions(self.labels)}
        return {"auroc_binned": BinnedLabelAUROC(self.labels), **decisions, "brier": Brier()}

    def exact(self) -> dict[str, Metric]:
        """Metrics of a site's own rows."""
        return {"auroc": LabelAUROC(self.labels)}

    def panels(self, scored: Scored, names: Sequence[str]) -> Panels:
        """As `models.panels.labels`."""
        return labels.panels(scored, names)
