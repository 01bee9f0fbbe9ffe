"""CT slices as tensors: on a network's grid and augmented to train on, on the scanner's own grid to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.ct.cohort import Study
from datamodules.ct.grid import Grid
from datamodules.ct.planes import AIR, Plane

GridPlane = tuple[NDArray[np.int16], NDArray[np.uint8]]  # HU and label on the network's grid


class Slices(Dataset[dict[str, Tensor]]):
    """Training examples on the network's grid: `image` float32 [1, H, W], `label` int64 [H, W], `person`."""

    def __init__(self, planes: Sequence[GridPlane], person: Sequence[int], grid: Grid, augment: float) -> None:
        self.planes, self.person, self.grid = planes, person, grid
        self.augmentation = augmentation(augment, planes[0][0].shape[-1]) if augment and planes else None

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        hu, label = self.planes[index]
        item = {"image": self.grid.windowed(hu)[None], "label": label[None].astype(np.float32)}
        if self.augmentation is not None:
            # MONAI's transforms hold generators of their own. Seeded from torch's global one, at each item, they become
            # a function of the seed that the caller has set for the fit, in this process and in a loader's worker.
            self.augmentation.set_random_state(seed=int(torch.randint(2**31, ())))
            item = self.augmentation(item)
        image, label = (convert_to_tensor(item[name], track_meta=False) for name in ("image", "label"))
        return {"image": image.float(), "label": label[0].long(), "person": torch.tensor(self.person[index])}


class Cases(Dataset[dict[str, Tensor]]):
    """Examples to measure on: one person each, with the plane at the center of L3 on the scanner's own grid too."""

    def __init__(self, cases: Sequence[tuple[int, Study, Plane]], grid: Grid) -> None:
        self.cases, self.grid = cases, grid
        self.person = [row for row, *_ in cases]

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        (row, study, plane), grid = self.cases[index], self.grid
        image, _ = plane.resampled(grid.spacing_mm, grid.size)
        shown = plane.within(grid.plane)
        padding = [(0, grid.plane - length) for length in shown.hu.shape]
        numbers = {name: getattr(study, name) for name in ("height_m", "weight_kg", "age", "followup_days", "event")}
        return {
            "image": torch.from_numpy(grid.windowed(image))[None],
            "hu": torch.from_numpy(np.pad(shown.hu, padding, constant_values=AIR)).float(),
            "label": torch.from_numpy(np.pad(shown.label, padding)).long(),
            "mapping": torch.from_numpy(shown.mapping(grid.spacing_mm, grid.size)).float(),
            "pixel_area_cm2": torch.tensor(shown.pixel_area_cm2, dtype=torch.float32),
            "reference_area_cm2": torch.from_numpy(plane.areas_cm2()).float(),
            "sex": torch.tensor(study.sex),
            **{name: torch.tensor(value, dtype=torch.float32) for name, value in numbers.items()},
            "index": torch.tensor(row),
            "person": torch.tensor(row),
        }


def augmentation(strength: float, size: int) -> Callable[..., Any]:
    """MONAI transforms of `image` and `label`: what differs between patients, tables, scanners and kernels."""
    both = ["image", "label"]
    shift = 0.06 * size * strength
    move = transforms.RandAffined(
        both, prob=0.8, rotate_range=0.12 * strength, scale_range=0.12 * strength, translate_range=(shift, shift),
        mode=("bilinear", "nearest"), padding_mode="border",
    )  # fmt: skip
    return transforms.Compose(
        [
            transforms.RandFlipd(both, prob=0.5, spatial_axis=1),
            move,
            transforms.RandScaleIntensityd("image", factors=0.1 * strength, prob=0.5),
            transforms.RandShiftIntensityd("image", offsets=0.06 * strength, prob=0.5),
            transforms.RandGaussianSmoothd(
                "image", sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), prob=0.2 * min(strength, 1)
            ),
            transforms.RandGaussianNoised("image", std=0.06 * strength, prob=0.5),
        ]
    )
