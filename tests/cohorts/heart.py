"""A tiny heart-disease cohort in the true on-disk format of UCI: four hospitals, no header, `?` for missing."""

from pathlib import Path

import numpy as np

HOSPITALS = {"cleveland": 24, "hungarian": 20, "switzerland": 12, "va": 16}


def write_tiny_heart(folder: Path) -> Path:
    """Write `uci_heart/processed.*.data` below a folder, and return the folder (for `paths.data_dir`)."""
    rng = np.random.default_rng(0)
    home = folder / "uci_heart"
    home.mkdir(parents=True)
    for hospital, number in HOSPITALS.items():
        lines = [row(rng, index) for index in range(number)]
        (home / f"processed.{hospital}.data").write_text("\n".join([*lines, row(rng, 0).replace("1", "?", 1)]) + "\n")
    return folder


def row(rng: np.random.Generator, index: int) -> str:
    """One patient; every second is ill, older and with more chest pain."""
    ill = index % 2
    age, pain = int(rng.integers(40, 60)) + 12 * ill, 1 + (index + ill) % 4
    pressure, cholesterol, rate = (int(rng.integers(low, low + 60)) for low in (110, 180, 110 - 20 * ill + 20))
    values = [
        age,
        index % 2,
        pain,
        pressure,
        cholesterol,
        index % 2,
        index % 3,
        rate,
        ill,
        round(float(rng.uniform(0, 3)), 1),
    ]
    return ",".join(str(value) for value in [*values, "?", "?", "?", ill * 2])
