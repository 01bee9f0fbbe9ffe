"""The SYNTHETIC scan of a whole abdomen: field of view, table, metal and noise; and the truth beside it.

A voxel is of the structure that has half of it or more. As the field has it, muscle is also -29..150 HU as stored,
subcutaneous fat -190..-30, visceral fat -150..-50: Mourtzakis et al., Appl Physiol Nutr Metab 2008;33:997-1006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.phantom.abdomen.board import AIR, NUMBERS, STRUCTURES, Board, Floats
from datamodules.phantom.abdomen.frame import muscles, spine, trunk
from datamodules.phantom.abdomen.organs import organs
from datamodules.phantom.abdomen.patient import Patient, draw
from datamodules.phantom.abdomen.sites import VIEWS, AbdomenProfile
from datamodules.phantom.sites import Person, SiteProfile

WINDOWS = {"muscle": (-29, 150), "subcutaneous_fat": (-190, -30), "visceral_fat": (-150, -50)}
TOP, BOTTOM = 168.0, -222.0  # of a whole scan above L3's center, mm, of a person of 1.72 m: T10 to the hips


@dataclass(frozen=True)
class Finding:
    """What a scan is of: a word of `VIEWS`, prone or supine, how far the spine bends to a side (mm), metal or not."""

    view: str
    prone: bool
    scoliosis: bool
    metal: bool
    narrow: bool


@dataclass(frozen=True)
class AbdomenScan:
    """`hu` int16 (slice, row, column) from head to feet, as a patient on the back is seen; `masks` (structure, slice,
    row, column) in the order of `STRUCTURES`; `heights` of the slices above L3's center and `spacing` of the pixels,
    mm."""

    hu: NDArray[np.int16]
    masks: NDArray[np.bool_]
    heights: list[float]
    spacing: float
    prone: bool

    @property
    def sees_level(self) -> bool:
        """Whether L3's center lies between the first slice and the last."""
        return self.heights[-1] <= 0 <= self.heights[0]


def find(profile: AbdomenProfile, rng: np.random.Generator) -> Finding:
    """What a patient of a hospital has, by its shares."""
    view = str(rng.choice(VIEWS, p=profile.views))
    prone, scoliosis, metal, narrow = rng.random(4) < (profile.prone, profile.scoliosis, profile.metal, profile.narrow)
    return Finding(view, bool(prone), bool(scoliosis), bool(metal), bool(narrow))


def heights(view: str, size: float, thickness: float, rng: np.random.Generator) -> list[float]:
    """Heights of the slices, from head to feet, mm above L3's center; a view without L3 has none of its body."""
    top, bottom = TOP * size + rng.uniform(-12, 12), BOTTOM * size + rng.uniform(-12, 12)
    if view == "no_top":
        top = float(rng.uniform(32, 110)) * size
    if view == "no_bottom":
        bottom = -float(rng.uniform(32, 130)) * size
    if view == "above_l3":
        bottom = float(rng.uniform(22, 60)) * size
    if view == "below_l3":
        top = -float(rng.uniform(22, 60)) * size
    return [top - k * thickness for k in range(max(int((top - bottom) / thickness), 2))]


def scan(
    person: Person, profile: AbdomenProfile, finding: Finding, pixels: int, rng: np.random.Generator
) -> AbdomenScan:
    """Draw a person and scan it, `pixels` a side; all randomness is from `rng`."""
    patient = draw(person.physique, profile.scanner.contrast, scoliosis=finding.scoliosis, rng=rng)
    levels = heights(finding.view, patient.size, profile.scanner.thickness, rng)
    wide = 2 * (max(patient.half_width, patient.half_depth) + profile.scanner.margin) * (0.8 if finding.narrow else 1)
    spacing = 10 * math.ceil(wide / 10) / pixels
    shift, middle = rng.normal(0, 6, 2), 72 * patient.size - patient.half_depth
    axis = (np.arange(pixels) - (pixels - 1) / 2) * spacing
    z = np.array(levels[::-1], np.float32)
    x, y = (axis + shift[0]).astype(np.float32), (axis + middle + shift[1]).astype(np.float32)
    board = Board(x, y, z, patient.curve(z), rng)
    _table(board, patient, prone=finding.prone)
    cavity = trunk(board, patient, prone=finding.prone)
    muscles(board, patient)
    organs(board, patient, cavity)
    spine(board, patient)
    if finding.metal:
        _metal(board, patient, rng)
    stored = _reconstruct(board.hu, profile.scanner, patient, rng)
    masks = _truth(stored, board.part)
    return AbdomenScan(stored[::-1], masks[:, ::-1], levels, spacing, finding.prone)


def _truth(stored: NDArray[np.int16], part: NDArray[np.uint8]) -> NDArray[np.bool_]:
    masks = [part == NUMBERS[name] for name in STRUCTURES]
    for name, (low, high) in WINDOWS.items():
        masks[NUMBERS[name] - 1] &= (stored >= low) & (stored <= high)
    return np.stack(masks)


def _table(board: Board, patient: Patient, *, prone: bool) -> None:
    """A flat table of 60 HU around foam of -900, under the back or the belly."""
    back = 72 * patient.size + 4
    under = board.y - back if not prone else (back - 2 * patient.half_depth / 1.06 - 6) - board.y
    shell = np.minimum(np.minimum(under, 26 - under), 210 - np.abs(board.x)) + 0 * board.z
    board.fill(shell.astype(np.float32), -900, 0, grain=3)
    board.fill(np.minimum(shell, 4 - under).astype(np.float32), 60, 0, grain=3)


def _metal(board: Board, patient: Patient, rng: np.random.Generator) -> None:
    """Screws through a vertebra's pedicles, or a hip prosthesis, with bright and dark streaks in their slices."""
    size = patient.size
    hip = rng.random() < 0.4
    level = -232 * size if hip else float(np.mean(patient.levels[str(rng.choice(["L2", "L3", "L4", "L5"]))]))
    reach = 24.0 if hip else 5.0
    places = [(88 * size, -4.0)] if hip else [(side * 15 * size, 8 * size) for side in (-1.0, 1.0)]
    near = np.exp(-(((board.z - level) / (reach + 4)) ** 2))
    for x, y in places:
        # A metal has no compartment of its own; a vertebra that it goes through stays one.
        aside, back = board.spine_x - x, board.spine_y - y
        streaks = 70 * np.cos(9 * np.arctan2(back, aside)) * np.exp(-np.hypot(aside, back) / 60) * near
        board.hu += np.where(board.hu > -900, streaks, 0).astype(np.float32)
        rho = np.sqrt(aside**2 + (back / (1 if hip else 4)) ** 2 + (board.z - level) ** 2)
        board.hu[rho < reach] = 3000


def _reconstruct(hu: Floats, scanner: SiteProfile, patient: Patient, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur, noise and calibration; whole HU from -1024 up."""
    image = ndimage.gaussian_filter(hu, (0.25, scanner.blur, scanner.blur), truncate=3.0)
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.5, 0.5), truncate=3.0)
    strength = 0.8 * scanner.noise * float(np.clip(1.5 ** ((2 * patient.half_depth - 210) / 80), 0.6, 1.8))
    image += grain / grain.std() * np.float32(strength) + np.float32(scanner.offset)
    return np.clip(np.rint(np.maximum(image, AIR - 24)), -1024, 3071).astype(np.int16)
