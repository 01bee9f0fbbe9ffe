"""Scans as tensors: stretches of them to train on, as scanners' fields of view differ, and whole ones to be scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from datamodules.levels.stretching import Stretching

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """A scan's pictures float32 [2, rows, width], the row of the level, NaN where it is not in the scan, the height of
    a row in mm, and what batches say of the scan."""

    views: Floats
    level: float
    step_mm: float
    beside: Mapping[str, int]


class Stretches(Dataset[dict[str, Tensor]]):
    """Parts of scans between two heights, `each` of a scan in a row, on `rows` rows: what is beyond is not `inside`.

    Their ends are drawn anew each time: a field of view begins anywhere between T10 and the pelvis, and a scan that
    shows the level is, cut beyond it, one that does not. A share `absent` of the stretches is cut so, where at least
    `least` rows are left. A level is no nearer to a cut than `clear` rows, where nobody could say which it is.
    """

    def __init__(self, scans: Sequence[Pictures], stretching: Stretching, step_mm: float) -> None:
        self.scans, self.each = scans, stretching.each
        self.absent, self.augment = stretching.absent, stretching.augment
        self.rows, self.least = round(stretching.length_mm / step_mm), round(stretching.least_mm / step_mm)
        self.clear = stretching.clear_mm / step_mm

    def __len__(self) -> int:
        return len(self.scans) * self.each

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan = self.scans[index // self.each]
        # Seeded from torch's global generator at each item, all that is drawn is a function of the seed that the caller
        # has set for the fit, in this process and in a loader's worker.
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        first, end = self._ends(len(scan.views[0]), scan.level, rng)
        views, level = scan.views[:, first:end], scan.level - first
        if not 0 <= level <= end - first - 1:
            level = math.nan
        if self.augment:
            views, level = altered(views, level, self.augment, rng)
        return tensors(views[:, : self.rows], level if level <= self.rows - 1 else math.nan, scan, self.rows)

    def _ends(self, length: int, level: float, rng: np.random.Generator) -> tuple[int, int]:
        """The first row of a stretch and the one after its last."""
        most = min(self.rows, length)
        if math.isnan(level):
            return _part(0, length, min(self.least, most), most, rng)
        below, above = math.floor(level - self.clear), math.ceil(level + self.clear) + 1
        sides = [side for side in ((0, below), (above, length)) if side[1] - side[0] >= self.least]
        if sides and rng.random() < self.absent:
            start, end = sides[rng.integers(len(sides))]
            return _part(start, end, self.least, most, rng)
        if rng.random() < 0.3 and length <= self.rows:
            return 0, length
        first = int(rng.integers(max(below, 0) + 1)) if below > 0 else 0
        end = int(rng.integers(min(above, length), length + 1))
        first, end = min(first, max(end - self.least, 0)), max(end, min(first + self.least, length))
        if end - first > self.rows:  # the level stays in
            first = int(np.clip(round(level) - rng.integers(self.rows), first, end - self.rows))
            end = first + self.rows
        return first, end


def _part(start: int, stop: int, least: int, most: int, rng: np.random.Generator) -> tuple[int, int]:
    """A part of `start` to `stop` of a length between `least` and `most`."""
    length = int(rng.integers(min(least, stop - start), min(most, stop - start) + 1))
    first = int(rng.integers(start, stop - length + 1))
    return first, first + length


def altered(views: Floats, level: float, strength: float, rng: np.random.Generator) -> tuple[Floats, float]:
    """Pictures and level with what differs between patients, scanners and how patients lie: size, place, lean, mirror,
    contrast and noise."""
    length, width = views.shape[1:]
    tall, wide = 1 + 0.12 * strength * rng.uniform(-1, 1, 2)
    rows = max(round(length * tall), 1)
    lean, move = 0.12 * strength * rng.uniform(-1, 1, 2), 8 * strength * rng.uniform(-1, 1, 2)
    along, across = torch.linspace(-1, 1, rows), torch.linspace(-1, 1, width)
    made = []
    for view, slope, shift in zip(torch.from_numpy(np.ascontiguousarray(views)), lean, move, strict=True):
        places = across[None] / wide + 2 * shift / width + slope * along[:, None] * rows / width
        grid = torch.stack([places, along[:, None].expand(-1, width)], -1)
        made.append(functional.grid_sample(view[None, None], grid[None].float(), align_corners=True)[0, 0].numpy())
    if rng.random() < 0.5:
        made[0] = made[0][:, ::-1]
    gain, offset = 1 + 0.25 * strength * rng.uniform(-1, 1), 0.06 * strength * rng.uniform(-1, 1)
    found = np.stack(made) * gain + offset + rng.normal(0, 0.03 * strength * rng.random(), (2, rows, width))
    scale = (rows - 1) / max(length - 1, 1)
    return np.clip(found, 0, 1).astype(np.float32), level * scale


class Wholes(Dataset[dict[str, Tensor]]):
    """Whole scans, in as many rows as each has."""

    def __init__(self, scans: Sequence[Pictures]) -> None:
        self.scans = scans

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan = self.scans[index]
        return tensors(scan.views, scan.level, scan, scan.views.shape[1])


def tensors(views: Floats, level: float, scan: Pictures, rows: int) -> dict[str, Tensor]:
    """An example: pictures on so many rows, of which those of the scan are `inside`."""
    image, inside = torch.zeros(2, rows, views.shape[2]), torch.zeros(rows, dtype=torch.bool)
    image[:, : views.shape[1]] = torch.from_numpy(np.ascontiguousarray(views))
    inside[: views.shape[1]] = True
    numbers = {"level": torch.tensor(level), "step_mm": torch.tensor(scan.step_mm)}
    others = {name: torch.tensor(number) for name, number in scan.beside.items()}
    return {"image": image, "inside": inside, **{name: each.float() for name, each in numbers.items()}, **others}
