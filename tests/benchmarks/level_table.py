"""The errors of a level finder by site, as a table, and what it tells of parts of the real CT, of which L3 is known.

FLIP_DATA_DIR=data python tests/benchmarks/level_table.py runs/level_finder/RUN
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.level_finder import LevelFinder

COLUMNS = {
    "median error, mm": "error_median_binned",
    "95th percentile, mm": "error_p95_binned",
    "within 10 mm": "within_10mm",
    "told in view, of those in view": "found",
    "told out of view, of those out of view": "absent_told",
}
PARTS = {"whole": (0, 112), "without pelvis": (45, 112), "without ribs": (0, 92), "neither": (45, 92)}
PARTS |= {"above L3": (82, 112), "below L3": (0, 61)}
TRUE = 73  # slice of the center of L3, which reaches from 64 to 79


def table(metrics: dict[str, float]) -> str:
    """A row for each place that was tested, by the names in a `result.json`."""
    places = dict.fromkeys(name.rsplit("/", 1)[0] for name in metrics if name.startswith("test/"))
    lines = [f"| site | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for place in places:
        if f"{place}/within_10mm" in metrics:
            values = [metrics.get(f"{place}/{name}") for name in COLUMNS.values()]
            told = ["none" if value is None else f"{value:.3g}" for value in values]
            lines.append(f"| {place.split('/')[-1]} | {' | '.join(told)} |")
    return "\n".join(lines)


def trained(run: Path) -> "LevelFinder":
    """The model of a run."""
    from flip.config.build import model
    from flip.messages.model_file import load_model
    from flip.messages.weights import load_arrays
    from tests.studies import compose_study

    made = model(compose_study(config_dir=run, config_name="run").manifest)
    load_arrays(made, load_model(run).weights)
    return made.eval()  # type: ignore[return-value]


def real(module: "LevelFinder", folder: Path) -> str:
    """A row for each part of the real CT."""
    from datamodules.nifti import read_nifti_volume
    from models.level_finder import find_level

    volume = read_nifti_volume(folder / "ct_patient_a" / "patientA_ct_3mm.nii.gz", "CT")
    lines = ["| part of the real CT | slice told, of 73 | confidence | out of view |", "|---|---|---|---|"]
    for name, (first, end) in PARTS.items():
        level = find_level(module, volume.voxels[first:end], volume.spacing)
        place = "refused" if level.position is None else f"{level.position + first:.1f}"
        lines.append(f"| {name} | {place} | {level.confidence:.2f} | {level.absent:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run = Path(sys.argv[1]).resolve()
    print(table(json.loads((run / "result.json").read_text())["metrics"]), end="\n\n")
    print(real(trained(run), Path(os.environ["FLIP_DATA_DIR"])))
