"""A tiny archive of chest radiographs as MedMNIST writes it, and a hospital's own in DICOM, in every orientation."""

from pathlib import Path

import numpy as np

from tests.datamodules.test_radiograph import ORIENTATIONS, write_radiograph

PARTS = {"train": 60, "val": 16, "test": 24}


def chest_xray(folder: Path) -> list[str]:
    """100 images over two simulated hospitals, and a third with 16 films in DICOM, which is only tested on."""
    rng = np.random.default_rng(0)
    archive = folder / "pneumoniamnist" / "pneumoniamnist_reconstructed.npz"
    archive.parent.mkdir(parents=True)
    labels = {name: np.arange(number)[:, None] % 2 for name, number in PARTS.items()}
    images = {name: film(rng, label[:, 0]) for name, label in labels.items()}
    np.savez(
        archive,
        **{f"{name}_images": each for name, each in images.items()},
        **{f"{name}_labels": each.astype(np.uint8) for name, each in labels.items()},
    )
    write_radiographs(folder / "radiographs", rng)
    two = ["dataset.partition.parts=2", "dataset.partition.minimum=10", "sites=[xray,radiographs]"]
    small = ["strategy.rounds=2", "trainer.steps=2", "trainer.epochs=null", "trainer.centralized.max_epochs=1"]
    return [f"paths.data_dir={folder}", *two, "~sites.xray_2", "~sites.xray_3", *small]


def film(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """Images [n, 28, 28] uint8; where the label is 1 one side is whiter."""
    images = rng.integers(0, 120, (len(label), 28, 28))
    images[:, :, 14:] += 100 * label[:, None, None]
    return images.astype(np.uint8)


def write_radiographs(folder: Path, rng: np.random.Generator) -> None:
    """Two films in each of the eight orientations, every second in MONOCHROME1, a folder a study, and their table."""
    labels = np.arange(16) // 8
    rows = ["person,accession,label"]
    for row, (pixels, label) in enumerate(zip(film(rng, labels), labels, strict=True)):
        says, turned = list(ORIENTATIONS.items())[row % 8]
        (folder / "images" / f"acc{row}").mkdir(parents=True)
        inverted = row % 2 == 1
        stored = turned(255 - pixels if inverted else pixels)
        tags = {"PatientOrientation": list(says), "PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
        write_radiograph(folder / "images" / f"acc{row}" / "film.dcm", stored, **tags)
        rows.append(f"p{row},acc{row},{label}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
