"""A volume that is drawn into: HU by share of each voxel, and which structure each voxel belongs to.

Body coordinates are mm with the origin in the center of L3's body: x to the patient's left, y to the back, z to the
head. `x` and `y` are also known relative to the spine, whose curve is what scoliosis bends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]

AIR = -1000.0
STRUCTURES = (
    "muscle", "subcutaneous_fat", "visceral_fat", "vertebra_L1", "vertebra_L2", "vertebra_L3", "vertebra_L4",
    "vertebra_L5", "liver", "spleen", "kidneys",
)  # fmt: skip
"""In the order of their numbers, which begin at 1; 0 is anything else."""
NUMBERS = {name: number for number, name in enumerate(STRUCTURES, start=1)}
OTHER = 0


@dataclass(frozen=True)
class Ellipsoid:
    """Center and half axes in mm, `turn` about z in radian, `power` 2 or more for boxier."""

    center: tuple[float, float, float]
    axes: tuple[float, float, float]
    turn: float = 0.0
    power: float = 2.0


class Board:
    """A grid (slice, row, column), feet to head, front to back, right to left.

    Args:
        x, y, z: body coordinates of columns, rows and slices, mm.
        curve: by height, how far the spine lies to the left and to the back of L3's center, and its slopes, [z, 4].
        rng: of the texture.
    """

    def __init__(self, x: Floats, y: Floats, z: Floats, curve: Floats, rng: np.random.Generator) -> None:
        self.x, self.y, self.z = x[None, None], y[None, :, None], z[:, None, None]
        self.spine_x, self.spine_y = (self.x - curve[:, 0, None, None]), (self.y - curve[:, 1, None, None])
        # Vertebrae stand across the curve: their planes tilt with it.
        self.spine_z = self.z + curve[:, 2, None, None] * self.spine_x + curve[:, 3, None, None] * self.spine_y
        shape = (len(z), len(y), len(x))
        self.edge = float(x[1] - x[0]), float(z[1] - z[0])
        self.hu = np.full(shape, AIR, np.float32)
        self.part = np.zeros(shape, np.uint8)
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.0)
        self.texture: Floats = noise / noise.std()

    def fill(self, depth: Floats, hu: float, part: int, box: Box | None = None, grain: float = 5.0) -> None:
        """Paint where `depth` (mm inside of a surface) is positive; HU by the share that a voxel has of it."""
        box = box or (slice(None),) * 3  # type: ignore[assignment]
        share = np.clip(depth / self.edge[0] + 0.5, 0, 1).astype(np.float32)
        old = self.hu[box]
        old += share * (hu + grain * self.texture[box] - old)
        self.part[box][share > 0.5] = part

    def ellipsoid(self, shape: Ellipsoid, *, spine: bool = True) -> tuple[Box, Floats]:
        """A box about it, and how far inside of it each voxel of the box lies, about mm."""
        x, y = (self.spine_x, self.spine_y) if spine else (self.x, self.y)
        reach = 1.1 * max(shape.axes[:2]) + 2 * self.edge[0]
        box = (
            _near(self.z[:, 0, 0], shape.center[2], shape.axes[2] + 2 * self.edge[1]),
            slice(None),
            slice(None),
        )
        here_x, here_y = x[box[0]] if len(x) > 1 else x, y[box[0]] if len(y) > 1 else y
        columns = np.flatnonzero((np.abs(here_x - shape.center[0]) < reach).any(axis=(0, 1)))
        rows = np.flatnonzero((np.abs(here_y - shape.center[1]) < reach).any(axis=(0, 2)))
        box = box[0], _span(rows), _span(columns)
        u = here_x[:, :, box[2]] - np.float32(shape.center[0])
        v = here_y[:, box[1]] - np.float32(shape.center[1])
        w = (self.z[box[0]] - np.float32(shape.center[2])) / np.float32(shape.axes[2])
        cos, sin = np.float32(np.cos(shape.turn)), np.float32(np.sin(shape.turn))
        p, q = (cos * u + sin * v) / np.float32(shape.axes[0]), (cos * v - sin * u) / np.float32(shape.axes[1])
        power = np.float32(shape.power)
        rho = (np.abs(p) ** power + np.abs(q) ** power + np.abs(w) ** power) ** (1 / power)
        return box, ((1 - rho) * np.float32(min(shape.axes))).astype(np.float32)

    def organ(self, shapes: Sequence[Ellipsoid], inside: Floats, hu: float, part: int = OTHER) -> None:
        """Paint ellipsoids as one thing, where `inside` (depth of the cavity, mm) lets them lie."""
        for shape in shapes:
            box, depth = self.ellipsoid(shape, spine=False)
            self.fill(np.minimum(depth, inside[box]), hu, part, box)


def _near(places: Floats, middle: float, reach: float) -> slice:
    return _span(np.flatnonzero(np.abs(places - middle) < reach))


def _span(found: NDArray[np.int64]) -> slice:
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
