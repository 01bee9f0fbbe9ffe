"""Classifiers of tabular features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, Metric

from models.metrics.binned import BinnedAUROC
from models.metrics.calibration import BinnedCalibrationError
from models.metrics.classes import Accuracy, Sensitivity, Specificity
from models.metrics.exact import AUROC
from models.metrics.thresholds import decide_at, yes
from models.panels import binary


class LinearClassifier(lightning.LightningModule):
    """Logistic regression: one linear layer and a sigmoid, trained with binary cross-entropy.

    Batches hold `features` (float32 [n, f]) and `label` (float32 [n], 0 or 1).

    Args:
        features: number of features f.
        optimizer: makes the optimizer from the parameters.
        threshold: probability from which on the prediction is positive, in (0, 1): the nearest edge of `bins`.
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
        if not 0 < threshold < 1:
            raise ValueError(f"model.threshold={threshold}: write a number in (0, 1), as 0.5")
        self.linear = torch.nn.Linear(features, 1)
        self.make_optimizer = optimizer
        self.metrics = torch.nn.ModuleDict(
            {
                "accuracy": Accuracy(),
                "auroc_binned": BinnedAUROC(),
                "sensitivity": Sensitivity(),
                "specificity": Specificity(),
                "calibration_error_binned": BinnedCalibrationError(),
                "loss": MeanMetric(),
            }
        )
        self.threshold = decide_at(self.metrics.values(), threshold)
        self.exact = torch.nn.ModuleDict({"auroc": AUROC()})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [n] of features [n, f]."""
        logits: torch.Tensor = self.linear(features).squeeze(1)
        return logits

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Mean cross-entropy of a batch."""
        loss = binary_cross_entropy_with_logits(self(batch["features"]), batch["label"])
        if self.loggers:  # logging a value costs as much as a step of this model
            self.log("loss", loss)
        return loss

    def validation_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Add a batch to the metrics that sum over sites."""
        self._score(batch)

    def test_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> None:
        """Add a batch to all metrics."""
        self.exact["auroc"].update(*self._score(batch))

    def predict_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """`probability` [n], and `positive` [n], 1 from the threshold on; of a batch without labels."""
        probability = self(batch["features"]).sigmoid()
        return {"probability": probability, "positive": yes(probability, self.threshold)}

    def _score(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, label = self(batch["features"]), batch["label"]
        probability, truth = logits.detach().sigmoid(), label.int()
        for name, metric in self.metrics.items():
            if name != "loss":
                metric.update(probability, truth)
        self.metrics["loss"].update(binary_cross_entropy_with_logits(logits, label), weight=len(label))
        return probability, truth

    def panels(self, scored: Mapping[str, Mapping[str, Metric]], names: Sequence[str]) -> list[dict[str, Any]]:
        """What the report shows beside the metrics (`models.panels`)."""
        return binary.panels(scored, names)

    def on_validation_epoch_end(self) -> None:
        """Log and reset the validation metrics."""
        self._log_metrics("val", self.metrics)

    def on_test_epoch_end(self) -> None:
        """Log and reset the test metrics."""
        self._log_metrics("test", self.metrics)
        self._log_metrics("test", self.exact)

    def _log_metrics(self, split: str, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            self.log(f"{split}/{name}", metric.compute())
            metric.reset()

    def configure_optimizers(self) -> Any:
        """The declared optimizer over all parameters."""
        return self.make_optimizer(self.parameters())
