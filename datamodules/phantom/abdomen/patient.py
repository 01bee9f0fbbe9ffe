"""One SYNTHETIC patient: size, spine, and where the organs lie; all that differs between patients, drawn once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.phantom.abdomen.board import Floats
from datamodules.phantom.anatomy import Contrast, Physique

# Height of a vertebra with the disc below it, mm, of a person of 1.72 m.
LEVELS = {"T10": 28, "T11": 29, "T12": 31, "L1": 33, "L2": 35, "L3": 36, "L4": 37, "L5": 36}
DISC = 0.24  # share of it that is the disc


@dataclass(frozen=True)
class Patient:
    """Lengths in mm, angles in radian. `levels`: by vertebra its lowest and highest z, disc not included. `jitter`:
    how far organs lie from their usual place, rows liver, spleen, left and right kidney, stomach; columns x, y, z."""

    physique: Physique
    contrast: Contrast
    size: float
    levels: dict[str, tuple[float, float]]
    bend: float
    bend_length: float
    bend_phase: float
    half_width: float
    half_depth: float
    fat: float
    wall: float
    muscle: float
    muscle_hu: float
    dome: float
    jitter: NDArray[np.float64]
    growth: NDArray[np.float64]
    organ_hu: NDArray[np.float64]
    bowel_seed: int

    def curve(self, z: Floats) -> Floats:
        """[z, 4]: the spine's place to the left and to the back, mm, and the slopes of both; 0 at L3's center."""
        turn = z / self.bend_length + self.bend_phase
        left = self.bend * (np.sin(turn) - math.sin(self.bend_phase))
        slope = self.bend / self.bend_length * np.cos(turn)
        scale = np.where(z > 0, 28 / 200**2, 16 / 110**2)  # lordosis: L3 lies farthest to the front
        back, leans = scale * z * z, 2 * scale * z
        return np.stack([left, back, slope, leans], axis=1).astype(np.float32)


def draw(physique: Physique, contrast: Contrast, *, scoliosis: bool, rng: np.random.Generator) -> Patient:
    """A patient of a physique. With `scoliosis` the spine bends by 12 to 28 mm to a side, else by 4 at most."""
    size = float(physique.height_m / 1.72 * rng.normal(1, 0.02))
    over = physique.bmi - 24
    half_width = (146 if physique.male else 136) * size + 3.2 * over + rng.normal(0, 4)
    half_depth = (98 if physique.male else 88) * size + 3.0 * over + rng.normal(0, 4)
    fat = max((12 + 1.3 * over if physique.male else 19 + 1.7 * over) * rng.lognormal(0, 0.15), 5.0)
    strength = math.sqrt(physique.muscle_cm2 / (160 if physique.male else 110)) * (1 if physique.male else 0.88)
    bend = float(rng.uniform(12, 28) if scoliosis else rng.uniform(0, 4)) * (1 if rng.random() < 0.5 else -1)
    return Patient(
        physique=physique,
        contrast=contrast,
        size=size,
        levels=_levels(size, rng),
        bend=bend,
        bend_length=float(rng.uniform(60, 95)),
        bend_phase=float(rng.uniform(-0.6, 0.6)),
        half_width=float(half_width),
        half_depth=float(half_depth),
        fat=float(fat),
        wall=float(np.clip(11 * strength * size, 6, 17)),
        muscle=float(np.clip(strength * size, 0.65, 1.35)),
        muscle_hu=float(54 - 0.25 * (physique.age - 60) - 0.6 * over + rng.normal(0, 5) + contrast.muscle),
        dome=float(rng.normal(158, 9) * size),
        jitter=rng.normal(0, 1, (5, 3)) * (5, 6, 11),
        growth=rng.lognormal(0, 0.09, 5),
        organ_hu=rng.normal(0, 7, 5),
        bowel_seed=int(rng.integers(2**31)),
    )


def _levels(size: float, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    heights = {name: height * size * rng.normal(1, 0.03) for name, height in LEVELS.items()}
    found, top = {}, 0.0
    names = list(LEVELS)
    for name in names[names.index("L3") :: -1]:
        bottom = top if name != "L3" else -heights[name] * (1 - DISC) / 2 - heights[name] * DISC
        top = bottom + heights[name]
        found[name] = (bottom + DISC * heights[name], top)
    bottom = found["L3"][0] - heights["L3"] * DISC
    for name in names[names.index("L3") + 1 :]:
        found[name] = (bottom - heights[name] * (1 - DISC), bottom)
        bottom -= heights[name]
    return found
