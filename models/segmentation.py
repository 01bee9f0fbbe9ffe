"""Segmentation of images by any network, trained with Dice and cross-entropy, scored by Dice over cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytorch_lightning as lightning
import torch
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from models.metrics.segmentation import CaseDice, CaseHD95

Batch = Mapping[str, Tensor]


class Segmentation(lightning.LightningModule):
    """A network [B, 1, H, W] -> [B, 1 + tissues, H, W] and its training.

    Training reads `image` float32 [B, 1, H, W] and `label` int64 [B, H, W] (0 background, then the tissues in order).
    Validation and test read `image`, and on a grid of their own `label` int64 [B, P, P], `hu` float32 [B, P, P] and
    `mapping` [B, 2, 2] (rows, columns; pixel of the image = scale * pixel + offset), the test also `pixel_area_cm2`
    float32 [B]: the prediction is brought onto that grid, and there alone scored. Batches of size 0 work.

    Args:
        network: the network. Use layers that treat each example by itself (group norm, no batch norm), which average
            well over sites and which DP-SGD can clip.
        tissues: name to (lowest, highest) HU, in the order of the classes. A pixel out of its tissue's range is
            background, as body composition is defined; None is no limit.
        optimizer: makes the optimizer from the parameters.
    """

    monitor = "dice_muscle"
    higher_is_better = True

    def __init__(
        self,
        network: torch.nn.Module,
        tissues: Mapping[str, Sequence[float] | None],
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
    ) -> None:
        super().__init__()
        self.network, self.optimizer = network, optimizer
        self.tissues = {
            name: None if bounds is None else (float(bounds[0]), float(bounds[1])) for name, bounds in tissues.items()
        }
        # Dice by example, not by batch: the loss is then a mean over examples, as per-sample clipping needs it.
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=False)
        self.metrics = torch.nn.ModuleDict(
            {f"dice_{name}": CaseDice(index + 1) for index, name in enumerate(self.tissues)}
        )
        self.monitor = next(iter(self.metrics))
        self.metrics.update({f"hd95_{name}": CaseHD95(index + 1) for index, name in enumerate(self.tissues)})

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes, H, W]."""
        logits: Tensor = self.network(image)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, Dice plus cross-entropy; 0 for an empty one."""
        if not len(batch["image"]):  # not every layer takes it
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        logits = self(batch["image"])
        loss: Tensor = self.loss(logits, batch["label"][:, None])
        self.log("loss", loss, batch_size=len(logits))
        return loss

    @torch.no_grad()
    def segment(self, batch: Batch) -> Tensor:
        """Class map int64 [B, P, P] on the grid of `hu`, within each tissue's HU."""
        shares = self(batch["image"]).float().softmax(1)
        shares = resample(shares, batch["mapping"], batch["hu"].shape[-2:])
        classes = shares.argmax(1)
        for index, bounds in enumerate(self.tissues.values(), start=1):
            if bounds is not None:
                outside = (batch["hu"] < bounds[0]) | (batch["hu"] > bounds[1])
                classes = classes.masked_fill((classes == index) & outside, 0)
        return classes

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch by Dice."""
        self._score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch by Dice and Hausdorff distance."""
        predicted = self._score(batch)
        if predicted is not None:
            pixel_mm = 10 * batch["pixel_area_cm2"].sqrt()
            for metric in self.metrics.values():
                if isinstance(metric, CaseHD95):
                    metric.update(predicted, batch["label"], pixel_mm)

    def _score(self, batch: Batch) -> Tensor | None:
        if not len(batch["image"]):
            return None
        predicted = self.segment(batch)
        for metric in self.metrics.values():
            if isinstance(metric, CaseDice):
                metric.update(predicted, batch["label"])
        return predicted

    def on_validation_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log("test")

    def _log(self, split: str) -> None:
        for name, metric in self.metrics.items():
            if metric.update_called:
                self.log(f"{split}/{name}", metric.compute())
            metric.reset()

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of the constructor, over all parameters."""
        return self.optimizer(self.parameters())


def resample(shares: Tensor, mapping: Tensor, shape: Sequence[int]) -> Tensor:
    """Read [B, C, H, W] at the places of another grid, linearly; [B, C, *shape], 0 beyond the image.

    `mapping` [B, 2, 2] holds (scale, offset) of rows and of columns, from the other grid's pixels to the image's.
    """
    axes = []
    for axis, (length, size) in enumerate(zip(shape, shares.shape[2:], strict=True)):
        pixel = torch.arange(length, device=shares.device, dtype=shares.dtype)
        place = mapping[:, axis, :1].to(shares) * pixel + mapping[:, axis, 1:].to(shares)
        axes.append(2 * place / (size - 1) - 1)
    rows, columns = axes
    grid = torch.stack(
        [columns[:, None, :].expand(-1, shape[0], -1), rows[:, :, None].expand(-1, -1, shape[1])], dim=-1
    )
    return functional.grid_sample(shares, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
