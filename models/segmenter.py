"""Segmentation in two or three dimensions by any network, from patches to scores on each scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import Metric

from models.losses import compares
from models.masks import Apply, Masked, write_masks
from models.metrics.intervals import Examples
from models.metrics.segmentation import (
    CaseAreaError,
    CaseDistance,
    CaseHits,
    CaseOverlap,
    CaseTotal,
    CaseVolumeError,
    cut,
    lesions,
    overlaps,
    surfaces,
)
from models.partial_labels import marginal
from models.segmenter_settings import check_settings
from models.small_parts import without_small_parts
from models.whole_scan import classes_on_own_grid, outputs_of

Batch = Mapping[str, Tensor]
SOFT = {2: "bilinear", 3: "trilinear"}
ERRORS = {2: ("area_error", CaseAreaError), 3: ("volume_error", CaseVolumeError)}  # by the number of dimensions
LESIONS = ("lesions_found", "lesions_missed", "lesions_false")


class Segmenter(lightning.LightningModule):
    """A network [B, C, *S] -> [B, 1 + K, *S] of background and K structures, and its training.

    Training reads `image` float32 [B, C, *S], `label` int64 [B, *S] and `labeled` bool [B, K]: what is not labeled is
    not background there (`models.partial_labels`). Validation and test read a whole scan, `image` float32 [1, C, *S],
    and of its own grid `label` int64 [1, *P], `spacing_mm` float32 [1, D] and `mapping` float32 [1, D, 2] (voxel of the
    image = scale * own voxel + offset), also `labeled`, the test `subgroup_<name>` int64 [1] too. The prediction is
    brought to the own grid, and there alone scored: Dice of each structure and `dice`, the mean over cases of the mean
    over their structures; of the test also HD95, mm, normalized surface Dice and the signed error of volume, mL (in 2D
    of area, cm2), of cases whose site labels the structure, and of `lesions` how many were found, missed and false, as
    sums over cases. Batches of size 0 work.

    A network may return several outputs in training, the finest first, in a list or stacked [B, N, 1 + K, *S]
    (DynUNet): their losses weigh 1, 1/2, 1/4, ..., divided by the sum of these. Source: Isensee F et al., Nat Methods
    2021;18:203-211.

    Args:
        network: the network. Take instance or group norm: batch norm mixes patients and averages badly over sites.
        structures: names of the classes 1, 2, ...
        loss: by name the losses, which are added; each takes logits [b, classes, *S] and labels [b, 1, *S].
        roi: size of the windows that slide over a scan: the patches of the training.
        overlap: share of a window that the next one covers again, in [0, 1).
        tolerance_mm: how far surfaces may lie apart that surface Dice counts as the same, mm.
        optimizer: makes the optimizer from the parameters.
        subgroups: by name, the levels to score by; never an input.
        lesions: structures of which each part that hangs together is counted (`models.metrics.segmentation.lesions`).
        least_part: smaller parts of a structure are background, in scores and masks alike (`models.small_parts`).

    Raises ValueError for a structure's name that is no word, lesions or least parts that are no structures', a roi, an
    overlap or a tolerance out of range, a loss that does not take logits of classes, and, when it is used, a network
    with another number of classes.
    """

    monitor = "dice"
    higher_is_better = True

    def __init__(
        self,
        network: nn.Module,
        structures: Sequence[str],
        loss: Mapping[str, nn.Module],
        *,
        roi: Sequence[int],
        overlap: float,
        tolerance_mm: float,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        subgroups: Mapping[str, Sequence[str | int]] | None = None,
        lesions: Sequence[str] = (),
        least_part: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.make_optimizer = network, optimizer
        self.structures, self.roi = [str(each) for each in structures], [int(each) for each in roi]
        self.overlap, self.tolerance_mm, self.lesions = float(overlap), float(tolerance_mm), list(lesions)
        self.least_part = {str(name): float(least) for name, least in (least_part or {}).items()}
        check_settings(
            self.structures, self.roi, overlap=self.overlap, tolerance_mm=self.tolerance_mm, lesions=self.lesions,
            least_part=self.least_part,
        )  # fmt: skip
        self.loss = nn.ModuleDict(dict(loss))
        compared = [compares(name, each, len(self.structures), len(self.roi)) for name, each in loss.items()]
        self.compares_examples = any(compared)
        self.levels = {name: [str(level) for level in levels] for name, levels in (subgroups or {}).items()}
        self.metrics = nn.ModuleDict(self._scores())
        self.subgroup_metrics = nn.ModuleDict(
            {
                f"{group}/{level}/{name}": metric
                for group, levels in self.levels.items()
                for level in levels
                for name, metric in {**self._scores(), "examples": Examples()}.items()
            }
        )

    def _scores(self) -> dict[str, Metric]:
        kinds = {"dice": CaseOverlap, "hd95": CaseDistance, "surface_dice": CaseOverlap}
        kinds |= [ERRORS[len(self.roi)]]
        named = {f"{kind}_{name}": made() for kind, made in kinds.items() for name in self.structures}
        counted = dict(zip(LESIONS, (CaseHits, CaseTotal, CaseTotal), strict=True))
        counts = {f"{kind}_{name}": made() for kind, made in counted.items() for name in self.lesions}
        return {"dice": CaseOverlap(), **named, **counts}

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, 1 + K, *S], the finest where there are several."""
        return self.outputs(image)[0]

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Every output of the network, the finest first, as float32 whatever the precision of the network."""
        if image.dtype is not torch.float32:  # such a precision rounds the way to a scan's own grid too
            raise ValueError(f"precision: gives images as {image.dtype}; take 32, bf16-mixed or 16-mixed instead")
        found = outputs_of(self.network(image), image.ndim - 2)
        if any(each.shape[1] != len(self.structures) + 1 for each in found):
            raise ValueError(
                f"model.network: gives {found[0].shape[1]} classes, not {len(self.structures) + 1}, which are "
                "background and the structures; set its out_channels to ${size:target.classes}"
            )
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch; 0 for an empty one."""
        if not len(batch["image"]):  # not every layer takes it
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        outputs = self.outputs(batch["image"])
        weights = [0.5**depth for depth in range(len(outputs))]
        pairs = zip(outputs, weights, strict=True)
        loss = torch.stack([self._loss(each, batch) * weight / sum(weights) for each, weight in pairs]).sum()
        self.log("loss", loss, batch_size=len(batch["image"]))
        return loss

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        label, total = batch["label"], logits.sum() * 0
        if logits.shape[2:] != label.shape[1:]:
            logits = functional.interpolate(logits, label.shape[1:], mode=SOFT[len(self.roi)])
        for share, known, number in marginal(logits, label, batch["labeled"]):
            for each in self.loss.values():
                total = total + share * each(known, number)
        return total

    @torch.no_grad()
    def segment(self, image: Tensor, mapping: Tensor, shape: Sequence[int], spacing_mm: Sequence[float]) -> Tensor:
        """Class map int16 [*P] on the CPU of one scan [1, C, *S], on its own grid of this shape; `mapping` [D, 2]."""
        found = classes_on_own_grid(
            image, lambda windows: self(windows).softmax(1), roi=self.roi, overlap=self.overlap, mapping=mapping,
            shape=shape,
        )  # fmt: skip
        return without_small_parts(found, self.structures, self.least_part, spacing_mm)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """`segment` of a scan without labels, on the own grid of its `shape` int64 and `spacing_mm`, both [1, D]."""
        shape, spacing = (batch[name][0].tolist() for name in ("shape", "spacing_mm"))
        return self.segment(batch["image"], batch["mapping"][0], shape, spacing)

    def write_predictions(self, data: Masked, folder: Path, apply: Apply, digest: str) -> Mapping[str, int]:
        """Masks and their volumes of studies without labels: see `models.masks`."""
        return write_masks(data, folder, structures=self.structures, apply=apply, digest=digest)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score scans by Dice."""
        self._score(batch, surface=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score scans by everything, also by subgroup."""
        rows = self._score(batch, surface=True)
        for group, levels in self.levels.items() if rows else ():
            for number, level in enumerate(levels):
                belongs = (batch[f"subgroup_{group}"] == number).cpu()
                for name, numbers in {**rows, "examples": belongs}.items() if belongs.any() else ():
                    self.subgroup_metrics[f"{group}/{level}/{name}"].update(numbers[belongs])

    def _score(self, batch: Batch, *, surface: bool) -> dict[str, Tensor]:
        cases = [self._case(batch, index, surface=surface) for index in range(len(batch["image"]))]
        rows = {name: torch.stack([case[name] for case in cases]) for name in (cases[0] if cases else ())}
        for name, numbers in rows.items():
            self.metrics[name].update(numbers)
        return rows

    def _case(self, batch: Batch, index: int, *, surface: bool) -> dict[str, Tensor]:
        """The numbers of one case by the metric's name; NaN of a structure that its site does not label."""
        label, number = batch["label"][index].to(torch.int16).cpu(), len(self.structures)
        spacing = batch["spacing_mm"][index].tolist()
        found = self.segment(batch["image"][index : index + 1], batch["mapping"][index], label.shape, spacing)
        unknown = ~batch["labeled"][index].cpu()
        cuts = cut(found, label, number)
        scores = {"dice": overlaps(cuts, number)}
        if surface:
            made = surfaces(cuts, number, spacing_mm=spacing, tolerance_mm=self.tolerance_mm)
            scores |= dict(zip(("hd95", "surface_dice", ERRORS[len(self.roi)][0]), made, strict=True))
            which = [self.structures.index(name) for name in self.lesions]
            scores |= dict(zip(LESIONS, lesions(cuts, number, which), strict=True))
        known = {kind: each.masked_fill(unknown, torch.nan) for kind, each in scores.items()}
        named = {f"{kind}_{name}": each[k] for kind, each in known.items() for k, name in enumerate(self.structures)}
        kept = {name: value for name, value in named.items() if name in self.metrics}
        return {"dice": known["dice"].nanmean(), **kept}

    def bundle_inference(self) -> dict[str, object]:
        """How a MONAI Bundle segments: as `segment`, one channel of image, masks as NIfTI on the scan's own grid."""
        saved = {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
        windows = {"roi": self.roi, "overlap": self.overlap}
        rules = {"structures": self.structures, "least_part": self.least_part}
        return {
            "network": "network",
            "patch": [1, *self.roi],
            "outputs": ["background", *self.structures],
            "evaluator": {"_target_": "models.scan_evaluator.ScanEvaluator", **windows, **rules},
            "postprocessing": [{**saved, "output_postfix": "seg", "separate_folder": False, "resample": False}],
        }

    def wanted_sizes(self) -> dict[str, int]:
        """The classes that it is made for, by the dataset's name."""
        return {"target.classes": len(self.structures) + 1}

    def on_validation_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        self._log("val", self.metrics)

    def on_test_epoch_end(self) -> None:
        """Log and reset, for whoever uses this module with Lightning alone."""
        for metrics in (self.metrics, self.subgroup_metrics):
            self._log("test", metrics)

    def _log(self, split: str, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            if metric.update_called:
                self.log(f"{split}/{name}", metric.compute().float())
            metric.reset()

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of the constructor, over all parameters."""
        return self.make_optimizer(self.parameters())
