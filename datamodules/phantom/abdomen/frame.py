"""The frame of the SYNTHETIC abdomen: skin, fats, wall, ribs, muscles of the back, spine and pelvis."""

from __future__ import annotations

import numpy as np

from datamodules.phantom.abdomen.board import NUMBERS, OTHER, Board, Ellipsoid, Floats
from datamodules.phantom.abdomen.patient import Patient

FAT_HU, BONE, CORTEX, DISC_HU, LUNG = -103.0, 190.0, 480.0, 85.0, -830.0
MUSCLE = NUMBERS["muscle"]


def trunk(board: Board, patient: Patient, *, prone: bool) -> Floats:
    """Skin, subcutaneous fat, abdominal wall with ribs, visceral fat and lung. Returns the cavity's depth, mm."""
    z = board.z
    hips = np.clip(-(z + 70) / 130, 0, 1)
    waist = 1 - 0.05 * np.exp(-(((z - 10) / 60) ** 2)) + 0.06 * hips
    width, depth = patient.half_width * waist, patient.half_depth * (1 - 0.06 * np.clip((z - 60) / 120, -1, 1))
    middle = 72 * patient.size - depth  # the back is flat, what grows is the belly
    y = board.y - middle
    if prone:  # the table flattens the belly and broadens it
        y = np.where(y < 0, y * 1.12, y)
        width = width * 1.03
    front = np.clip(-y / depth, -1, 1)
    skin = _inside(board.x, y, width, depth, 2.5)
    board.fill(skin, 20, OTHER)
    board.fill(skin - 2, FAT_HU, NUMBERS["subcutaneous_fat"], grain=9)
    # Fat is thick at the front and the hips; the wall is thin in the middle of the belly, and rectus beside it.
    under = patient.fat * (1 + 0.35 * front * (z < 90) + 0.5 * hips)
    fascia = skin - under
    board.fill(fascia, patient.muscle_hu, MUSCLE, grain=8)
    midline = (np.abs(board.x) < 9) & (front > 0.3)
    wall = np.where(midline, 3.0, patient.wall * (1 + 0.25 * hips))
    _ribs(board, patient, fascia, front)
    cavity: Floats = (fascia - wall).astype(np.float32)
    board.fill(cavity, FAT_HU + 3, NUMBERS["visceral_fat"], grain=10)
    radius = (board.x / width) ** 2 + (y / depth) ** 2
    lung = np.minimum(z - (patient.dome - 30 * patient.size * radius - 12 * (board.x > 0)), cavity)
    board.fill(lung.astype(np.float32), LUNG, OTHER, grain=15)
    return cavity


def _inside(x: Floats, y: Floats, width: Floats, depth: Floats, power: float) -> Floats:
    rho = (np.abs(x / width) ** power + np.abs(y / depth) ** power) ** (1 / power)
    return np.asarray((1 - rho) * depth, np.float32)


def _ribs(board: Board, patient: Patient, fascia: Floats, front: Floats) -> None:
    """Bands of bone in the wall, which fall to the front; the lowest ends above the kidneys."""
    middle = patient.levels["T12"][0] - 14 - 55 * (front + 0.4)
    band = np.abs((board.z - middle + 13) % 27 - 13.5)
    lowest = (board.z > middle - 6) & (front < 0.75)
    rib = np.minimum(np.minimum(5.5 - band, fascia - 1), patient.wall - fascia)
    board.fill(np.where(lowest, rib, -9).astype(np.float32), 330, OTHER, grain=30)


def muscles(board: Board, patient: Patient) -> None:
    """Erector spinae, psoas, quadratus lumborum and the gluteal muscles."""
    size, grow = patient.size, patient.muscle
    for side in (-1.0, 1.0):
        thin = np.clip(1 - (board.z - 40) / 500 - np.clip(-(board.z + 90), 0, None) / 140, 0.3, 1)
        _strand(board, patient, side * 33 * size, 43 * size, 27 * grow * thin, 19 * grow * thin)
        low = np.clip((70 - board.z) / 160, 0, 1) * (board.z < 62)
        aside = side * (26 + 17 * low + 0.20 * np.clip(-board.z - 90, 0, None)) * size
        ahead = (0 - 12 * low - 0.25 * np.clip(-board.z - 90, 0, None)) * size
        _strand(board, patient, aside, ahead, (6 + 15 * low) * grow, (7 + 17 * low) * grow)
        between = np.clip(np.minimum(board.z + 75, 75 - board.z) / 15, 0, 1)
        _strand(board, patient, side * 62 * size, 24 * size, 19 * grow * between, 9 * grow * between)
        gluteal = Ellipsoid((side * 78 * size, 62 * size, -165 * size), (58 * grow, 30 * grow, 75 * size))
        box, depth = board.ellipsoid(gluteal, spine=False)
        allowed = board.part[box] > 0
        board.fill(np.where(allowed, depth, -9), patient.muscle_hu, MUSCLE, box, grain=8)


def _strand(board: Board, patient: Patient, x: Floats | float, y: Floats | float, a: Floats, b: Floats) -> None:
    """A muscle along the spine, of half axes `a` and `b` by height, mm."""
    rho = np.sqrt(((board.spine_x - x) / np.maximum(a, 0.5)) ** 2 + ((board.spine_y - y) / np.maximum(b, 0.5)) ** 2)
    depth = np.where(b > 2, (1 - rho) * np.minimum(a, b), -9)
    board.fill(depth.astype(np.float32), patient.muscle_hu, MUSCLE, grain=8)


def spine(board: Board, patient: Patient) -> None:
    """Vertebrae T10 to L5 with arch and processes, discs, sacrum and iliac wings."""
    size, x, y, z = patient.size, board.spine_x, board.spine_y, board.spine_z
    lowest, highest = patient.levels["L5"][0], patient.levels["T10"][1]
    for name, (bottom, top) in patient.levels.items():
        part = NUMBERS.get(f"vertebra_{name}", OTHER)
        lumbar = name.startswith("L")
        a, b = (25 if lumbar else 20) * size, (17.5 if lumbar else 16) * size
        within = np.minimum(z - bottom, top - z)
        column = (1 - np.sqrt((x / a) ** 2 + (y / b) ** 2)) * b
        disc = np.minimum(column, np.minimum(bottom + 2 - z, z - bottom + 0.4 * (top - bottom)))
        board.fill(disc, DISC_HU, OTHER)
        body = np.minimum(column, within)
        board.fill(body, CORTEX, part, grain=20)
        board.fill(body - 3, BONE, part, grain=20)
        _arch(board, patient, (bottom + top) / 2, part, lumbar=lumbar)
    canal = (1 - np.sqrt((x / 9.5) ** 2 + ((y - 26 * size) / 8) ** 2)) * 8
    board.fill(np.minimum(canal, np.minimum(z - lowest + 60, highest + 8 - z)), 22, OTHER)
    _pelvis(board, patient, lowest)


def _arch(board: Board, patient: Patient, middle: float, part: int, *, lumbar: bool) -> None:
    size, x, y, z = patient.size, board.spine_x, board.spine_y, board.spine_z
    ring = np.abs(np.sqrt((x / 1.2) ** 2 + (y - 26 * size) ** 2) - 14 * size)
    arch = np.minimum(5 * size - ring, 11 * size - np.abs(z - middle + 3))
    spinous = np.minimum(np.minimum(4.5 - np.abs(x), 12 * size - np.abs(y - 50 * size)), 12 - np.abs(z - middle + 9))
    long = 42 if lumbar else 30
    across = np.minimum(np.minimum(4.5 - np.abs(y - 17 * size), long * size - np.abs(x)), 6 - np.abs(z - middle))
    across = np.minimum(across, np.abs(x) - 15 * size)
    for depth in (arch, spinous, across):
        board.fill(depth.astype(np.float32), 380, part, grain=25)


def _pelvis(board: Board, patient: Patient, top: float) -> None:
    size, x, y, z = patient.size, board.spine_x, board.spine_y, board.z
    down = np.clip((top - z) / (100 * size), 0, 1)
    sacrum = (1 - np.sqrt((x / (52 - 34 * down) / size) ** 2 + ((y - 6) / (21 - 11 * down)) ** 2)) * (21 - 11 * down)
    board.fill(np.minimum(sacrum, np.minimum(top - 8 - z, z - top + 100 * size)), 230, OTHER, grain=25)
    for side in (-1.0, 1.0):
        wing = Ellipsoid((side * 84 * size, 34 * size, -112 * size), (9, 52 * size, 74 * size), side * -0.55, 2.2)
        box, depth = board.ellipsoid(wing, spine=False)
        board.fill(depth, 360, OTHER, box, grain=30)
        head = Ellipsoid((side * 88 * size, -4, -232 * size), (25, 25, 25))
        box, depth = board.ellipsoid(head, spine=False)
        board.fill(depth, 330, OTHER, box, grain=25)
