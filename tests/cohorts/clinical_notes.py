"""Tiny dialogues in the form of MTS-Dialog: a table for each split, and a section for each dialogue."""

import csv
from pathlib import Path

SECTIONS = {"GENHX": "pain since monday", "ALLERGY": "allergic to nuts", "MEDICATIONS": "takes aspirin daily"}
FILES = {
    "TrainingSet": 60, "ValidationSet": 18, "TestSet-1-MEDIQA-Chat-2023": 18, "TestSet-2-MEDIQA-Sum-2023": 18,
}  # fmt: skip


def clinical_notes(folder: Path) -> list[str]:
    """114 dialogues at two simulated clinics; a dialogue has line breaks, as the published ones."""
    home = folder / "mts_dialog"
    home.mkdir(parents=True)
    for name, number in FILES.items():
        with (home / f"MTS-Dialog-{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["ID", "section_header", "section_text", "dialogue"])
            for row in range(number):
                section = list(SECTIONS)[row % 3]
                said = f"Doctor: anything, number {row}?\nPatient: {SECTIONS[section]}, doctor."
                table.writerow([row, section, SECTIONS[section], said])
    parts = [
        "dataset.partition.parts=2",
        "dataset.partition.minimum=10",
        "sites=[notes]",
        "~sites.notes_2",
        "~sites.notes_3",
    ]
    small = ["strategy.rounds=2", "trainer.steps=2", "trainer.epochs=null", "trainer.centralized.max_epochs=1"]
    levels = f"dataset.target.levels=[{','.join(SECTIONS)}]"
    return [f"paths.data_dir={folder}", levels, *parts, *small]
