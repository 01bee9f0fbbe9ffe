"""Five hospitals with scans of the whole abdomen, tiny."""

from dataclasses import replace
from pathlib import Path

from datamodules.phantom.abdomen import PROFILES, generate

SMALL = (
    "strategy.rounds=2",
    "trainer.steps=2",
    "trainer.centralized.max_epochs=1",
    "dataset.image.spacing_mm=[14.0,14.0,16.0]",
    "dataset.patches.size=[28,24,24]",
    "model.network.channels=[8,16]",
    "model.network.strides=[2]",
)


def abdomen_3d(folder: Path) -> list[str]:
    """Four scans of each hospital, as DICOM with SEG or NIfTI, L3 in view or not; a network of two levels."""
    for name, profile in PROFILES.items():
        tiny = replace(profile, scanner=replace(profile.scanner, thickness=14.0))
        generate(folder / "abdomen" / name, profile=tiny, patients=4, pixels=32)
    return [f"paths.demo_dir={folder}", *SMALL]
