"""Generates SYNTHETIC scans of the whole abdomen, T10 to the pelvis, with their truth. No patient is in them.

    python -m datamodules.phantom abdomen OUT [--patients 16] [--pixels 96] [--seed 0] [--sites north south ...]

A site is a folder as `dataset=segmentation` reads it: `cohort.csv`, `images/<accession>/` (a CT series) with
`labels/<accession>.dcm` (DICOM SEG), or at `south` `images/<accession>.nii.gz` with `labels/<accession>.nii.gz`
(numbers in the order of `board.STRUCTURES`, from 1). `west` labels five structures of eleven.

Columns of the table: `person_id, accession, sex, age, height_m, weight_kg`; `followup_days, event`, drawn as
`datamodules.phantom.sites` says, from the muscle that was drawn for the person; `level_mm`, where the center of L3's
body lies, z of the patient's coordinates (to the head, as ImagePositionPatient and NIfTI's affine have it), mm, empty
where the center is not between the first slice's middle and the last's; `view` (a word of `sites.VIEWS`); `position`
(supine, prone); `scoliosis`, `metal` and `narrow` (field of view), 0 or 1.

Nothing here reads a clock, the environment or global random state: the same arguments give the same files, and the
first patients are the same whatever their number.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from datamodules.phantom.abdomen.board import STRUCTURES
from datamodules.phantom.abdomen.scanner import AbdomenScan, find, scan
from datamodules.phantom.abdomen.sites import PROFILES, AbdomenProfile
from datamodules.phantom.cohort import whole, write_table
from datamodules.phantom.dicom import CODES, Codes, level_mm, write_labels, write_series
from datamodules.phantom.sites import Person, draw_follow_up, draw_person

COLUMNS = (
    "person_id", "accession", "sex", "age", "height_m", "weight_kg", "followup_days", "event", "level_mm", "view",
    "position", "scoliosis", "metal", "narrow",
)  # fmt: skip
FEWEST_PIXELS = 32

ABDOMEN_CODES: Codes = {
    "muscle": CODES["skeletal_muscle"],
    "subcutaneous_fat": CODES["subcutaneous_fat"],
    "visceral_fat": CODES["visceral_fat"],
    **{
        f"vertebra_L{number}": (codes.SCT.AnatomicalStructure, getattr(codes.SCT, f"L{number}Vertebra"), None)
        for number in range(1, 6)
    },
    "liver": (codes.SCT.Organ, codes.SCT.Liver, None),
    "spleen": (codes.SCT.Organ, codes.SCT.Spleen, None),
    "kidneys": (codes.SCT.Organ, codes.SCT.Kidney, None),
}


def generate(root: Path, *, profile: AbdomenProfile, patients: int = 16, pixels: int = 96, seed: int = 0) -> None:
    """Write one site's scans into `root`, whole or not at all; a cohort that is there already is left alone.

    Args:
        root: the site's folder; absent, empty, or a finished cohort.
        profile: how the site scans and whom it sees.
        patients: how many, at least 1, a scan each.
        pixels: a side of a slice, at least 32; 96 are voxels of about 4 mm.
        seed: of everything in it, 0 or more.

    Raises:
        ValueError: fewer patients or pixels, or a negative seed.
        FileExistsError: `root` holds something that is not a cohort.
    """
    if patients < 1 or seed < 0 or pixels < FEWEST_PIXELS:
        raise ValueError(
            f"patients has to be 1 or more, pixels {FEWEST_PIXELS} or more and seed 0 or more, "
            f"not {patients}, {pixels} and {seed}"
        )
    whole(Path(root), lambda partial: _write_cohort(partial, profile, (patients, pixels, seed)))


def _write_cohort(root: Path, profile: AbdomenProfile, size: tuple[int, int, int]) -> None:
    patients, pixels, seed = size
    rows = [_write_person(root, profile, number, pixels, seed) for number in range(1, patients + 1)]
    of = f"profile {profile.scanner.name}, {patients} patients, {pixels} pixels, seed {seed}"
    write_table(root, COLUMNS, rows, f"datamodules.phantom.abdomen, {of}")


def _write_person(root: Path, profile: AbdomenProfile, number: int, pixels: int, seed: int) -> tuple[object, ...]:
    """Draw, scan and write one person; returns the row of the cohort table."""
    name = profile.scanner.name
    site = int.from_bytes(hashlib.sha256(f"abdomen {name}".encode()).digest()[:4], "big")
    who, what, image, fate = (np.random.default_rng([seed, site, number, stream]) for stream in range(4))
    person, finding = draw_person(profile.scanner, who), find(profile, what)
    scanned = scan(person, profile, finding, pixels, image)
    names = f"{name}-{number:03d}", f"{name[0].upper()}{who.integers(10**6, 10**7)}{number:03d}", seed
    if profile.nifti:
        _write_nifti(root, scanned, names[1])
    else:
        _write_dicom(root, scanned, person, profile, names)
    size = f"{person.height_m:.2f}", f"{person.weight_kg:.1f}"
    level = f"{level_mm(names[1]):.1f}" if scanned.sees_level else ""
    position = "prone" if finding.prone else "supine"
    flags = int(finding.scoliosis), int(finding.metal), int(finding.narrow)
    followed = draw_follow_up(person, person.physique.muscle_cm2 / person.height_m**2, fate)
    return (*names[:2], person.sex, person.age, *size, *followed, level, finding.view, position, *flags)


def _write_dicom(
    root: Path, scanned: AbdomenScan, person: Person, profile: AbdomenProfile, names: tuple[str, str, int]
) -> None:
    turn = slice(None, None, -1 if scanned.prone else 1)
    seen = replace(scanned, hu=np.ascontiguousarray(scanned.hu[:, turn, turn]))
    scanner = replace(profile.scanner, pixels=scanned.hu.shape[1], slices=len(scanned.hu))
    series = write_series(root / "images" / names[1], seen, person, scanner, names, prone=scanned.prone)
    kept = [STRUCTURES.index(name) for name in profile.labels]
    segments = {name: ABDOMEN_CODES[name] for name in profile.labels}
    masks = scanned.masks[kept][:, :, turn, turn]
    write_labels(root / "labels" / f"{names[1]}.dcm", masks, series, names, codes_of=segments)


def _write_nifti(root: Path, scanned: AbdomenScan, accession: str) -> None:
    """Axes lead to the right, the front and the head, as most tools write them."""
    numbers = np.arange(1, len(STRUCTURES) + 1, dtype=np.uint8)[:, None, None, None]
    label = (scanned.masks * numbers).max(axis=0)
    thickness, half = scanned.heights[0] - scanned.heights[1], (scanned.hu.shape[1] - 1) / 2 * scanned.spacing
    affine = np.diag([scanned.spacing, scanned.spacing, thickness, 1.0])
    affine[:3, 3] = -half, -half, level_mm(accession) + scanned.heights[-1]
    for folder, array in (("images", scanned.hu), ("labels", label)):
        _save_nifti(root / folder / f"{accession}.nii.gz", array.transpose(2, 1, 0)[::-1, ::-1, ::-1], affine)


def _save_nifti(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    # gzip writes the time of day unless told not to.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m datamodules.phantom abdomen", description="Generate synthetic scans of the whole abdomen."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that receives one folder per site")
    parser.add_argument("--patients", type=int, default=16, help="per site (16)")
    parser.add_argument("--pixels", type=int, default=96, help="a side of a slice (96: about 4 mm)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (0)")
    parser.add_argument("--sites", nargs="+", choices=list(PROFILES), default=list(PROFILES), help="which sites (all)")
    options = parser.parse_args(arguments)
    for site in options.sites:
        started, root = time.monotonic(), options.out / site
        present = (root / "cohort.csv").is_file()
        try:
            generate(root, profile=PROFILES[site], patients=options.patients, pixels=options.pixels, seed=options.seed)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        seconds = time.monotonic() - started
        what = "left as it was" if present else f"{options.patients} synthetic scans in {seconds:.1f} s"
        print(f"{site}: {what} ({root})", flush=True)
    return 0
