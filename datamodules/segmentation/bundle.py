"""What of the preparation of scans MONAI has no transform for, as transforms: a model's bundle holds a copy.

MONAI's Spacing takes another middle of the grid and averages nothing where an axis gets coarser.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from numpy.typing import NDArray

from datamodules.segmentation.grid import mapping, resampled
from datamodules.segmentation.intensity import Intensity, Range, Standardized


class ToGridd(MapTransform):
    """Images [C, *P], which know their affine, on the grid of a spacing over the same extent.

    Adds for `image` float64 `image_mapping` [3, 2], voxel of the grid = scale * own voxel + offset, `image_shape` [3]
    of the own grid, its `image_affine` [4, 4] and `image_name`, where it was read from.

    Args:
        keys: of the images.
        spacing_mm: of the grid, mm, by axis.
    """

    def __init__(self, keys: str | Sequence[str], spacing_mm: Sequence[float]) -> None:
        super().__init__(keys)
        self.spacing = tuple(spacing_mm)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images on the grid."""
        found = dict(data)
        for key in self.key_iterator(found):
            affine = np.asarray(found[key].affine, np.float64)
            own = np.asarray(found[key])
            shape, places = mapping(own.shape[1:], np.linalg.norm(affine[:3, :3], axis=0).tolist(), self.spacing)
            found |= {f"{key}_mapping": places, f"{key}_shape": own.shape[1:], f"{key}_affine": affine}
            found[f"{key}_name"] = found[key].meta.get("filename_or_obj", "")
            found[key] = torch.from_numpy(np.stack([resampled(channel, places, shape) for channel in own]))
        return found


class _ByRule(MapTransform):
    """Images as a rule of the dataset has them."""

    rule: Intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images as the network sees them."""
        found = dict(data)
        for key in self.key_iterator(found):
            values: NDArray[np.float32] = np.asarray(found[key], np.float32)
            found[key] = torch.from_numpy(self.rule.seen(self.rule.kept(values)))
        return found


class Standardizedd(_ByRule):
    """Each image by itself: (value - mean) / deviation."""

    rule = Standardized()


class Ranged(_ByRule):
    """From the lowest to the highest value as `to`.

    Args:
        keys: of the images.
        low, high: the values.
        to: what they become.
    """

    def __init__(self, keys: str | Sequence[str], low: float, high: float, to: Sequence[float]) -> None:
        super().__init__(keys)
        self.rule = Range(low, high, to)
