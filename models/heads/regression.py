"""Head of regression."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchmetrics import Metric

from models.metrics.intervals import Mean


class AbsoluteError(Mean):
    """Mean absolute error, in the label's unit."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add((predicted - label).abs())


class SquaredError(Mean):
    """Mean squared error, in the square of the label's unit."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add((predicted - label).square())


class Bias(Mean):
    """Mean of prediction less label, in the label's unit; 0 is best."""

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add predictions [n] and labels [n]."""
        self.add(predicted - label)


class Regression(nn.Module):
    """A number. Batches hold `label` float32 [n].

    Args:
        width: size of the embedding that it gets.
        center: about the label's mean, in its unit: the network predicts (label - center) / scale.
        scale: about the label's deviation, in its unit.
    """

    monitor, higher_is_better = "mae", False

    def __init__(self, width: int, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"model.head.scale={scale}: must be above 0")
        self.linear, self.center, self.scale = nn.Linear(width, 1), center, scale
        self.wanted_sizes = {"target.numbers": 1}

    def forward(self, embedding: Tensor) -> Tensor:
        """Scaled predictions [n]."""
        out: Tensor = self.linear(embedding).squeeze(1)
        return out

    def loss(self, output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of the scaled label; 0 of no row."""
        return (output - (batch["label"] - self.center) / self.scale).square().sum() / max(len(output), 1)

    def scored(self, output: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the metrics take: predictions [n] and labels [n], in the label's unit."""
        return output * self.scale + self.center, batch["label"]

    def metrics(self) -> dict[str, Metric]:
        """Metrics that can be summed over sites."""
        return {"mae": AbsoluteError(), "mse": SquaredError(), "bias": Bias()}

    def exact(self) -> dict[str, Metric]:
        """None: the errors are means, exact in any sum."""
        return {}
