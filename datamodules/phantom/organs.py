"""Organs of the SYNTHETIC abdomen around L3: kidneys, liver tip, great vessels, colon and small bowel.

They are there to be confused with muscle: without contrast medium kidney (32 HU), liver (58), bowel wall (42),
collapsed loops and blood (42) lie inside muscle's window of -29 to 150 HU, as real ones do. Contrast phases add the HU
of `Contrast`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datamodules.phantom.anatomy import Body, Contrast
from datamodules.phantom.canvas import VISCERAL, Bools, Canvas, Floats, Shape

GAS, STOOL, FLUID, ORAL, COLLAPSED = "gas", "stool", "fluid", "oral", "collapsed"


@dataclass(frozen=True)
class Loop:
    """A piece of bowel: outline, what is in it, thickness of its wall (mm) and the level of its gas (0 to 1)."""

    shape: Shape
    content: str
    wall: float
    level: float


def _drift(rng: np.random.Generator, scale: float) -> tuple[float, float]:
    return float(rng.normal(0, scale)), float(rng.normal(0, scale))


class Organs:
    """One person's organs, fixed by `rng`. `oral` is the probability that a loop holds positive oral contrast."""

    def __init__(self, body: Body, contrast: Contrast, oral: float, rng: np.random.Generator) -> None:
        self.body, self.contrast, self.energy = body, contrast, body.energy
        self.oral = oral
        width, front = body.half_width - float(body.fat.max()), body.middle
        self._kidneys(rng)
        self._vessels(rng)
        reach = rng.uniform(-25, 22)  # how far the liver's tip still reaches down at L3
        self.liver = Shape(
            -(width - 44),
            front - 18,
            30 + reach * 0.5,
            46 + reach * 0.6,
            angle=0.15,
            power=2.3,
            waves=Shape.waver(rng, 0.05),
        )
        self.liver_taper = rng.uniform(0.006, 0.02)
        self.liver_here = bool(rng.random() < 0.75)
        self.oral_hu = rng.uniform(170, 330) * self.energy
        self.loops = self._colon(rng, width, front) + self._bowel(rng, width, front)

    def _kidneys(self, rng: np.random.Generator) -> None:
        self.kidneys = []
        for side in (-1, 1):
            x = side * (self.body.spine_size * 66 + rng.normal(3, 4))
            y = -10 + rng.normal(0, 5)
            outline = Shape(
                x, y, rng.uniform(24, 30), rng.uniform(21, 26), side * 0.5, 2.1, waves=Shape.waver(rng, 0.05)
            )
            # The lower pole lies at L3; the right kidney lower than the left.
            self.kidneys.append((outline, float(rng.normal(34 if side > 0 else 24, 12))))

    def _vessels(self, rng: np.random.Generator) -> None:
        size = self.body.spine_size
        aorta = rng.uniform(8, 10) + 0.04 * max(self.body.physique.age - 60, 0)
        front = -17.5 * size
        self.aorta = Shape(rng.normal(9, 2), front - aorta - 2, aorta, aorta, waves=Shape.waver(rng, 0.02))
        self.cava = Shape(
            rng.normal(-17, 2), front - 9, rng.uniform(10, 14), rng.uniform(6, 10), 0.2, waves=Shape.waver(rng, 0.05)
        )
        self.calcified = float(np.clip(rng.normal(0.02 * (self.body.physique.age - 55), 0.25), 0, 0.8))
        self.mesenteric = [
            Shape(float(x), float(y), float(r), float(r), drift=_drift(rng, 0.15))
            for (x, y), r in zip(rng.normal((0, front - 36), (16, 9), (9, 2)), rng.uniform(2, 5, 9), strict=True)
        ]
        self.duodenum = Shape(
            rng.normal(-4, 5), front - 27, rng.uniform(28, 40), rng.uniform(8, 11), waves=Shape.waver(rng, 0.10)
        )

    def _colon(self, rng: np.random.Generator, width: float, front: float) -> list[Loop]:
        loops = []
        for side in (-1, 1):
            size = rng.uniform(17, 25) if side < 0 else rng.uniform(13, 20)
            outline = Shape(
                side * (width - 26 - size),
                -2 + rng.normal(0, 5),
                size,
                size * rng.uniform(0.8, 1.1),
                waves=Shape.waver(rng, 0.09),
            )
            loops.append(
                Loop(
                    outline, str(rng.choice([STOOL, GAS, STOOL, COLLAPSED])), rng.uniform(2, 3.2), rng.uniform(0.3, 0.8)
                )
            )
        return loops

    def _bowel(self, rng: np.random.Generator, width: float, front: float) -> list[Loop]:
        """Loops thrown into the space before the spine, each kept if it does not lie over another too much."""
        loops: list[Loop] = []
        depth = self.body.half_depth - float(self.body.fat.max())
        for attempt in range(700):
            # The large ones first: small loops fill what is left.
            radius = float(rng.uniform(9, 15 + 10 * (attempt < 300)))
            x = rng.uniform(-(width - 26), width - 26)
            y = rng.uniform(front - depth + 16, -14)
            inside = (x / (width - 20 - radius)) ** 2 + ((y - front) / (depth - 11 - radius)) ** 2 < 1
            apart = all(
                math.hypot(x - o.shape.x, y - o.shape.y) > 0.92 * (radius + min(o.shape.a, o.shape.b)) for o in loops
            )
            if not (inside and apart):
                continue
            stretch = float(rng.uniform(1.0, 1.6))
            outline = Shape(
                x,
                y,
                radius * stretch,
                radius,
                rng.uniform(0, math.pi),
                rng.uniform(2, 2.5),
                _drift(rng, 0.18),
                Shape.waver(rng, 0.10),
            )
            loops.append(Loop(outline, self._content(rng), rng.uniform(1.8, 3.4), rng.uniform(0.3, 0.9)))
            if len(loops) >= 44:
                break
        return loops

    def _content(self, rng: np.random.Generator) -> str:
        if rng.random() < self.oral:
            return ORAL
        return str(rng.choice([FLUID, COLLAPSED, GAS, STOOL], p=[0.42, 0.38, 0.12, 0.08]))

    def paint(self, canvas: Canvas, z: float, inside: Bools) -> None:
        """Draw all organs at height `z` where `inside` allows."""
        vessels = (np.abs(canvas.noise(4.0, shift=3)) < 0.045) & inside  # mesentery
        canvas.hu[vessels] = 15 + 0.4 * self.contrast.cava * self.energy
        add, e = self.contrast, self.energy
        for loop in self.loops[2:]:
            self._loop(canvas, loop, z, inside)
        if self.liver_here:
            grow = 0.8 + self.liver_taper * z
            if grow > 0.3:
                self._solid(canvas, self.liver, z, inside, 58 + add.liver * e, grow)
        for loop in self.loops[:2]:
            self._loop(canvas, loop, z, inside)
        for outline, top in self.kidneys:
            grow = 1 - ((z - top) / 55) ** 2
            if grow > 0.04:
                self._kidney(canvas, outline, z, inside, math.sqrt(grow))
        self._solid(canvas, self.duodenum, z, inside, 34 + 0.6 * add.bowel * e)
        for outline in self.mesenteric:
            self._solid(canvas, outline, z, inside, 42 + add.cava * e)
        self._solid(canvas, self.cava, z, inside, 42 + add.cava * e)
        self._solid(canvas, self.aorta, z, inside, 44 + add.aorta * e)
        box, depth = canvas.depth(self.aorta, z)
        plaque = canvas.noise(4.0, box, shift=4) > 2.2 - 2.2 * self.calcified
        canvas.fill(box, (depth > 0) & (depth < 1.6) & plaque & (self.calcified > 0) & inside[box], 600 * e)

    def _solid(self, canvas: Canvas, shape: Shape, z: float, inside: Bools, hu: float, grow: float = 1.0) -> None:
        box, depth = canvas.depth(shape, z, grow)
        canvas.fill(box, (depth > 0) & inside[box], np.float32(hu) + 5 * canvas.noise(3.0, box, shift=5))

    def _kidney(self, canvas: Canvas, outline: Shape, z: float, inside: Bools, grow: float) -> None:
        box, depth = canvas.depth(outline, z, grow)
        # The cortex takes up contrast medium before the medulla does; fat fills the sinus of a large section.
        cortex = 1.0 if self.contrast.phase != "ARTERIAL" else 1.25
        medulla = 1.0 if self.contrast.phase != "ARTERIAL" else 0.45
        share = np.where(depth < 7, np.float32(cortex), np.float32(medulla))
        hu = 32 + np.float32(self.contrast.kidney * self.energy) * share + 5 * canvas.noise(3.0, box, shift=5)
        hu = np.where(depth > 18.5, np.float32(self.body.fat_hu + 15), hu)
        canvas.fill(box, (depth > -2.0) & inside[box] & (depth <= 0), np.float32(self.body.fat_hu), VISCERAL)
        canvas.fill(box, (depth > 0) & inside[box], hu)

    def _loop(self, canvas: Canvas, loop: Loop, z: float, inside: Bools) -> None:
        box, depth = canvas.depth(loop.shape, z)
        here = (depth > 0) & inside[box]
        wall = np.float32(42 + self.contrast.bowel * self.energy) + 6 * canvas.noise(2.2, box, shift=6)
        canvas.fill(box, here, wall)
        if loop.content != COLLAPSED:
            canvas.fill(box, here & (depth > loop.wall), self._lumen(canvas, box, loop, z))

    def _lumen(self, canvas: Canvas, box: tuple[slice, slice], loop: Loop, z: float) -> Floats:
        mottle = canvas.noise(2.2, box, shift=7)
        if loop.content == STOOL:
            return np.where(mottle > 1.1, np.float32(-650), 25 + 30 * canvas.noise(3.0, box, shift=8)).astype(
                np.float32
            )
        fluid = np.float32(self.oral_hu if loop.content == ORAL else 16) + 8 * mottle
        if loop.content == GAS:
            # Gas rises: the patient lies on the back, so it fills the front of the lumen.
            height = canvas.y[box] - np.float32(loop.shape.y + loop.shape.drift[1] * z)
            return np.where(height < (2 * loop.level - 1) * loop.shape.b, np.float32(-960), fluid).astype(np.float32)
        return fluid.astype(np.float32)
