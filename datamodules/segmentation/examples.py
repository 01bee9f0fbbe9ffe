"""Scans as tensors: patches that are augmented to train on, whole scans to be scored on their own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms.utils import generate_label_classes_crop_centers
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.segmentation.intensity import Intensity
from datamodules.segmentation.patching import BIG, Patching
from datamodules.segmentation.shelf import Place, Shelf, middle
from datamodules.volume_cache import Arrays


@dataclass(frozen=True)
class Scan:
    """A scan on the shelf: `image` and `label` there, the rest of its arrays (`Reader.read`) here; whose it is and the
    subgroups that it is in, by the keys of a batch."""

    image: Place
    label: Place
    arrays: Arrays
    beside: Mapping[str, int]


class Patches(Dataset[dict[str, Tensor]]):
    """A patch of each scan, another whenever it is asked for.

    A share `foreground` is centered on a structure, each that the scan has as often as any other, the others anywhere
    (MONAI's RandCropByLabelClasses, on places that were found once). Where a scan is smaller than the patch,
    what is beyond has its `outside` value and is background.
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        shelf: Shelf,
        intensity: Intensity,
        patching: Patching,
    ) -> None:
        self.scans, self.shelf, self.intensity = scans, shelf, intensity
        self.size, self.foreground = tuple(patching.size), patching.foreground
        self.augmentation = patching.augmentation

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan = self.scans[index]
        # Seeded from torch's global generator at each item, all that is drawn is a function of the seed that the caller
        # has set for the fit, in this process and in a loader's worker.
        seed = int(torch.randint(2**31, ()))
        kept, label = self.shelf.get(scan.image), self.shelf.get(scan.label)
        center = self._center(scan.arrays, label.shape, np.random.RandomState(seed))
        image = self.intensity.seen(self._cut(kept, center, float(scan.arrays["outside"][0])))
        item: Any = {"image": image, "label": self._cut(label[None], center, 0).astype(np.float32)}
        if self.augmentation is not None:
            self.augmentation.set_random_state(seed=seed)
            item = self.augmentation(item)
        image, marked = (convert_to_tensor(item[name], track_meta=False) for name in BIG)
        return {"image": image.float(), "label": marked[0].long(), **_beside(scan)}

    def _center(self, arrays: Arrays, shape: tuple[int, ...], state: np.random.RandomState) -> Sequence[int]:
        indices = np.split(arrays["places"], arrays["ends"][:-1])
        there = np.array([len(each) > 0 for each in indices[1:]])
        ratios = [
            1 - self.foreground if there.any() else 1.0,
            *(self.foreground * there / max(there.sum(), 1)).tolist(),
        ]
        (center,) = generate_label_classes_crop_centers(
            self.size, 1, shape, indices, ratios, state, allow_smaller=True, warn=False
        )
        found: Sequence[int] = center
        return found

    def _cut(self, array: NDArray[Any], center: Sequence[int], beyond: float) -> NDArray[Any]:
        """A patch [c, *size] of an array [c, *S], as near to its center as the scan allows."""
        shape = array.shape[1:]
        first = [
            min(max(middle - side // 2, 0), max(length - side, 0))
            for middle, side, length in zip(center, self.size, shape, strict=True)
        ]
        part = array[(..., *(slice(a, a + side) for a, side in zip(first, self.size, strict=True)))]
        if part.shape[1:] == self.size:
            return np.array(part)
        patch = np.full((len(array), *self.size), beyond, array.dtype)
        begin = middle(part.shape[1:], self.size)
        patch[(..., *(slice(a, a + n) for a, n in zip(begin, part.shape[1:], strict=True)))] = part
        return patch


class Scans(Dataset[dict[str, Tensor]]):
    """Whole scans on the study's grid, with their labels on their own."""

    def __init__(self, scans: Sequence[Scan], shelf: Shelf, intensity: Intensity) -> None:
        self.scans, self.shelf, self.intensity = scans, shelf, intensity

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan = self.scans[index]
        return {
            "image": torch.from_numpy(self.intensity.seen(self.shelf.get(scan.image))),
            "label": torch.from_numpy(self.shelf.get(scan.label).astype(np.int64)),
            "spacing_mm": torch.from_numpy(scan.arrays["spacing_mm"]),
            "mapping": torch.from_numpy(scan.arrays["mapping"]),
            **_beside(scan),
        }


def _beside(scan: Scan) -> dict[str, Tensor]:
    others = {name: torch.tensor(number) for name, number in scan.beside.items()}
    return {"labeled": torch.from_numpy(scan.arrays["labeled"]), **others}
