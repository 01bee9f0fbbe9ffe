"""Tiny tables of biomarkers, as job=measure writes them: twelve persons at each of four hospitals."""

from pathlib import Path

import numpy as np

from models.body_composition.outcomes import table
from models.body_composition.report import write_private


def sarcopenia_outcome(folder: Path) -> list[str]:
    """Four hospitals of twelve persons, of whom about half die."""
    rng = np.random.default_rng(0)
    for name in ("north", "south", "east", "west"):
        write_private(
            folder / "biomarkers" / "sites" / name / "biomarkers.csv", table([_row(rng, n) for n in range(12)])
        )
    return [f"paths.demo_dir={folder}", "strategy.rounds=2", "trainer.centralized.max_epochs=1"]


def _row(rng: np.random.Generator, number: int) -> dict[str, object]:
    numbers = {
        "height_m": rng.normal(1.7, 0.1),
        "weight_kg": rng.normal(75, 12),
        "age": float(rng.integers(40, 85)),
        "sex": float(number % 2),
        "followup_days": float(rng.integers(30, 1500)),
        "event": float(number // 2 % 2),
        "predicted_muscle_index": rng.normal(48, 7),
        "predicted_muscle_density_hu": rng.normal(38, 6),
        "predicted_sarcopenia": float(rng.integers(0, 2)),
    }
    return {"accession_id": f"A{number}", **numbers}
