"""Organs of the SYNTHETIC abdomen: HU alone do not tell liver, spleen, stomach, muscle and bowel apart."""

from __future__ import annotations

import numpy as np

from datamodules.phantom.abdomen.board import NUMBERS, OTHER, Board, Ellipsoid, Floats
from datamodules.phantom.abdomen.patient import Patient


def organs(board: Board, patient: Patient, cavity: Floats) -> None:
    """Paint all that lies in the cavity, the later over the earlier."""
    _bowel(board, patient, cavity)
    _stomach(board, patient, cavity)
    _kidneys(board, patient, cavity)
    _spleen(board, patient, cavity)
    _liver(board, patient, cavity)
    _vessels(board, patient)


def _bowel(board: Board, patient: Patient, cavity: Floats) -> None:
    """Loops of bowel by chance, and the colon along both sides: fluid, stool, gas or collapsed walls."""
    rng, size = np.random.default_rng(patient.bowel_seed), patient.size
    wide, front = patient.half_width - patient.fat - patient.wall, patient.half_depth
    for _ in range(46):
        radius = rng.uniform(10, 21)
        center = (rng.uniform(-0.8, 0.8) * wide, rng.uniform(-1.1, -0.2) * front, rng.uniform(-185, 45) * size)
        axes = (radius * rng.uniform(1, 1.9), radius, radius * rng.uniform(1, 1.6))
        loop = Ellipsoid(center, axes, rng.uniform(0, np.pi))
        wall = 40 + patient.contrast.bowel
        hu = float(rng.choice([0.75 * wall, 12, wall, -700], p=[0.4, 0.25, 0.25, 0.1]))
        board.organ([loop], cavity - 3, hu)
    for side in (-1.0, 1.0):
        for height in np.arange(-120, 60, 34) * size:
            place = (side * (wide - 26) + rng.normal(0, 4), rng.normal(-12, 6), float(height))
            hu = float(rng.choice([25, -80, -750], p=[0.5, 0.25, 0.25]))
            board.organ([Ellipsoid(place, (19, 19, 24))], cavity - 3, hu)
    bladder = Ellipsoid((0, -52 * size, -205 * size), (36, 30, 30))
    board.organ([bladder], cavity, 8)


def _placed(
    patient: Patient, number: int, center: tuple[float, ...], axes: tuple[float, ...], turn: float = 0.0
) -> Ellipsoid:
    """An organ's part at its usual place, moved and grown as in this patient."""
    x, y, z = (patient.size * a + b for a, b in zip(center, patient.jitter[number], strict=True))
    a, b, c = (float(patient.size * patient.growth[number] * axis) for axis in axes)
    return Ellipsoid((float(x), float(y), float(z)), (a, b, c), turn)


def _liver(board: Board, patient: Patient, cavity: Floats) -> None:
    side = -(patient.half_width - patient.fat - 62 * patient.size) / patient.size
    parts = [
        _placed(patient, 0, (side, -14, 92), (66, 74, 84)),
        _placed(patient, 0, (side + 62, -56, 112), (72, 36, 42), -0.25),
    ]
    hu = 58 + patient.contrast.liver + patient.organ_hu[0]
    under = np.minimum(cavity - 2, _below_dome(board, patient, cavity))
    board.organ(parts, under, float(hu), NUMBERS["liver"])


def _spleen(board: Board, patient: Patient, cavity: Floats) -> None:
    side = (patient.half_width - patient.fat - patient.wall - 34 * patient.size) / patient.size
    hu = 50 + 1.1 * patient.contrast.liver + patient.organ_hu[1]
    part = _placed(patient, 1, (side, 22, 96), (28, 46, 54), 0.35)
    board.organ([part], np.minimum(cavity - 2, _below_dome(board, patient, cavity)), float(hu), NUMBERS["spleen"])


def _below_dome(board: Board, patient: Patient, cavity: Floats) -> Floats:
    """How far below the lung a voxel lies, mm: nothing of an organ lies where lung was drawn."""
    return np.where(board.hu < -500, -9, cavity).astype(np.float32)


def _stomach(board: Board, patient: Patient, cavity: Floats) -> None:
    hu = 38 + 0.8 * patient.contrast.bowel + patient.organ_hu[4]
    part = _placed(patient, 4, (50, -46, 100), (46, 36, 48), 0.4)
    inside = np.minimum(cavity - 3, _below_dome(board, patient, cavity))
    board.organ([part], inside, float(hu))
    gas = Ellipsoid((part.center[0], part.center[1] - 16, part.center[2] + 8), (24, 12, 26), 0.4)
    board.organ([gas], inside, -800)
    pancreas = Ellipsoid((8, -30 * patient.size, 52 * patient.size), (58, 11, 13), 0.2)
    board.organ([pancreas], cavity, 42 + 0.8 * patient.contrast.bowel)


def _kidneys(board: Board, patient: Patient, cavity: Floats) -> None:
    for number, side, height in ((2, 1.0, 44.0), (3, -1.0, 28.0)):
        hu = 32 + patient.contrast.kidney + patient.organ_hu[number]
        whole = _placed(patient, number, (side * 63, 18, height), (27, 25, 54), side * 0.5)
        board.organ([whole], cavity, float(hu), NUMBERS["kidneys"])
        x, y, z = whole.center
        sinus = Ellipsoid((x - side * 15, y - 9, z), (13, 8, 21), side * 0.5)
        board.organ([sinus], cavity, -70, OTHER)


def _vessels(board: Board, patient: Patient) -> None:
    """Aorta and inferior vena cava down to where they part, at L4."""
    end = patient.levels["L4"][0]
    for x, radius, hu in ((9.0, 10.0, 44 + patient.contrast.aorta), (-17.0, 11.0, 42 + patient.contrast.cava)):
        rho = np.sqrt((board.spine_x - x) ** 2 + (board.spine_y + 17.5 * patient.size + radius + 1) ** 2)
        board.fill(np.minimum(radius - rho, board.z - end).astype(np.float32), hu, OTHER)
