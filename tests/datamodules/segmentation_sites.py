"""Tiny sites with scans and masks in each form that is taken: boxes in a body, or in a picture."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHAPE = (14, 18, 16)  # right to left, front to back, feet to head
SPACING = (2.0, 1.5, 3.0)
AFFINE = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])


def masks(number: int = 0) -> dict[str, NDArray[np.bool_]]:
    """Two boxes, in another place in each scan."""
    found = {name: np.zeros(SHAPE, bool) for name in ("liver", "spleen")}
    at = number % 3
    found["liver"][3 : 7 + at % 2, 4 + at : 11, 3:12] = True
    found["spleen"][9:12, 5 : 10 + at, 4:9] = True
    return found


def body(number: int = 0) -> NDArray[np.int16]:
    """HU: air, a body, a liver and a spleen, with noise of 5 HU."""
    noise = np.random.default_rng(number).normal(0, 5, SHAPE)
    hu = np.full(SHAPE, -1000.0)
    hu[1:-1, 2:-2] = 0
    for name, value in (("liver", 110), ("spleen", 220)):
        hu[masks(number)[name]] = value
    return np.rint(hu + noise).astype(np.int16)


def nifti(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def numbered(number: int = 0) -> NDArray[np.uint8]:
    """1 the liver, 6 the spleen."""
    found = masks(number)
    return (found["liver"] + 6 * found["spleen"]).astype(np.uint8)


def table(root: Path, accessions: Sequence[str], persons: Sequence[str] | None = None) -> Path:
    persons = persons or [f"P{number}" for number in range(len(accessions))]
    rows = [f"{p},{a},{'FM'[k % 2]}" for k, (p, a) in enumerate(zip(persons, accessions, strict=True))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "cohort.csv").write_text("\n".join(["person_id,accession,sex", *rows]) + "\n")
    return root


def site(root: Path, scans: int = 6) -> Path:
    """NIfTI with NIfTI of numbers, a person each."""
    names = [f"A{number}" for number in range(scans)]
    for number, name in enumerate(names):
        nifti(root / "images" / f"{name}.nii.gz", body(number))
        nifti(root / "labels" / f"{name}.nii.gz", numbered(number))
    return table(root, names)


def pictures(root: Path, scans: int = 6) -> Path:
    """PNG with PNG of numbers: 255 where a bright square is."""
    names = [f"A{number}" for number in range(scans)]
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture = np.random.default_rng(number).integers(0, 60, (24, 20)).astype(np.uint8)
        mask = np.zeros((24, 20), np.uint8)
        mask[5 + number : 12 + number, 6:13] = 255
        Image.fromarray(np.where(mask > 0, picture + 150, picture).astype(np.uint8)).save(
            root / "images" / f"{name}.png"
        )
        Image.fromarray(mask).save(root / "labels" / f"{name}.png")
    return table(root, names)
