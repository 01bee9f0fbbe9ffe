"""A tiny site with CT studies: `cohort.csv`, DICOM series and labels in each form that is taken."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tests.datamodules.ct_files import ORIGIN, SPACING, body, save, slices_of

SHAPE = (12, 24, 20)
SEGMENTS = ("skeletal_muscle", "subcutaneous_fat", "visceral_fat", "vertebra_L3")


def structures() -> dict[str, NDArray[np.bool_]]:
    """Masks (slice, row, column); L3 is in slices 4 to 8."""
    masks = {name: np.zeros(SHAPE, bool) for name in SEGMENTS}
    for place, name in enumerate(SEGMENTS[:3]):
        masks[name][:, 4:9, 4 + 4 * place : 7 + 4 * place] = True
    masks["vertebra_L3"][4:9, 12:16, 8:12] = True
    return masks


def numbered(masks: dict[str, NDArray[np.bool_]], numbers: Sequence[float] = (1, 2, 3, 4)) -> NDArray[np.float32]:
    """Masks as one array of numbers, by the order of SEGMENTS."""
    return np.sum([number * masks[name] for name, number in zip(SEGMENTS, numbers, strict=True)], 0, dtype=np.float32)


def nifti(path: Path, voxels: NDArray[np.generic]) -> Path:
    """Write (slice, row, column) on the grid of `series`."""
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (-ORIGIN[0], -ORIGIN[1], ORIGIN[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0).astype(np.float32), affine), path)
    return path


def site(root: Path, accessions: Sequence[str]) -> Path:
    """A site without labels: one study a person."""
    for accession in accessions:
        save(root / "dicom" / accession, slices_of(body(*SHAPE)))
    rows = [f"P{number},{accession},{'FM'[number % 2]},1.7" for number, accession in enumerate(accessions)]
    (root / "cohort.csv").write_text("\n".join(["person_id,accession_id,sex,height_m", *rows]) + "\n")
    (root / "labels").mkdir()
    return root
