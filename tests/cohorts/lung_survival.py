"""The lung cancer study needs no file: lifelines ships it. Tiny is four of its institutions, and few rounds."""

from pathlib import Path


def lung_survival(folder: Path) -> list[str]:
    """Four institutions with 98 patients."""
    others = ("02", "04", "05", "06", "07", "10", "11", "15", "16", "21", "22", "26", "32", "33")
    small = ["strategy.rounds=2", "trainer.centralized.max_epochs=1"]
    return [f"paths.data_dir={folder}", *(f"~sites.institution_{number}" for number in others), *small]
