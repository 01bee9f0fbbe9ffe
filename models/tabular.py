"""Classifiers of tabular features."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as lightning
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

AUROC_BINS = 100  # thresholds of the binned AUROC, whose counts can be summed over sites


class LinearClassifier(lightning.LightningModule):
    """Logistic regression: one linear layer and a sigmoid, trained with binary cross-entropy.

    Batches hold `features` (float32 [n, f]) and `label` (float32 [n], 0 or 1).

    Args:
        features: number of features f.
        optimizer: makes the optimizer from the parameters.
        threshold: probability above which the prediction is positive, in (0, 1).
    """

    monitor = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        features: int,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(features, 1)
        self.make_optimizer = optimizer
        self.metrics = torch.nn.ModuleDict(
            {"accuracy": BinaryAccuracy(threshold), "auroc": BinaryAUROC(thresholds=AUROC_BINS), "loss": MeanMetric()}
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [n] of features [n, f]."""
        logits: torch.Tensor = self.linear(features).squeeze(1)
        return logits

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Mean cross-entropy of a batch."""
        loss = binary_cross_entropy_with_logits(self(batch["features"]), batch["label"])
        if self.trainer.loggers:  # logging a value costs as much as a step of this model
            self.log("loss", loss)
        return loss

    def validation_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Add a batch to the metrics."""
        logits, label = self(batch["features"]), batch["label"]
        for name in ("accuracy", "auroc"):
            self.metrics[name].update(logits.sigmoid(), label.int())
        self.metrics["loss"].update(binary_cross_entropy_with_logits(logits, label), weight=len(label))

    def test_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Add a batch to the metrics."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log and reset the validation metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log and reset the test metrics."""
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        for name, metric in self.metrics.items():
            self.log(f"{split}/{name}", metric.compute())
            metric.reset()

    def configure_optimizers(self) -> Any:
        """The declared optimizer over all parameters."""
        return self.make_optimizer(self.parameters())
