"""How values become a network's input: clipped to agreed percentiles (CT), each image by itself (MR), by a range.

These are nnU-Net's rules. Source: Isensee F et al., Nat Methods 2021;18:203-211 (nnU-Net).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RANGED = "monai.transforms.ScaleIntensityRanged"
LEAST_DEVIATION = 1e-6  # keeps an image of one value finite

FITTED = {
    "dataset.intensity": (
        "percentiles of the structures over all sites",
        "declare the values that the network tells apart: "
        "{_target_: datamodules.segmentation.intensity.Range, low: -160, high: 240}",
    )
}
"""By key, what prepares the scans and is computed from them, and how to do without."""


class Intensity(Protocol):
    """What the dataset asks of a rule: what is kept of an image, and what the network sees of that."""

    agreed: bool

    def settings(self) -> dict[str, Any]:
        """What tells the kept images of two rules apart."""

    def kept(self, values: Floats) -> NDArray[Any]:
        """An image as it is kept, before anything is agreed."""

    def outside(self, kept: NDArray[Any]) -> float:
        """The kept value of what lies beyond an image."""

    def histogram(self, values: Floats) -> NDArray[np.float64]:
        """Share of voxels by bin; empty for a rule that agrees nothing."""

    def agree(self, mass: NDArray[np.float64]) -> None:
        """Take the histogram over all sites."""

    def seen(self, kept: NDArray[Any]) -> Floats:
        """Kept values as the network sees them."""

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """`seen` of `kept`, as transforms in a MONAI Bundle."""


class Percentiles:
    """CT: clipped to two percentiles of the voxels of structures, over all sites; then (value - mean) / deviation.

    They are worked out from a histogram in which each person counts as 1, so that its bins bound their error: a
    percentile is off by at most a bin.

    Args:
        low, high: percentiles to clip to, %.
        span: lowest and highest HU of the histogram; values beyond are in its first and last bin.
        bin_hu: width of its bins, HU.
    """

    agreed = True

    def __init__(
        self, low: float = 0.5, high: float = 99.5, span: Sequence[float] = (-1024.0, 3072.0), bin_hu: float = 4.0
    ) -> None:
        if not (0 <= low < high <= 100 and span[0] < span[1] and 0 < bin_hu <= span[1] - span[0]):
            raise ValueError(
                "dataset.intensity: low below high, percentiles of 0 to 100; span [low, high]; bin_hu above 0"
            )
        self.low, self.high = low, high
        self.edges = np.append(np.arange(span[0], span[1], bin_hu), span[1])
        self.window, self.mean, self.deviation = (float(span[0]), float(span[1])), 0.0, 1.0

    def settings(self) -> dict[str, Any]:
        """The bins: the percentiles are of the network's side."""
        return {"edges": self.edges.tolist()}

    def kept(self, values: Floats) -> NDArray[np.int16]:
        """Whole HU."""
        return np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int16)

    def outside(self, kept: NDArray[Any]) -> float:
        """Air."""
        return -1024.0

    def histogram(self, values: Floats) -> NDArray[np.float64]:
        """Share of the voxels by bin; 0 in each without a voxel."""
        bins = np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, len(self.edges) - 2)
        return np.bincount(bins, minlength=len(self.edges) - 1) / max(len(values), 1)

    def agree(self, mass: NDArray[np.float64]) -> None:
        """Percentiles, mean and deviation of a histogram. Raises ValueError for an empty one."""
        total = mass.sum()
        if not total > 0:
            raise ValueError(
                "dataset.intensity: no site tells the HU of its structures (too few persons, or none is marked); "
                "declare a range instead: datamodules.segmentation.intensity.Range"
            )
        below = np.append(0, np.cumsum(mass)) / total
        low, high = np.interp([self.low / 100, self.high / 100], below, self.edges)
        centers = (self.edges[1:] + self.edges[:-1]) / 2
        self.mean = float((mass * centers).sum() / total)
        self.deviation = float(np.sqrt((mass * (centers - self.mean) ** 2).sum() / total)) or 1.0
        self.window = (float(low), float(high))

    def seen(self, kept: NDArray[Any]) -> Floats:
        """Clipped and standardized."""
        return ((np.clip(kept.astype(np.float32), *self.window) - self.mean) / self.deviation).astype(np.float32)

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """Rounded to whole HU, clipped and standardized."""
        low, high = self.window
        ends = {"b_min": (low - self.mean) / self.deviation, "b_max": (high - self.mean) / self.deviation}
        whole = {"_target_": "torch.round", "_mode_": "callable"}
        return [
            {"_target_": "monai.transforms.Lambdad", "keys": keys, "func": whole},
            {"_target_": RANGED, "keys": keys, "a_min": low, "a_max": high, **ends, "clip": True},
        ]


def foreground_of(
    shares: NDArray[np.float64], person: Sequence[int], minimum_cell: int
) -> tuple[NDArray[np.float64], int]:
    """The histograms of scans, [n, bins], as one in which each person counts as 1, [bins]; and how many persons each
    bin rests on at least, of those that are not empty.

    A bin in which fewer than `minimum_cell` persons have a voxel goes into the next one, the last ones back.
    """
    persons, code = np.unique(np.asarray(person, np.int64), return_inverse=True)
    by_person = np.zeros((len(persons), shares.shape[-1]))
    if len(persons):
        np.add.at(by_person, code, shares / np.bincount(code)[code, None])
    parts, carried = list[tuple[int, NDArray[np.float64]]](), np.zeros(len(persons))
    for index, of_bin in enumerate(by_person.T):
        carried = carried + of_bin
        if np.count_nonzero(carried) >= max(minimum_cell, 1):
            parts.append((index, carried))
            carried = np.zeros(len(persons))
    if parts:
        parts[-1] = (parts[-1][0], parts[-1][1] + carried)
    mass = np.zeros(by_person.shape[1])
    for index, part in parts:
        mass[index] = part.sum()
    return mass, min((int(np.count_nonzero(part)) for _, part in parts), default=0)


class _Alone:
    """A rule by which each image is scaled alone, and nothing is agreed."""

    agreed = False

    def histogram(self, values: Floats) -> NDArray[np.float64]:
        """None."""
        return np.zeros(0)

    def agree(self, mass: NDArray[np.float64]) -> None:
        """Nothing is agreed."""

    def seen(self, kept: NDArray[Any]) -> Floats:
        """As kept."""
        return kept.astype(np.float32)


class Standardized(_Alone):
    """MR, whose values have no unit: (value - mean) / deviation, of each image by itself."""

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """The same code: MONAI's NormalizeIntensity sums in single precision, which moves the last bit of half."""
        return [{"_target_": "datamodules.segmentation.bundle.Standardizedd", "keys": keys}]

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def kept(self, values: Floats) -> NDArray[np.float16]:
        """Standardized."""
        mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        return ((values - mean) / max(deviation, LEAST_DEVIATION)).astype(np.float16)

    def outside(self, kept: NDArray[Any]) -> float:
        """The image's lowest value."""
        return float(kept.min())


class Range(_Alone):
    """Pictures, or anything of a known unit: from the lowest to the highest value as -1 to 1, or as `to`.

    Args:
        low, high: the values; of pictures 0 and 255, of CT for example -160 and 240 HU.
        to: what they become, as a network that was trained elsewhere has them.
    """

    def __init__(self, low: float = 0.0, high: float = 255.0, to: Sequence[float] = (-1.0, 1.0)) -> None:
        if not low < high:
            raise ValueError(f"dataset.intensity: low={low:g} must be below high={high:g}")
        if len(to) != 2 or not to[0] < to[1]:
            raise ValueError(f"dataset.intensity.to={list(to)}: must be two numbers, the lower first, as [0, 1]")
        self.low, self.high, self.to = low, high, (float(to[0]), float(to[1]))

    def settings(self) -> dict[str, Any]:
        """The range."""
        return {"low": self.low, "high": self.high, "to": list(self.to)}

    def kept(self, values: Floats) -> NDArray[np.float16]:
        """Within the range, as -1 to 1, or as `to`."""
        scale = (self.to[1] - self.to[0]) / (self.high - self.low)
        return ((np.clip(values, self.low, self.high) - self.low) * scale + self.to[0]).astype(np.float16)

    def outside(self, kept: NDArray[Any]) -> float:
        """The lowest: air, or black."""
        return self.to[0]

    def as_transforms(self, keys: str) -> list[Mapping[str, Any]]:
        """The same code, whose rounding to half MONAI's ScaleIntensityRange does not share."""
        return [{"_target_": "datamodules.segmentation.bundle.Ranged", "keys": keys, **self.settings()}]
