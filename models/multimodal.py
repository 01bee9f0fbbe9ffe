"""A model of any subset of images, structured data and text: encoders, fusion and a head, all chosen in YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryStatScores

from models.metrics.bins import Counted
from models.metrics.counts import FOR_FIGURES
from models.metrics.groups import Levels
from models.metrics.intervals import Examples
from models.metrics.thresholds import decide_at

Batch = Mapping[str, Tensor]
LOSS = "loss"


class MultimodalModel(lightning.LightningModule):
    """Encoders of the parts of a batch, their fusion, and a head.

    Reads of a batch what the encoders name (`image` float32 [n, c, h, w] or [n, c, h, w, d], `tabular` float32 [n, f],
    `text` int64 [n, L]), with `..._present` float32 [n] where a part may be missing, the target that the head names,
    and for scores by subgroup `subgroup_<name>` int64 [n]. Batches of size 0 work.

    Three groups of metrics: `metrics`, whose states sum over sites; `subgroup_metrics`, the same by level of each
    subgroup, of the test data alone, named `group/level/metric`; `exact`, of the test data alone, which keep a site's
    rows and never leave it.

    Args:
        encoders: by part, what makes an embedding of it; a part that is null is not used.
        fusion: makes the fusion from the embeddings' sizes (`_partial_: true`).
        head: makes the head from the size of the fused embedding (`_partial_: true`).
        optimizer: makes the optimizer from the parameters.
        subgroups: by name, the levels to score by, in the order of `dataset.subgroups`; never an input.
    """

    def __init__(
        self,
        encoders: Mapping[str, Any],
        fusion: Callable[..., Any],
        head: Callable[..., Any],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        subgroups: Mapping[str, Sequence[str | int]] | None = None,
    ) -> None:
        super().__init__()
        used = {name: each for name, each in encoders.items() if each is not None}
        if not used:
            raise ValueError("model.encoders: names no part; give one of image, tabular, text")
        self.encoders = nn.ModuleDict(used)
        self.fusion = fusion(widths={name: each.width for name, each in used.items()})
        self.head = head(width=self.fusion.width)
        self.make_optimizer = optimizer
        self.monitor, self.higher_is_better = str(self.head.monitor), bool(self.head.higher_is_better)
        self.metrics = nn.ModuleDict({**self.head.metrics(), LOSS: MeanMetric()})
        self.exact = nn.ModuleDict(self.head.exact())
        self.levels = {name: [str(level) for level in levels] for name, levels in (subgroups or {}).items()}
        self.subgroup_metrics = nn.ModuleDict(
            {
                f"{group}/{level}/{name}": metric
                for group, levels in self.levels.items()
                for level in levels
                for name, metric in {**self.head.metrics(), "examples": Examples()}.items()
                if not isinstance(metric, FOR_FIGURES)
            }
        )
        self._levels_stand_beside_all_rows()
        self.decide_at(None)

    def _levels_stand_beside_all_rows(self) -> None:
        counted = {name: metric for name, metric in self.metrics.items() if isinstance(metric, Counted)}
        for group, levels in self.levels.items():
            for name, whole in counted.items():
                keys = [f"{group}/{level}/{name}" for level in levels]
                parts = [self.subgroup_metrics[key] for key in keys if key in self.subgroup_metrics]
                beside = Levels(whole, parts)
                for part in parts:
                    part.levels = beside

    def forward(self, batch: Batch) -> Tensor:
        """The head's output for a batch; what an absent part holds is not read."""
        embeddings, present = {}, {}
        for name, encoder in self.encoders.items():
            content = batch[name]
            extra = [batch[key] for key in getattr(encoder, "also", ()) if key in batch]
            embeddings[name] = encoder(content, *extra)
            present[name] = batch.get(f"{name}_present", torch.ones(len(content), device=content.device))
        output: Tensor = self.head(self.fusion(embeddings, present))
        return output

    def _empty(self, batch: Batch) -> bool:
        return not len(batch[next(iter(self.encoders))])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch; 0 for an empty one."""
        if self._empty(batch):  # not every layer takes it
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        loss: Tensor = self.head.loss(self(batch), batch)
        if self.trainer_logs:
            self.log(LOSS, loss, batch_size=len(batch[next(iter(self.encoders))]))
        return loss

    @property
    def trainer_logs(self) -> bool:
        """Whether anything listens: logging a value costs as much as a step of a small model."""
        return self._trainer is not None and bool(self._trainer.loggers)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the metrics that sum over sites."""
        if not self._empty(batch):
            self._score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to all metrics."""
        if self._empty(batch):
            return
        rows = self._score(batch)
        for metric in self.exact.values():
            metric.update(*rows)
        for group, levels in self.levels.items():
            for number, level in enumerate(levels):
                belongs = batch[f"subgroup_{group}"] == number
                named = [name for name in self.subgroup_metrics if name.startswith(f"{group}/{level}/")]
                for name in named if belongs.any() else ():
                    self.subgroup_metrics[name].update(*(each[belongs] for each in rows))

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What the head predicts for each row, by name; of a batch without the target."""
        found: dict[str, Tensor] = self.head.predicted(self(batch), batch)
        return found

    @torch.no_grad()
    def _score(self, batch: Batch) -> tuple[Tensor, ...]:
        output = self(batch)
        rows: tuple[Tensor, ...] = self.head.scored(output, batch)
        for name, metric in self.metrics.items():
            if name == LOSS:
                metric.update(self.head.loss(output, batch), weight=len(rows[0]))
            else:
                metric.update(*rows)
        return rows

    @property
    def compares_examples(self) -> bool:
        """Whether the head's loss of a row depends on the other rows of its batch."""
        return bool(getattr(self.head, "compares_examples", False))

    @property
    def fits_baseline(self) -> bool:
        """Whether the head needs the training rows of the site that scores it."""
        return bool(getattr(self.head, "fits_baseline", False))

    @torch.no_grad()
    def fit_baseline(self, batches: Iterable[Batch]) -> None:
        """Let the head take from a site's training rows what it is scored with; of none, that is not known."""
        self.eval()
        rows = [self.head.scored(self(batch), batch) for batch in batches if not self._empty(batch)]
        if not rows:
            rows = [(torch.zeros(0),) * 3]
        self.head.fit_baseline(tuple(torch.cat(each) for each in zip(*rows, strict=True)))

    @property
    def predicts_with(self) -> list[str]:
        """Names of pooled test metrics that the head predicts with."""
        return list(getattr(self.head, "predicts_with", ()))

    def know(self, scores: Mapping[str, float]) -> None:
        """Predict with what is known of the model, by these names, from now on."""
        if self.predicts_with:
            self.head.know(scores)

    def wanted_sizes(self) -> dict[str, int]:
        """What the head is made for, by the names of the dataset's sizes (`target.classes`, ...)."""
        return dict(getattr(self.head, "wanted_sizes", {}))

    @property
    def chooses_threshold(self) -> bool:
        """Whether the head's decision threshold is chosen on validation data."""
        return bool(getattr(self.head, "chooses_threshold", False))

    @property
    def decided(self) -> frozenset[str]:
        """Names of the metrics that a decision threshold changes."""
        return frozenset(name for name, metric in self.metrics.items() if isinstance(metric, BinaryStatScores))

    def choose_threshold(self) -> float | None:
        """The decision threshold from the states that `metrics` hold; None where they do not tell it."""
        chosen: float | None = self.head.choose(self.metrics)
        return chosen

    def decide_at(self, threshold: float | None) -> None:
        """Score decisions at this probability from now on; at .5 until it is chosen, with None.

        A head whose threshold is its own keeps that one. Raises ValueError beyond 0 to 1.
        """
        own = getattr(self.head, "at", None)
        if own is None:
            return
        wanted = threshold if self.chooses_threshold and threshold is not None else own
        at = decide_at([*self.metrics.values(), *self.subgroup_metrics.values()], wanted)
        if self.chooses_threshold:
            self.head.known = None if threshold is None else at

    def panels(self, scored: Mapping[str, Mapping[str, Metric]], names: Sequence[str]) -> list[dict[str, Any]]:
        """What the head shows in the report: tables and lines (`models.panels`) of the test metrics of each place."""
        shown: list[dict[str, Any]] = self.head.panels(scored, names) if hasattr(self.head, "panels") else []
        return shown

    def on_validation_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log_metrics("val", self.metrics)

    def on_test_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        for metrics in (self.metrics, self.exact, self.subgroup_metrics):
            self._log_metrics("test", metrics)

    def _log_metrics(self, split: str, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            if metric.update_called and not isinstance(metric, FOR_FIGURES):
                self.log(f"{split}/{name}", metric.compute().float())
            metric.reset()

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of the constructor, over all parameters."""
        return self.make_optimizer(self.parameters())
