"""Biomarkers of body composition from one CT plane at the third lumbar vertebra, and published cut-offs of sarcopenia.

HU ranges of the tissues: Mourtzakis M et al., Appl Physiol Nutr Metab 2008;33:997-1006 (muscle -29 to 150, subcutaneous
fat -190 to -30, visceral fat -150 to -50).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

MUSCLE, SUBCUTANEOUS, VISCERAL, INTERMUSCULAR = 1, 2, 3, 4  # classes of a mask; 0 is anything else
MUSCLE_HU = (-29.0, 150.0)
FAT_HU = (-190.0, -30.0)
BETWEEN_MM = 5.0  # how far apart muscle may be for the fat in between to be intermuscular
FEMALE, MALE = 0, 1
RESEARCH_USE = "research use only, not a medical device"  # on every page and DICOM object; at most 64 characters


@dataclass(frozen=True)
class BodyComposition:
    """What one plane says of a person; a quantity of a tissue that is not there is 0, its density NaN.

    - `muscle_area_cm2`, `subcutaneous_fat_cm2`, `visceral_fat_cm2`: area of the mask, cm2.
    - `muscle_index`: skeletal muscle index, muscle area by the square of the height, cm2/m2.
    - `muscle_density_hu`: mean HU of those pixels of the muscle mask that are in -29..150.
    """

    muscle_area_cm2: float
    muscle_index: float
    muscle_density_hu: float
    subcutaneous_fat_cm2: float
    visceral_fat_cm2: float

    def as_row(self, prefix: str) -> dict[str, float]:
        """The quantities by name, each with a prefix."""
        return {f"{prefix}{field.name}": getattr(self, field.name) for field in fields(self)}


def measure(
    mask: NDArray[np.integer], hu: NDArray[np.floating], *, pixel_area_cm2: float, height_m: float
) -> BodyComposition:
    """Measure a plane.

    Args:
        mask: class of each pixel (row, column): 1 skeletal muscle, 2 subcutaneous, 3 visceral fat.
        hu: HU (row, column).
        pixel_area_cm2: area of a pixel, cm2.
        height_m: the person's height, m; NaN where unknown, and then so is the index.

    Raises ValueError for shapes that differ, and for an area or a height that is not positive.
    """
    if mask.shape != hu.shape:
        raise ValueError(f"mask {mask.shape} and HU {hu.shape} are not of the same plane")
    if not pixel_area_cm2 > 0 or height_m <= 0:
        raise ValueError("pixel_area_cm2 and height_m have to be positive")
    muscle, subcutaneous, visceral = (
        float((mask == tissue).sum()) * pixel_area_cm2 for tissue in (MUSCLE, SUBCUTANEOUS, VISCERAL)
    )
    dense = hu[(mask == MUSCLE) & (hu >= MUSCLE_HU[0]) & (hu <= MUSCLE_HU[1])]
    return BodyComposition(
        muscle_area_cm2=muscle,
        muscle_index=muscle / height_m**2,
        muscle_density_hu=float(dense.mean()) if dense.size else float("nan"),
        subcutaneous_fat_cm2=subcutaneous,
        visceral_fat_cm2=visceral,
    )


def with_intermuscular(
    mask: NDArray[np.integer], hu: NDArray[np.floating], spacing_mm: Sequence[float]
) -> NDArray[np.uint8]:
    """The mask with class 4 for intermuscular fat: of -190..-30 HU, of no other class, between muscle.

    HU: Mourtzakis 2008, as above. Between muscle is what a morphological closing by BETWEEN_MM adds to its mask; that
    definition is ours, since a mask of muscle does not draw its fascia. `spacing_mm`: (row, column), mm.
    """
    reach = [int(BETWEEN_MM / 2 / step) for step in spacing_mm]
    offsets = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disk = sum((offset * step) ** 2 for offset, step in zip(offsets, spacing_mm, strict=True)) <= (BETWEEN_MM / 2) ** 2
    muscle = np.pad(mask == MUSCLE, [(each, each) for each in reach])
    closed = ndimage.binary_closing(muscle, disk)[reach[0] : reach[0] + len(mask), reach[1] : reach[1] + mask.shape[1]]
    found = mask.astype(np.uint8)
    found[closed & (mask == 0) & (hu >= FAT_HU[0]) & (hu <= FAT_HU[1])] = INTERMUSCULAR
    return found


@dataclass(frozen=True)
class CutOff:
    """A published definition of sarcopenia: a skeletal muscle index at L3 (cm2/m2) below which muscle is low.

    `women`, `men`: the cut-offs; `heavy_men`: that of men with a body mass index of 25 kg/m2 and more, if another.
    """

    name: str
    source: str
    women: float
    men: float
    heavy_men: float | None = None

    def low(self, muscle_index: ArrayLike, sex: ArrayLike, bmi: ArrayLike) -> NDArray[np.float64]:
        """1 where muscle is low, 0 where it is not, NaN where a number that the definition needs is unknown.

        `sex` is 0 for women and 1 for men, `bmi` the body mass index in kg/m2.
        """
        index, who, mass = np.broadcast_arrays(*(np.asarray(value, float) for value in (muscle_index, sex, bmi)))
        limit = np.where(who == FEMALE, self.women, np.where(who == MALE, self.men, np.nan))
        if self.heavy_men is not None:
            of_men = np.where(np.isnan(mass), np.nan, np.where(mass >= 25, self.heavy_men, self.men))
            limit = np.where(who == MALE, of_men, limit)
        known = ~np.isnan(index) & ~np.isnan(limit)
        return np.where(known, (index < limit).astype(float), np.nan)


def prado_2008() -> CutOff:
    """Women 38.5, men 52.4 cm2/m2, by mortality of obese patients with cancer.

    Source: Prado CMM et al., Lancet Oncol 2008;9:629-635.
    """
    return CutOff("Prado 2008", "Prado CMM et al., Lancet Oncol 2008;9:629-635", women=38.5, men=52.4)


def martin_2013() -> CutOff:
    """Women 41, men 43, or 53 with a body mass index of 25 and more, by mortality of patients with cancer.

    Source: Martin L et al., J Clin Oncol 2013;31:1539-1547.
    """
    return CutOff(
        "Martin 2013", "Martin L et al., J Clin Oncol 2013;31:1539-1547", women=41.0, men=43.0, heavy_men=53.0
    )


def derstine_2018() -> CutOff:
    """Women 34.4, men 45.4 cm2/m2, two standard deviations below the mean of healthy adults aged 18 to 40.

    Source: Derstine BA et al., Sci Rep 2018;8:11369.
    """
    return CutOff("Derstine 2018", "Derstine BA et al., Sci Rep 2018;8:11369", women=34.4, men=45.4)


def body_mass_index(row: Mapping[str, float]) -> float:
    """Weight by the square of the height, kg/m2, of a row with `weight_kg` and `height_m`; NaN where one is unknown."""
    return float(row["weight_kg"]) / float(row["height_m"]) ** 2
