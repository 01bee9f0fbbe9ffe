"""The wall, muscles, fat and spine of the SYNTHETIC abdomen around L3; the organs are in `datamodules.phantom.organs`.

A body is drawn from nested outlines in polar coordinates about the middle of the abdomen: skin, subcutaneous fat, the
fascia, and within it the abdominal wall (oblique layers, a gap, the rectus, the linea alba) as a ring of varying
thickness. Behind a plane through the transverse processes lies the compartment of the back muscles. Psoas, erector
spinae, quadratus lumborum and the bones are implicit shapes. `Body.paint(canvas, z)` draws one plane.

Tissue HU without noise: fat -105 +- 8, lean muscle 62 at 50 years and .25 less a year (so that, with its fat and the
contrast medium, the label's mean runs from about 65 down to 20), fat streaks in muscle taking 2 to 25 % with age,
cortical bone 450 to 750, trabecular bone 190 at 50 years and 2 less a year.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.phantom.canvas import MUSCLE, SUBCUTANEOUS, VERTEBRA, VISCERAL, Bools, Box, Canvas, Floats, Shape

_BINS = 4096
_BACK = 27.0  # mm behind the vertebral center: the front of the compartment of the back muscles
_PITCH, _BODY_HALF = 38.0, 14.5  # mm: distance of two lumbar vertebrae, and half the height of one


@dataclass(frozen=True)
class Physique:
    """Who is drawn. `bmi` in kg/m2, `muscle_cm2` the wanted area of skeletal muscle in the middle of L3."""

    male: bool
    age: float
    height_m: float
    bmi: float
    muscle_cm2: float


@dataclass(frozen=True)
class Contrast:
    """HU that contrast medium adds by tissue, at 120 kVp; `phase` is its name in the DICOM header."""

    phase: str
    aorta: float = 0.0
    cava: float = 0.0
    kidney: float = 0.0
    liver: float = 0.0
    bowel: float = 0.0
    muscle: float = 0.0


class Body:
    """One person's wall, muscle, fat and spine, fixed by `rng`; `muscle` scales all muscle areas (1 as built)."""

    def __init__(self, physique: Physique, contrast: Contrast, energy: float, rng: np.random.Generator) -> None:
        self.physique, self.contrast, self.energy = physique, contrast, energy
        self.muscle = 1.0
        self._trunk(rng)
        self._composition(rng)
        self._spine(rng)
        self._wavers = {name: [Shape.waver(rng, 0.05) for _ in range(2)] for name in ("psoas", "erector", "quadratus")}
        self._jitter = {name: rng.normal(0, (1.5, 1.5, 0.06, 0.06), (2, 4)) for name in self._wavers}

    def _trunk(self, rng: np.random.Generator) -> None:
        """Outlines by angle about the middle of the abdomen: 0 is the front, positive to the patient's left."""
        p = self.physique
        over = p.bmi - 24
        front = (112 + 4.2 * over if p.male else 96 + 3.2 * over) + 0.25 * (p.age - 60) + rng.normal(0, 7)
        front, back = float(np.clip(front, 76, 170)), 74 * p.height_m / 1.72 + rng.normal(0, 2)
        self.middle = (back - front) / 2
        half_depth = (back + front) / 2
        half_width = 60 * p.height_m / 1.72 + 0.84 * half_depth + rng.normal(0, 4) - (0 if p.male else 4)
        self.turn = np.linspace(-math.pi, math.pi, _BINS, endpoint=False) + math.pi / _BINS
        power = rng.uniform(2.15, 2.6)
        sides = np.abs(np.sin(self.turn) / half_width) ** power + np.abs(np.cos(self.turn) / half_depth) ** power
        self.fascia = sides ** (-1 / power) * (1 + self._ripple(rng, 0.008))
        fat = (13 + 1.7 * over if p.male else 21 + 2.2 * over) * rng.lognormal(0, 0.15)
        fat = max(fat, 5.0)
        shape = 1 - 0.12 * np.cos(self.turn) + 0.12 * np.cos(2 * self.turn + rng.normal(0, 0.2))
        shape = shape + self._ripple(rng, 0.05)
        groove = 0.45 * fat * np.exp(-(((np.abs(self.turn) - math.pi) / 0.11) ** 2))
        self.fat = np.maximum(fat * shape - groove, 3.0)
        self.slope = rng.normal(0, (0.0006, 0.003), 2)  # relative growth of fascia and of fat per mm of z
        self.half_width = half_width + float(self.fat.max())
        self.half_depth = half_depth + float(self.fat.max())

    def _ripple(self, rng: np.random.Generator, amplitude: float) -> NDArray[np.float64]:
        total = np.zeros(_BINS)
        for k in range(2, 9):
            total += amplitude * rng.normal() / k * np.cos(k * self.turn + rng.uniform(0, 2 * math.pi))
        return total

    def _composition(self, rng: np.random.Generator) -> None:
        age = self.physique.age
        self.lean_hu = 62 - 0.25 * (age - 50) + rng.normal(0, 4) + self.contrast.muscle * self.energy
        self.streaks = float(np.clip((0.03 + 0.0022 * max(age - 45, 0)) * rng.lognormal(0, 0.35), 0.02, 0.25))
        self.fat_hu = -105 + rng.normal(0, 3) - 6 * (self.energy - 1)
        self.cortical = rng.uniform(450, 750) * self.energy
        self.trabecular = max(190 - 2.0 * (age - 50) + rng.normal(0, 25), 60) * self.energy
        self.alba = rng.uniform(3, 7) if self.physique.male else rng.uniform(4, 13)
        self.rectus = rng.uniform(54, 68) if self.physique.male else rng.uniform(46, 60)
        self.oblique_ripple = self._ripple(rng, 0.10)

    def _spine(self, rng: np.random.Generator) -> None:
        size = (1.0 if self.physique.male else 0.9) * self.physique.height_m / (1.76 if self.physique.male else 1.63)
        size *= rng.normal(1, 0.03)
        self.spine_size = size
        self.vertebra = Shape(0, 0, 25 * size, 17.5 * size, power=2.3, waves=Shape.waver(rng, 0.025))
        self.canal = Shape(0, 26.5 * size, 11.5 * size, 8.5 * size)
        self.arch = Shape(0, 28.5 * size, 18 * size, 14 * size, power=2.2)
        self.transverse = [
            Shape(s * 33 * size, 23 * size, 19 * size, 4.5 * size, angle=s * rng.normal(0.12, 0.08)) for s in (-1, 1)
        ]
        self.facets = [
            Shape(s * 19 * size, 34 * size, 8 * size, 9.5 * size, waves=Shape.waver(rng, 0.08)) for s in (-1, 1)
        ]
        self.spinous = Shape(rng.normal(0, 1), 49 * size, 4.2 * size, 15 * size)

    def _muscles(self) -> list[tuple[Shape, float]]:
        """Shapes of the deep muscles at the present scale, each with its share of the fat streaks."""
        root, size = math.sqrt(self.muscle), self.spine_size
        shapes: list[tuple[Shape, float]] = []
        build = {  # half axes, center, angle, drift outward along -z, share of streaks
            "quadratus": ((19 * root, 8 * root), (47 * size + 15 * root, 24.0 * size), 0.30, (0.10, 0.0), 0.9),
            "psoas": ((15.5 * root, 19.5 * root), (22.5 * size + 13.5 * root, 3.0), 0.25, (0.22, 0.1), 0.5),
            "erector": ((30 * root, 21.5 * root), (5 + 28 * root, 29 * size + 18.5 * root), -0.12, (0.0, 0.0), 1.8),
        }
        for name, ((a, b), (x, y), angle, (outward, down), share) in build.items():
            for index, side in enumerate((-1, 1)):
                dx, dy, da, db = self._jitter[name][index]
                center, drift = (side * x + dx, y + dy), (-side * outward, down)
                waves = self._wavers[name][index]
                shape = Shape(*center, a * (1 + da), b * (1 + db), side * angle, 2.3, drift=drift, waves=waves)
                shapes.append((shape, share))
        return shapes

    def _wall(self, fascia: Floats) -> tuple[Floats, Bools]:
        """Thickness of the wall's muscle by angle (mm), and where it is the layered oblique part."""
        step = 2 * math.pi / _BINS
        half = _BINS // 2
        right = np.cumsum(fascia[:half][::-1]) * step  # arc length from the front, mm
        arc = np.concatenate([right[::-1], np.cumsum(fascia[half:]) * step])
        behind = self.middle - fascia * np.cos(self.turn)  # y of the outline
        middle = self.alba + self.rectus / 2
        lens = 1 - np.abs((arc - middle) / (self.rectus / 2)) ** 3
        rectus = 10.5 * self.muscle * np.sqrt(np.maximum(lens, 0))
        start = self.alba + self.rectus + 7
        rise = np.clip((arc - start) / 40, 0, 1) ** 0.7 * np.clip((_BACK + 12 - behind) / 45, 0, 1) ** 0.6
        oblique = 19 * self.muscle * rise * (1 + self.oblique_ripple)
        return np.maximum(rectus, np.maximum(oblique, 0)).astype(np.float32), oblique > rectus

    def frame(self, canvas: Canvas) -> None:
        """Prepare what is the same in all planes of a canvas: angle and radius of each pixel."""
        dx, dy = canvas.x, canvas.y - np.float32(self.middle)
        self._radius = np.sqrt(dx * dx + dy * dy)
        turn = np.arctan2(dx, -dy) + np.float32(math.pi)
        self._bin = (turn * np.float32(_BINS / (2 * math.pi))).astype(np.int32) % _BINS

    def paint(self, canvas: Canvas, z: float) -> Bools:
        """Draw skin, fat and wall at height `z`; returns where organs may lie. Then call `paint_deep`."""
        fascia = (self.fascia * (1 + self.slope[0] * z)).astype(np.float32)
        skin = fascia + (self.fat * (1 + self.slope[1] * z)).astype(np.float32)
        thickness, layered = self._wall(fascia)
        self._depth = fascia[self._bin] - self._radius  # below the fascia, mm
        below_skin = skin[self._bin] - self._radius
        whole = (slice(None), slice(None))
        fat = np.float32(self.fat_hu) + 8 * canvas.noise(6.0)
        canvas.fill(whole, below_skin > 0, fat, SUBCUTANEOUS)
        septa = (np.abs(canvas.noise(4.0, shift=1)) < 0.035) & (below_skin > 0)
        canvas.hu[septa] += 60
        canvas.fill(whole, (below_skin > 0) & (below_skin < 2.2), 25.0)
        canvas.fill(whole, self._depth > 0, fat)
        wall = thickness[self._bin]
        # Three oblique layers with thin planes of fat between them; the rectus is one.
        share = self._depth / np.maximum(wall, 1e-3)
        gap = layered[self._bin] & (((share > 0.30) & (share < 0.37)) | ((share > 0.68) & (share < 0.74))) & (wall > 9)
        front = canvas.y < _BACK + 12
        self._muscle(canvas, whole, (self._depth > 0.8) & (share < 1) & ~gap & front & (wall > 1.5), 1.0)
        # Fascia itself: a thin line all around, of muscle's HU and no muscle.
        canvas.fill(whole, (self._depth > -0.6) & (self._depth <= 0.6) & (below_skin > 4), 20.0)
        # The back of the space around the kidneys is hollow: it follows the muscles outward and backward.
        behind = np.float32(_BACK - 10) + np.float32(0.0016) * canvas.x * canvas.x
        inside: Bools = (self._depth > wall + 1.2) & (canvas.y < np.minimum(behind, np.float32(_BACK + 14)))
        # The fat between the vertebra's body and its processes is neither.
        foramen = (np.abs(canvas.x) < 28 * self.spine_size) & (canvas.y > 8 * self.spine_size)
        inside &= ~foramen
        canvas.part[inside] = VISCERAL
        return inside

    def _muscle(self, canvas: Canvas, box: Box, where: Bools, share: float) -> None:
        """Lean muscle with streaks of fat: the zero lines of a smooth field, which are thin and branch as fat does."""
        hu = np.float32(self.lean_hu) + 7 * canvas.noise(3.0, box)
        width = np.float32(min(self.streaks * share, 0.4) / 0.8)
        hu = np.where(np.abs(canvas.noise(2.2, box, shift=2)) < width, np.float32(self.fat_hu + 25), hu)
        canvas.fill(box, where, hu, MUSCLE)

    def paint_deep(self, canvas: Canvas, z: float) -> None:
        """Draw the muscles about the spine, then the spine, over whatever is there."""
        for shape, share in self._muscles():
            box, depth = canvas.depth(shape, z)
            room = self._depth[box] > 1.5
            canvas.fill(box, (depth > -1.6) & (depth <= 0) & room, np.float32(self.fat_hu))
            self._muscle(canvas, box, (depth > 0) & room, share)
        self._paint_spine(canvas, z)

    def _paint_spine(self, canvas: Canvas, z: float) -> None:
        level = round(z / _PITCH)
        height = z - level * _PITCH  # above the middle of the nearest vertebra
        part = VERTEBRA if level == 0 else 0
        if abs(height) < 13:
            self._bone(canvas, self.arch, height, part)
        if abs(height) < 6:
            for shape in self.transverse:
                self._bone(canvas, shape, height, part, grow=1 - 0.3 * abs(height) / 6)
        if abs(height) > 7:
            for shape in self.facets:
                self._bone(canvas, shape, height, part if abs(height) < _BODY_HALF + 1 else 0)
        if -17 < height < 5:
            self._bone(canvas, self.spinous, height, part if height > -_BODY_HALF else 0)
        waist = 1 - 0.09 * (1 - (height / _BODY_HALF) ** 2)
        if abs(height) < _BODY_HALF:
            solid = abs(height) > _BODY_HALF - 1.8  # the endplate
            self._bone(canvas, self.vertebra, z, part, grow=waist, solid=solid)
        else:
            box, depth = canvas.depth(self.vertebra, z, 1.03)
            canvas.fill(box, depth > 0, 85 + 6 * canvas.noise(3.0, box))
        box, depth = canvas.depth(self.canal, z)
        canvas.fill(box, depth > 0, np.where(depth > 2.2, np.float32(22), np.float32(-60)))

    def _bone(
        self, canvas: Canvas, shape: Shape, z: float, part: int, *, grow: float = 1.0, solid: bool = False
    ) -> None:
        box, depth = canvas.depth(shape, z, grow)
        spongy = np.float32(self.trabecular) + 35 * canvas.noise(2.2, box)
        shell = np.float32(0.65 * self.cortical if solid else self.cortical)
        canvas.fill(box, depth > 0, np.where((depth < 1.7) | solid, shell, spongy), part)
