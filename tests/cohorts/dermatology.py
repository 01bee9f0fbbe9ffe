"""A tiny cohort of skin lesions in the form of PAD-UFES-20: `metadata.csv`, and photographs for some of its rows."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

FIELDS = [
    "patient_id",
    "age",
    "region",
    "itch",
    "grew",
    "hurt",
    "changed",
    "bleed",
    "elevation",
    "diagnostic",
    "img_id",
]
DIAGNOSES = ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"]


def dermatology(folder: Path) -> list[str]:
    """60 patients at two clinics, a photograph for every fourth lesion."""
    rng = np.random.default_rng(0)
    home = folder / "pad_ufes_20"
    (home / "images").mkdir(parents=True)
    with (home / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(FIELDS)
        for row in range(90):
            diagnosis = DIAGNOSES[row % 60 % 6]
            answers = [["True", "False", "UNK"][(row + at) % 3] for at in range(6)]
            region = ["FACE", "BACK", "ARM"][row % 3]
            table.writerow([f"PAT_{row % 60}", 30 + row % 50, region, *answers, diagnosis, f"PAT_{row}.png"])
            if row % 4 == 0:
                pixels = rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(home / "images" / f"PAT_{row}.jpg")
    parts = [
        "dataset.partition.parts=2",
        "dataset.partition.minimum=10",
        "sites=[skin]",
        "~sites.clinic_2",
        "~sites.clinic_3",
    ]
    small = ["dataset.image.size=[16,16]", "strategy.rounds=2", "trainer.steps=2", "trainer.epochs=null"]
    return [f"paths.data_dir={folder}", *parts, *small, "trainer.centralized.max_epochs=1"]
