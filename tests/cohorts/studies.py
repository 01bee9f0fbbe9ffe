"""Every experiment on tiny data in its true on-disk format: what to add to its command line."""

from collections.abc import Callable
from pathlib import Path

from datamodules.phantom import PROFILES, generate
from tests.cohorts.abdomen_3d import abdomen_3d
from tests.cohorts.chest_xray import chest_xray
from tests.cohorts.clinical_notes import clinical_notes
from tests.cohorts.dermatology import dermatology
from tests.cohorts.heart import write_tiny_heart
from tests.cohorts.icu_outcome import icu_outcome
from tests.cohorts.lung_survival import lung_survival
from tests.cohorts.sarcopenia_outcome import sarcopenia_outcome
from tests.datamodules.level_sites import site
from tests.studies import PASSES, SMALL_HEART


def heart_disease(folder: Path) -> list[str]:
    """Four hospitals of 12 to 24 patients, as UCI writes them."""
    return [f"paths.data_dir={write_tiny_heart(folder)}", *SMALL_HEART, f"{PASSES}2"]


def sarcopenia(folder: Path) -> list[str]:
    """Four hospitals of six phantoms, as DICOM series and SEG; a network of two levels."""
    for name, profile in PROFILES.items():
        generate(folder / name, profile=profile, patients=6)
    small = ["strategy.rounds=2", "trainer.steps=2", "trainer.centralized.max_epochs=1", "dataset.slices_per_person=1"]
    return [
        f"paths.demo_dir={folder}",
        *small,
        "dataset.demo_patients=6",
        "dataset.grid.spacing_mm=5.0",
        "dataset.grid.size=96",
    ]


def level_finder(folder: Path) -> list[str]:
    """Five hospitals of nine trunks as NIfTI; a network of two layers on a coarse grid."""
    for seed, name in enumerate(("north", "south", "east", "west", "coast")):
        site(folder / "abdomen" / name, 9, seed=seed)
    grid = [f"dataset.projections.{each}" for each in ("step_mm=12.0", "pixel_mm=16.0", "width=18")]
    small = ["strategy.rounds=2", "trainer.epochs=1", f"{PASSES}1", "model.network.channels=[4,8]"]
    return [f"paths.demo_dir={folder}", *grid, *small, "model.network.gaps=[1,2]", "model.network.width=8"]


TINY: dict[str, Callable[[Path], list[str]]] = {
    "abdomen_3d": abdomen_3d,
    "chest_xray": chest_xray,
    "clinical_notes": clinical_notes,
    "dermatology": dermatology,
    "heart_disease": heart_disease,
    "icu_outcome": icu_outcome,
    "level_finder": level_finder,
    "lung_survival": lung_survival,
    "sarcopenia": sarcopenia,
    "sarcopenia_outcome": sarcopenia_outcome,
}
