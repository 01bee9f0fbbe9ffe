"""Head of regression."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from models.metrics.intervals import Bounds, Mean, spread


class AbsoluteError(Mean):
    """Mean absolute error, in the label's unit."""

    plot_lower_bound = 0.0

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add((predicted - label).abs())

    def interval(self) -> Bounds:
        """Mean -/+ z standard errors, not below 0."""
        return spread(int(self.count), float(self.total), float(self.squares), 0.0)


class RootMeanSquaredError(Mean):
    """Root of the mean squared error, in the label's unit; a few large errors weigh more than in the `mae`."""

    method = "root of the normal one of the mean squared error"
    plot_lower_bound = 0.0

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add((predicted - label).square())

    def compute(self) -> Tensor:
        """The root of the mean; NaN of none."""
        return super().compute().sqrt()

    def interval(self) -> Bounds:
        """Roots of the mean square's limits, the lower not below 0."""
        low, high = spread(int(self.count), float(self.total), float(self.squares), 0.0)
        return math.sqrt(low), math.sqrt(high)


class Determination(Metric):
    """R2: the share of the label's variance that is explained, 1 at best; below 0 where the mean would do better.

    Over sites it is that of all rows, whose variance holds what lies between the sites. States: rows, sums and squares
    of the labels, squared errors. NaN for fewer than two rows, and where all labels are alike.
    """

    higher_is_better = True
    full_state_update = False
    NAMES = ("rows", "total", "squares", "errors")
    rows: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in self.NAMES:
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        predicted, label = predicted.cpu().double(), label.cpu().double()
        added = (torch.tensor(float(len(label))), label.sum(), label.square().sum(), (predicted - label).square().sum())
        for name, number in zip(self.NAMES, added, strict=True):
            setattr(self, name, getattr(self, name) + number.to(getattr(self, name)))

    def compute(self) -> Tensor:
        """1 less the squared errors by the squared distances from the mean."""
        around = self.squares - self.total.square() / self.rows
        known = bool(self.rows >= 2) and bool(around > 1e-9 * self.squares)
        return 1 - self.errors / around if known else torch.tensor(math.nan)


class Bias(Mean):
    """Mean of prediction less label, in the label's unit; 0 is best."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add(predicted - label)


class Regression(nn.Module):
    """A number. Batches hold `label` float32 [n], in its unit.

    The network predicts (label - mean) / deviation, by the batch's `label_mean` and `label_deviation` float32 [n]:
    those of the training rows of all sites (datamodules.agreed_target), so that every site learns on one scale whatever
    the unit is. A dataset without them has the label itself predicted.

    Args:
        width: size of the embedding that it gets.
    """

    monitor, higher_is_better = "mae", False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.wanted_sizes = nn.Linear(width, 1), {"target.numbers": 1}

    def forward(self, embedding: Tensor) -> Tensor:
        """Scaled predictions [n]."""
        out: Tensor = self.linear(embedding).squeeze(1)
        return out

    def loss(self, output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the scaled label; 0 of no row."""
        mean, deviation = scale(output, batch)
        return (output - (batch["label"] - mean) / deviation).square().sum() / max(len(output), 1)

    def scored(self, output: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the metrics take: predictions [n] and labels [n], in the label's unit."""
        return self.predicted(output, batch)["value"], batch["label"]

    def predicted(self, output: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`value` [n], in the label's unit."""
        mean, deviation = scale(output, batch)
        return {"value": output * deviation + mean}

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        return {"mae": AbsoluteError(), "rmse": RootMeanSquaredError(), "r2": Determination(), "bias": Bias()}

    def exact(self) -> dict[str, Metric]:
        """None: the errors are means, exact in any sum."""
        return {}


def scale(output: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The agreed mean and deviation of the label, [n] as the output; 0 and 1 of a dataset that agrees none."""
    return batch.get("label_mean", torch.zeros_like(output)), batch.get("label_deviation", torch.ones_like(output))
