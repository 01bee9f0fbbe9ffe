"""Generates the demo cohort: SYNTHETIC abdominal CT around L3 with its ground truth. No patient is in it.

    python -m datamodules.phantom OUT [--patients 24] [--seed 0] [--sites north south east west]

A site is a folder that looks as one from a hospital would: `cohort.csv` (`person_id, accession_id, sex, age, height_m,
weight_kg, followup_days, event`), `dicom/<accession_id>/*.dcm` (a CT series, encoded in another way at each site) and
`labels/<accession_id>.dcm` (DICOM SEG with the segments `skeletal_muscle`, `subcutaneous_fat`, `visceral_fat`,
`vertebra_L3`). `README.txt` and each DICOM header say that it is synthetic.

What is drawn: `anatomy` (wall, muscle, fat, spine) and `organs`. How it is scanned, and what counts as
muscle (compartment and -29..150 HU): `scanner`. The sites, their case mix and the hazards that link survival to
muscle (2.2 for a low index by Prado 2008, 1.03 a year of age): `sites`. The numbers were chosen to be
plausible and hard, not fitted to any cohort: results on it say nothing about people.

Nothing here reads a clock, the environment or global random state: the same profile, number of patients and seed give
the same files, and the first patients are the same whatever their number.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datamodules.phantom.dicom import write_labels, write_series
from datamodules.phantom.scanner import scan
from datamodules.phantom.sites import PROFILES, SiteProfile, draw_follow_up, draw_person
from datamodules.shared_folder import locked

__all__ = ["PROFILES", "SiteProfile", "ensure", "generate", "main"]

COLUMNS = ("person_id", "accession_id", "sex", "age", "height_m", "weight_kg", "followup_days", "event")


def ensure(root: str | Path, *, patients: int = 24, seed: int = 0) -> None:
    """Generate the demo cohort of the site that the folder is named for, unless the folder holds a cohort already.

    Args:
        root: a folder named `north`, `south`, `east` or `west`.
        patients: how many, at least 1.
        seed: of everything in it.

    Raises:
        ValueError: a folder with no cohort and another name, or fewer than 1 patient.
        FileExistsError: the folder holds something else.
    """
    root = Path(root)
    if (root / "cohort.csv").is_file():
        return
    if root.name not in PROFILES:
        known = ", ".join(PROFILES)
        raise ValueError(
            f"no demo site is named {root.name!r}: the folder has to be named one of {known}, or hold a cohort"
        )
    generate(root, profile=PROFILES[root.name], patients=patients, seed=seed)


def generate(root: Path, *, profile: SiteProfile, patients: int = 24, seed: int = 0) -> None:
    """Write one site's cohort into `root`; a cohort that is there already is left alone.

    A cohort appears whole or not at all: it is written beside `root` and renamed. A second process waits for the first
    and takes what it wrote.

    Args:
        root: the site's folder; absent, empty, or a finished cohort.
        profile: how the site scans and whom it sees.
        patients: how many, at least 1.
        seed: of everything in it, 0 or more.

    Raises:
        ValueError: fewer than 1 patient, or a negative seed.
        FileExistsError: `root` holds something that is not a cohort.
    """
    if patients < 1 or seed < 0:
        raise ValueError(f"patients has to be 1 or more and seed 0 or more, not {patients} and {seed}")
    whole(Path(root), lambda partial: _write_cohort(partial, profile, patients, seed))


def whole(root: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, which then becomes `root`; a cohort that is there already is left alone.

    Raises FileExistsError where `root` holds something that is not a cohort.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_name(f".{root.name}.lock")):
        if (root / "cohort.csv").is_file():
            return
        if root.exists() and any(root.iterdir()):
            raise FileExistsError(f"{root} holds files but no cohort.csv: empty it, or choose another folder")
        partial = root.with_name(f".{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed: we hold the lock, so none is alive
        partial.mkdir()
        write(partial)
        os.replace(partial, root)


def _write_cohort(root: Path, profile: SiteProfile, patients: int, seed: int) -> None:
    rows = [_write_person(root, profile, number, seed) for number in range(1, patients + 1)]
    write_table(root, COLUMNS, rows, f"datamodules.phantom, profile {profile.name}, {patients} patients, seed {seed}")


def write_table(root: Path, columns: Sequence[str], rows: Sequence[Sequence[object]], made_by: str) -> None:
    """Write `cohort.csv`, and a README that says that nobody is in it."""
    (root / "README.txt").write_text(
        "SYNTHETIC DATA. No patient is in this folder: images, labels, persons and outcomes were drawn by a program.\n"
        f"Generated by {made_by}.\n"
        "Results on it test software and say nothing about people.\n",
        encoding="utf-8",
    )
    with (root / "cohort.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_person(root: Path, profile: SiteProfile, number: int, seed: int) -> tuple[object, ...]:
    """Draw, scan and write one person; returns the row of the cohort table."""
    site = int.from_bytes(hashlib.sha256(profile.name.encode()).digest()[:4], "big")
    who, image, fate = (np.random.default_rng([seed, site, number, stream]) for stream in range(3))
    person = draw_person(profile, who)
    image_of = scan(person, profile, seed, image)
    person_id = f"{profile.name}-{number:03d}"
    accession_id = f"{profile.name[0].upper()}{who.integers(10**6, 10**7)}{number:03d}"
    names = (person_id, accession_id, seed)
    series = write_series(root / "dicom" / accession_id, image_of, person, profile, names)
    write_labels(root / "labels" / f"{accession_id}.dcm", image_of.masks, series, names)
    days, event = draw_follow_up(person, image_of.muscle_cm2() / person.height_m**2, fate)
    size = f"{person.height_m:.2f}", f"{person.weight_kg:.1f}"
    return person_id, accession_id, person.sex, person.age, *size, days, event


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m datamodules.phantom", description="Generate the synthetic demo cohort.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that receives one folder per site")
    parser.add_argument("--patients", type=int, default=24, help="per site (24)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (0)")
    parser.add_argument("--sites", nargs="+", choices=list(PROFILES), default=list(PROFILES), help="which sites (all)")
    options = parser.parse_args(arguments)
    for site in options.sites:
        started = time.monotonic()
        root = options.out / site
        present = (root / "cohort.csv").is_file()
        try:
            generate(root, profile=PROFILES[site], patients=options.patients, seed=options.seed)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        seconds = time.monotonic() - started
        what = "left as it was" if present else f"{options.patients} synthetic patients in {seconds:.1f} s"
        print(f"{site}: {what} ({root})", flush=True)
    return 0
