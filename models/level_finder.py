"""The level of a vertebra in a whole CT: a map along the body axis with "not in view", its training and its use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from models.metrics.classes import Sensitivity, Specificity
from models.metrics.intervals import Mean
from models.metrics.levels import BinnedErrorQuantile
from models.metrics.segmentation import CaseDistance

Batch = Mapping[str, Tensor]
NEAR_MM = 10.0  # a found level no farther than this from the true one is right: a third of a lumbar vertebra
Pictures = Callable[[NDArray[np.float32], Sequence[float]], tuple[NDArray[np.float32], NDArray[np.float64]]]


@dataclass(frozen=True)
class Level:
    """Where the level is in a scan.

    `position`: its center in slices of the scan, a fraction, 0 the first; None where it is not in view or was refused.
    `confidence`: the probability that it lies within NEAR_MM of the likeliest place, also where that is refused.
    `absent`: the probability that it is not in view.
    """

    position: float | None
    confidence: float
    absent: float


class LevelFinder(lightning.LightningModule):
    """A network of pictures [B, V, Z, W] and `inside` [B, Z] -> [B, Z + 1], and its training.

    Reads `image` float32 [B, V, Z, W], `inside` bool [B, Z], `level` float32 [B], the row of the level, NaN where it is
    not in view, and `step_mm` float32 [B], the height of a row. The softmax over the rows inside and "not in view" is
    one distribution: the loss is its cross-entropy with a Gaussian of `blur_mm` about the level, or with "not in view".
    Source of a Gaussian along the axis as the target: Belharbi S et al., Comput Biol Med 2017;87:95-103; Kanavati F et
    al., arXiv:1811.09244, 2018. That it sums to 1 together with "not in view" is ours.

    A level is found where the sum within NEAR_MM, its confidence, is largest, at the mean there; a confidence below
    `confidence`, or no larger than that of "not in view", is refused: the scan counts as one without the level. So is
    any in a scan lower than `least_mm`: the network was not trained on such, and is sure all the same.

    Metrics: `log_loss`, the loss; `error_mm`, the mean absolute error of the found ones, mm, `error_median_binned` and
    `error_p95_binned`, its quantiles; of the scans with the level `within_10mm`, found so near (a refused one is not),
    and `found`; of those without it `absent_told`, the share refused. Batches of size 0 work.

    Args:
        network: as above.
        projections: scans to pictures, as the dataset makes them: what `find_level` needs of it.
        optimizer: makes the optimizer from the parameters.
        blur_mm: standard deviation of the target, mm: how well a reader knows the level.
        confidence: least confidence of a level that is told, 0 to 1.
        least_mm: height of the lowest scan in which a level is told, mm.

    Raises ValueError for a blur or a confidence out of range.
    """

    monitor, higher_is_better, compares_examples = "log_loss", False, False

    def __init__(
        self,
        network: nn.Module,
        projections: Pictures,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        blur_mm: float = 4.0,
        confidence: float = 0.5,
        least_mm: float = 100.0,
    ) -> None:
        super().__init__()
        if not 0 < blur_mm <= NEAR_MM or not 0 <= confidence <= 1:
            raise ValueError(f"model: blur_mm is above 0 and at most {NEAR_MM:g}, confidence from 0 to 1")
        self.network, self.projections, self.make_optimizer = network, projections, optimizer
        self.blur_mm, self.confidence, self.least_mm = float(blur_mm), float(confidence), float(least_mm)
        self.metrics = nn.ModuleDict(_metrics())

    def forward(self, image: Tensor, inside: Tensor) -> Tensor:
        """Logits [B, Z + 1]: rows, -inf beyond the scan, then "not in view"; float32 whatever the network's precision.

        A batch of none gives none, as not every layer takes it.
        """
        logits: Tensor = self.network(image, inside)
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch; 0 for an empty one."""
        if not len(batch["image"]):  # not every layer takes it
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        loss = self._losses(self(batch["image"], batch["inside"]), batch).mean()
        self.log("loss", loss, batch_size=len(batch["image"]))
        return loss

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each example [B], less the entropy of its target: 0 at best."""
        wanted = target(batch["level"], batch["inside"], batch["step_mm"], self.blur_mm)
        told = logits.log_softmax(1).masked_fill(wanted == 0, 0)
        return (wanted * (wanted.clamp(min=1e-30).log() - told)).sum(1)

    @torch.no_grad()
    def locate(self, image: Tensor, inside: Tensor, step_mm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row [B], NaN where refused, confidence [B] and probability of "not in view" [B] of pictures."""
        shares = self(image, inside).softmax(1)
        row, sure = peak(shares[:, :-1], step_mm)
        high = inside.sum(1) * step_mm >= self.least_mm
        told = high & (sure >= self.confidence) & (sure > shares[:, -1])
        return row.masked_fill(~told, torch.nan), sure, shares[:, -1]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score scans."""
        self._score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score scans."""
        self._score(batch)

    @torch.no_grad()
    def _score(self, batch: Batch) -> None:
        if not len(batch["image"]):
            return
        found, _, _ = self.locate(batch["image"], batch["inside"], batch["step_mm"])
        there, error = ~batch["level"].isnan(), (found - batch["level"]).abs() * batch["step_mm"]
        told, near = ~found.isnan(), error <= NEAR_MM
        self.metrics["log_loss"].update(self._losses(self(batch["image"], batch["inside"]), batch))
        for name in ("error_mm", "error_median_binned", "error_p95_binned"):
            self.metrics[name].update(error)
        for name, decided in (("within_10mm", near), ("found", told), ("absent_told", told)):
            self.metrics[name].update(decided.long(), there.long())

    def wanted_sizes(self) -> dict[str, int]:
        """None: whatever the pictures are, the network says."""
        return {}

    def on_validation_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log("test")

    def _log(self, split: str) -> None:
        for name, metric in self.metrics.items():
            if metric.update_called:
                self.log(f"{split}/{name}", metric.compute().float())
            metric.reset()

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of the constructor, over all parameters."""
        return self.make_optimizer(self.parameters())


def find_level(module: LevelFinder, hu: NDArray[np.float32], spacing: Sequence[float]) -> Level:
    """The level in a whole scan, or why there is none: see `Level`.

    `hu` float32 (slice, row, column), HU, slices from inferior to superior, rows to the back, columns to the left;
    `spacing` likewise, mm. The module is used as for an evaluation, without dropout, and left as it was.
    """
    views, (scale, offset) = module.projections(hu, spacing)
    image = torch.from_numpy(views)[None].to(module.device)
    inside = torch.ones(1, image.shape[2], dtype=torch.bool, device=module.device)
    training = module.training
    module.eval()
    row, sure, absent = module.locate(image, inside, image.new_tensor([spacing[0] / float(scale)]))
    module.train(training)
    position = None if row.isnan() else float(np.clip((float(row) - float(offset)) / float(scale), 0, len(hu) - 1))
    return Level(position, float(sure), float(absent))


def target(level: Tensor, inside: Tensor, step_mm: Tensor, blur_mm: float) -> Tensor:
    """What the softmax ought to be, [B, Z + 1]: a Gaussian about the level, or all on "not in view"."""
    rows = torch.arange(inside.shape[1], device=level.device)
    away = (rows - level[:, None]) * step_mm[:, None]
    shape = (-(away**2) / (2 * blur_mm**2)).masked_fill(~inside, -torch.inf).softmax(1)
    there = ~level.isnan()
    return torch.cat([shape.nan_to_num().where(there[:, None], 0), (~there).float()[:, None]], 1)


def peak(shares: Tensor, step_mm: Tensor) -> tuple[Tensor, Tensor]:
    """Of shares of rows [B, Z] the mean row [B] of the stretch within NEAR_MM that holds most, and what it holds."""
    found = []
    for own, step in zip(shares, step_mm.tolist(), strict=True):
        reach = int(NEAR_MM / step)
        near = [own[max(row - reach, 0) : row + reach + 1] for row in range(len(own))]
        held = torch.stack([each.sum() for each in near])
        best = int(held.argmax())
        rows = torch.arange(len(near[best]), device=own.device) + max(best - reach, 0)
        found.append(torch.stack([(rows * near[best]).sum() / held[best].clamp(min=1e-30), held[best]]))
    row, sure = torch.stack(found).unbind(1) if found else (shares.new_zeros(0), shares.new_zeros(0))
    return row, sure


def _metrics() -> dict[str, Metric]:
    made: dict[str, Any] = {"log_loss": Mean(), "error_mm": CaseDistance()}
    quantiles = {"error_median_binned": BinnedErrorQuantile(0.5), "error_p95_binned": BinnedErrorQuantile(0.95)}
    return made | quantiles | {"within_10mm": Sensitivity(), "found": Sensitivity(), "absent_told": Specificity()}
