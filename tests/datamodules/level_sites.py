"""Tiny sites of whole trunks: a spine with ribs above it and a pelvis below, coarse, as NIfTI."""

import csv
import math
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SPACING = (6.0, 8.0, 8.0)  # slice, row, column, mm
PITCH = 36.0  # mm from one vertebra's center to the next
SHAPE = (24, 36)  # rows, columns
NAMES = ("T11", "T12", "L1", "L2", "L3", "L4", "L5")
LEVEL = NAMES.index("L3")


def trunk(number: int, below_mm: float = 150.0, above_mm: float = 170.0) -> tuple[NDArray[np.float32], float]:
    """HU (slice, row, column) from so far below the center of L3 to so far above it, and the position of that center;
    it is beyond the slices where one of both is negative."""
    rng = np.random.default_rng(number)
    slices = int((below_mm + above_mm) / SPACING[0])
    height = (np.arange(slices) + 0.5) * SPACING[0] - below_mm  # mm above the center of L3
    away = np.abs((height + PITCH / 2) % PITCH - PITCH / 2)
    hu = np.full((slices, *SHAPE), -1000.0)
    hu[:, 2:-2, 2:-2] = -100
    hu[:, 4:-4, 4:-4] = 40
    hu[away < 13, 12:16, 15:21] = 350  # the bodies of vertebrae
    hu[:, 17:19, 17:19] = 250  # their arches
    ribs = (height > 2.4 * PITCH) & (away < 8)
    for place in (slice(4, 12), slice(24, 32)):
        hu[ribs, 6:18, place] = 400
        hu[height < -1.7 * PITCH, 8:18, place] = 450  # the pelvis
    hu += rng.normal(0, 12, hu.shape)
    return hu.astype(np.float32), below_mm / SPACING[0] - 0.5


def vertebrae(slices: int, center: float) -> NDArray[np.uint8]:
    """The bodies of vertebrae by number, 1 for T11 to 7 for L5."""
    label = np.zeros((slices, *SHAPE), np.uint8)
    for k in range(len(NAMES)):
        middle = center + (LEVEL - k) * PITCH / SPACING[0]
        first, end = math.ceil(middle - 13 / SPACING[0]), math.floor(middle + 13 / SPACING[0])
        label[max(first, 0) : max(end + 1, 0), 12:16, 15:21] = k + 1
    return label


def written(path: Path, array: NDArray[np.generic], bottom_mm: float) -> None:
    """A NIfTI whose lowest slice lies at this height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[2, 3] = bottom_mm
    nib.save(nib.Nifti1Image(np.rint(array).transpose(2, 1, 0).astype(np.int16), affine), path)


def site(root: Path, scans: int = 6, *, masks: bool = False, seed: int = 0) -> Path:
    """A person each; every third scan ends above or below L3."""
    rows = []
    for number in range(scans):
        rng = np.random.default_rng([seed, number])
        below, above, bottom = rng.uniform(90, 170), rng.uniform(100, 190), round(float(rng.uniform(-900, 100)), 1)
        if number % 3 == 2:
            below, above = (-rng.uniform(25, 40), 190) if number % 2 else (190, -rng.uniform(25, 40))
        hu, center = trunk(number + 1000 * seed, below, above)
        written(root / "images" / f"A{number}.nii.gz", hu, bottom)
        seen = 0 <= center <= len(hu) - 1
        if masks:
            written(root / "labels" / f"A{number}.nii.gz", vertebrae(len(hu), center), bottom)
        rows.append((f"P{number}", f"A{number}", f"{bottom + center * SPACING[0]:.1f}" if seen else ""))
    with (root / "cohort.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("person_id", "accession", "level_mm"), *rows])
    return root
