"""The SYNTHETIC scanner: from a drawn body to the HU that a site would have stored, and the ground truth beside them.

Planes are drawn at twice the pixels and at the borders of the slices; a slice is the mean of its two borders and of
2 x 2 pixels, which is where partial volume comes from. Then come the kernel (blur, edge enhancement) and noise that is
correlated as the kernel would have it, grows with the size of the patient and is strongest in the middle.

Truth follows the field's convention: a voxel is muscle where a muscle's compartment has the largest share of it
**and** its HU, as stored, is in -29..150 (so streaks of fat inside a muscle are not muscle). Subcutaneous fat is the
same with -190..-30, visceral fat with -150..-50: Mourtzakis et al., Appl Physiol Nutr Metab 2008;33:997-1006. The
vertebra is all of its bone (body, arch, processes), whatever its HU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.phantom.anatomy import Body
from datamodules.phantom.canvas import MUSCLE, NOTHING, SUBCUTANEOUS, VERTEBRA, VISCERAL, Canvas, Floats
from datamodules.phantom.organs import Organs
from datamodules.phantom.sites import Person, SiteProfile

# Segment label in the file -> compartment, lowest and highest HU. The order is that of the segments.
SEGMENTS: dict[str, tuple[int, float, float]] = {
    "skeletal_muscle": (MUSCLE, -29, 150),
    "subcutaneous_fat": (SUBCUTANEOUS, -190, -30),
    "visceral_fat": (VISCERAL, -150, -50),
    "vertebra_L3": (VERTEBRA, -math.inf, math.inf),
}
_OVERSAMPLE = 2


@dataclass(frozen=True)
class Scan:
    """`hu` (slice, row, column) int16, from head to feet; `masks` (segment, slice, row, column) in the order of
    `SEGMENTS`; `heights` of the slices above the middle of L3 and `spacing` of the pixels, mm."""

    hu: NDArray[np.int16]
    masks: NDArray[np.bool_]
    heights: list[float]
    spacing: float

    def muscle_cm2(self) -> float:
        """Area of skeletal muscle in the slice nearest to the middle of L3."""
        middle = int(np.argmin(np.abs(self.heights)))
        return float(self.masks[0, middle].sum()) * self.spacing**2 / 100


def scan(person: Person, profile: SiteProfile, seed: int, rng: np.random.Generator) -> Scan:
    """Draw a person and scan it. All randomness is from `rng`, but for the textures, which are from `seed`."""
    body = Body(person.physique, profile.contrast, profile.energy, rng)
    organs = Organs(body, profile.contrast, profile.oral, rng)
    field = 10 * math.ceil((2 * max(body.half_width, body.half_depth + 15) + 2 * profile.margin) / 10)
    shift, rotation = rng.normal(0, 5, 2), float(rng.normal(0, 0.03))
    start = tuple(int(v) for v in rng.integers(0, 512, 3))
    middle = (float(shift[0]), float(body.middle + shift[1]))

    def canvas(pixels: int) -> Canvas:
        return Canvas(pixels, field / pixels, middle, rotation, seed, (start[0], start[1], start[2]))

    _fit_muscle(body, canvas(profile.pixels))
    top = (profile.slices - 1) / 2 * profile.thickness + float(rng.uniform(-1, 1))
    heights = [top - k * profile.thickness for k in range(profile.slices)]
    hu, shares = _planes(body, organs, canvas(profile.pixels * _OVERSAMPLE), profile, heights)
    stored = _reconstruct(hu, body, profile, rng)
    owner = _largest(shares, rng)
    masks = np.stack([(owner == part) & (stored >= low) & (stored <= high) for part, low, high in SEGMENTS.values()])
    return Scan(stored, masks, heights, field / profile.pixels)


def _largest(shares: dict[int, Floats], rng: np.random.Generator) -> NDArray[np.int64]:
    """The compartment with the largest share of each voxel; equal shares are drawn for, so that no area is biased."""
    nothing = 1 - np.sum(list(shares.values()), axis=0)
    stack = np.stack([nothing, *(shares[part] for part in sorted(shares))])
    stack += np.float32(1e-3) * rng.random(stack.shape, dtype=np.float32)
    owner: NDArray[np.int64] = np.asarray([NOTHING, *sorted(shares)])[stack.argmax(axis=0)]
    return owner


def _fit_muscle(body: Body, canvas: Canvas) -> None:
    """Scale the muscles so that the middle of L3 shows the wanted area."""
    body.frame(canvas)
    for _ in range(3):
        canvas.clear(0)
        body.paint(canvas, 0.0)
        body.paint_deep(canvas, 0.0)
        # Streaks of fat and noise lose some of the compartment, narrow gaps between muscles that fill up win it back.
        area = float((canvas.part == MUSCLE).sum()) * canvas.spacing**2 / 100
        body.muscle = float(np.clip(body.muscle * (body.physique.muscle_cm2 / area) ** 0.95, 0.35, 2.2))


def _planes(
    body: Body, organs: Organs, canvas: Canvas, profile: SiteProfile, heights: list[float]
) -> tuple[Floats, dict[int, Floats]]:
    """Mean HU of each voxel before the scanner, and the share of each compartment in it."""
    size, count = profile.pixels, len(heights)
    parts = sorted({part for part, _, _ in SEGMENTS.values()})
    hu = np.zeros((count, size, size), np.float32)
    shares = {part: np.zeros((count, size, size), np.float32) for part in parts}
    body.frame(canvas)
    table = _table(canvas, body, profile.table)
    for border in range(count + 1):
        z = heights[0] + profile.thickness / 2 - border * profile.thickness
        canvas.clear(border)
        canvas.hu[table > 0] = table[table > 0] - 1000
        inside = body.paint(canvas, z)
        organs.paint(canvas, z, inside)
        body.paint_deep(canvas, z)
        mean = _pool(canvas.hu)
        share = {part: _pool((canvas.part == part).astype(np.float32)) for part in parts}
        for index in (border - 1, border):
            if 0 <= index < count:
                hu[index] += mean / 2
                for part in parts:
                    shares[part][index] += share[part] / 2
    return hu, shares


def _pool(plane: Floats) -> Floats:
    """The mean of 2 x 2 pixels."""
    return np.float32(0.25) * (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2])


def _table(canvas: Canvas, body: Body, kind: str) -> Floats:
    """The patient table, as HU + 1000 (0 is air): a shell of about 60 HU around foam of -900."""
    x, y = canvas.image_x, canvas.image_y
    back = body.middle + body.half_depth - canvas.center[1] + 3
    surface = back + 4 - x * x / 900 if kind == "curved" else np.full_like(x, back + 1)
    half = 205 if kind == "curved" else 230
    below = y - surface
    board = (below > 0) & (below < 26) & (np.abs(x) < half)
    shell = board & ((below < 4) | (below > 22))
    return np.where(shell, 1060, np.where(board, 100, 0)).astype(np.float32)


def _reconstruct(hu: Floats, body: Body, profile: SiteProfile, rng: np.random.Generator) -> NDArray[np.int16]:
    """Kernel, noise and calibration; integers from -1024 up, as scanners store them."""
    image = ndimage.gaussian_filter(hu, (0, profile.blur, profile.blur), truncate=3.0)
    if profile.sharpen:
        image += profile.sharpen * (image - ndimage.gaussian_filter(image, (0, 1.2, 1.2), truncate=3.0))
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, (0, profile.grain, profile.grain), mode="wrap", truncate=3.0)
    grain /= grain.std()
    axis = np.linspace(-1, 1, hu.shape[-1], dtype=np.float32)
    center = 1.15 - 0.45 * np.minimum(axis[:, None] ** 2 + axis[None, :] ** 2, 1)
    # Quantum noise: half as strong again for each 8 cm of water-like diameter.
    diameter = 2 * math.sqrt(body.half_width * body.half_depth)
    strength = profile.noise * float(np.clip(1.5 ** ((diameter - 280) / 80), 0.6, 1.8))
    image += grain * center * np.float32(strength) + np.float32(profile.offset)
    stored: NDArray[np.int16] = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return stored
