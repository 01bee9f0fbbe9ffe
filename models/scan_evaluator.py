"""Whole scans segmented in a MONAI Bundle: stands there where the evaluator of ignite would, which it does without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from models.small_parts import without_small_parts
from models.whole_scan import classes_on_own_grid, outputs_of


class ScanEvaluator:
    """Applies a network to scans, one after the other.

    Args:
        dataset: scans, each with `image` float [C, *S], preprocessed, and of its own grid `image_mapping`,
            `image_shape`, `image_affine` and `image_name`.
        network: [b, C, *roi] to logits [b, 1 + K, *roi], or several, the finest first.
        weights: file of its state, of tensors alone.
        postprocessing: takes the scan with `pred` int16 [1, *P], the class of each voxel of the own grid.
        device: where the network computes.
        roi, overlap: size of the windows that slide over a scan; share of one that the next covers again.
        structures, least_part: names of the classes 1, 2, ...; of which smaller parts are made background, mL.
    """

    def __init__(
        self,
        dataset: Iterable[Mapping[str, Any]],
        network: nn.Module,
        weights: str,
        postprocessing: Callable[[Mapping[str, Any]], object],
        *,
        device: str,
        roi: Sequence[int],
        overlap: float,
        structures: Sequence[str],
        least_part: Mapping[str, float],
    ) -> None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network, self.device = network.to(device).eval(), device
        self.dataset, self.postprocessing, self.roi, self.overlap = dataset, postprocessing, roi, overlap
        self.structures, self.least_part = structures, least_part

    @torch.no_grad()
    def run(self) -> None:
        """Segment every scan, and hand it on."""
        for scan in self.dataset:
            found = classes_on_own_grid(
                torch.as_tensor(scan["image"])[None].to(self.device), self._probabilities, roi=self.roi,
                overlap=self.overlap, mapping=torch.as_tensor(scan["image_mapping"]), shape=scan["image_shape"],
            )  # fmt: skip
            spacing = torch.as_tensor(scan["image_affine"])[:3, :3].norm(dim=0).tolist()
            found = without_small_parts(found, self.structures, self.least_part, spacing)
            affine, about = torch.as_tensor(scan["image_affine"]), {"filename_or_obj": scan["image_name"]}
            self.postprocessing({**scan, "pred": MetaTensor(found[None], affine=affine, meta=about)})

    def _probabilities(self, windows: Tensor) -> Tensor:
        return outputs_of(self.network(windows), windows.ndim - 2)[0].softmax(1)
