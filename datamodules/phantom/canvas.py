"""The drawing board of the synthetic CT phantom: a pixel grid in body coordinates, implicit shapes, noise textures.

Everything drawn here is SYNTHETIC; see `datamodules.phantom`. Body coordinates are millimetres with the origin in the
center of the third lumbar vertebral body: x to the patient's left, y to the back, z to the head (the DICOM axes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Box = tuple[slice, slice]
Wave = tuple[float, float, float, float]

AIR = -1000.0
# Compartments of the ground truth, painted beside the HU.
NOTHING, MUSCLE, SUBCUTANEOUS, VISCERAL, VERTEBRA = range(5)

_TILE = 512
_DEPTH = 16


@lru_cache(maxsize=12)
def texture(seed: int, sigma: int) -> Floats:
    """A periodic block of smooth noise, (16, 512, 512), mean 0 and variance 1, correlated over `sigma` pixels."""
    rng = np.random.default_rng([seed, sigma])
    noise = rng.standard_normal((_DEPTH, _TILE, _TILE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, (1.2, sigma, sigma), mode="wrap", truncate=3.0)
    block: Floats = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    return block


@dataclass(frozen=True)
class Shape:
    """A closed outline, a superellipse with random harmonics, that moves and deforms smoothly along z.

    `x, y, a, b` in mm (center and half axes), `angle` in radian, `power` 2 is an ellipse and more is boxier, `drift`
    is the movement of the center in mm per mm of z, `waves` rows of (order, amplitude, phase, phase per mm of z).
    """

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    power: float = 2.0
    drift: tuple[float, float] = (0.0, 0.0)
    waves: Sequence[Wave] = ()

    @staticmethod
    def waver(rng: np.random.Generator, amplitude: float, orders: Sequence[int] = (2, 3, 4)) -> list[Wave]:
        """Random harmonics for an outline: relative amplitude falls with the order."""
        return [
            (
                k,
                amplitude * float(rng.normal()) / math.sqrt(k),
                float(rng.uniform(0, 2 * math.pi)),
                float(rng.normal(0, 0.02)),
            )
            for k in orders
        ]


@dataclass
class Canvas:
    """One plane: `hu` and `part` (compartment), both (size, size), and where each pixel lies in the body.

    Args:
        size: pixels per side.
        spacing: mm per pixel.
        center: body coordinates (x, y) of the middle of the image, mm.
        rotation: of the patient on the table, radian.
        seed: of the textures.
        offset: where in the texture blocks this patient starts (plane, row, column).
    """

    size: int
    spacing: float
    center: tuple[float, float]
    rotation: float
    seed: int
    offset: tuple[int, int, int]
    hu: Floats = field(init=False)
    part: NDArray[np.uint8] = field(init=False)
    plane: int = 0

    def __post_init__(self) -> None:
        axis = ((np.arange(self.size) - (self.size - 1) / 2) * self.spacing).astype(np.float32)
        cos, sin = np.float32(math.cos(self.rotation)), np.float32(math.sin(self.rotation))
        self.image_x, self.image_y = np.meshgrid(axis, axis)
        self.x = cos * self.image_x + sin * self.image_y + np.float32(self.center[0])
        self.y = -sin * self.image_x + cos * self.image_y + np.float32(self.center[1])
        self.clear(0)

    def clear(self, plane: int) -> None:
        """Start plane number `plane` with air."""
        self.plane = plane
        self.hu = np.full((self.size, self.size), AIR, np.float32)
        self.part = np.zeros((self.size, self.size), np.uint8)

    def noise(self, sigma_mm: float, box: Box = (slice(None), slice(None)), shift: int = 0) -> Floats:
        """The patient's own smooth noise (variance 1) over `box`; `shift` picks an independent field."""
        # Whole pixels only, so that few blocks have to be made.
        block = texture(self.seed, max(1, round(sigma_mm / self.spacing)))
        rows, columns = (np.arange(self.size)[part] for part in box)
        k = (self.offset[0] + self.plane + 5 * shift) % _DEPTH
        at = (rows + self.offset[1] + 89 * shift) % _TILE, (columns + self.offset[2] + 157 * shift) % _TILE
        field: Floats = block[k][np.ix_(*at)]
        return field

    def box(self, x: float, y: float, reach: float) -> Box:
        """The part of the image within `reach` mm of a point of the body."""
        dx, dy = x - self.center[0], y - self.center[1]
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        column, row = cos * dx - sin * dy, sin * dx + cos * dy
        middle = (self.size - 1) / 2

        def span(value: float) -> slice:
            low = int((value - reach) / self.spacing + middle)
            high = int((value + reach) / self.spacing + middle) + 2
            return slice(min(max(low, 0), self.size), max(min(high, self.size), 0))

        return span(row), span(column)

    def depth(self, shape: Shape, z: float, grow: float = 1.0) -> tuple[Box, Floats]:
        """How far each pixel of a box around `shape` lies inside of it, about mm; negative is outside."""
        x, y = shape.x + shape.drift[0] * z, shape.y + shape.drift[1] * z
        box = self.box(x, y, 1.25 * grow * max(shape.a, shape.b) + 2)
        dx, dy = self.x[box] - np.float32(x), self.y[box] - np.float32(y)
        cos, sin = np.float32(math.cos(shape.angle)), np.float32(math.sin(shape.angle))
        u = (cos * dx + sin * dy) / np.float32(shape.a * grow)
        v = (cos * dy - sin * dx) / np.float32(shape.b * grow)
        if shape.power == 2.0:
            rho = np.sqrt(u * u + v * v)
        else:
            power = np.float32(shape.power)
            rho = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
        if shape.waves:
            phi = np.arctan2(v, u)
            outline = np.ones_like(phi)
            for order, amplitude, phase, turn in shape.waves:
                outline += np.float32(amplitude) * np.cos(np.float32(order) * phi + np.float32(phase + turn * z))
            rho = rho / np.maximum(outline, np.float32(0.5))
        return box, (1 - rho) * np.float32(min(shape.a, shape.b) * grow)

    def fill(self, box: Box, where: Bools, hu: float | np.float32 | Floats, part: int = NOTHING) -> None:
        """Paint the pixels of `box` that `where` selects: HU (one, or one per pixel of the box) and compartment."""
        np.copyto(self.hu[box], np.asarray(hu, np.float32), where=where)
        self.part[box][where] = part
