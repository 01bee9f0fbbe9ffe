"""L3 as the center of the vertebra in predicted masks, held against the column `level_mm`: a table of the errors.

python tests/benchmarks/level_by_masks.py runs/abdomen_3d/RUN/sites/coast demo/abdomen/coast/cohort.csv

The first word is a site's folder of a finished `job=predict` of `experiment=abdomen_3d`. A mask without L3, or with one
that touches an end of the scan, tells that L3 is not in view: the rule by which labels are read
(`datamodules.ct.planes.center_of`).
"""

import csv
import sys
from pathlib import Path

import highdicom
import numpy as np

from datamodules.ct.planes import LEVEL, Skip, center_of


def told(mask: Path) -> float | None:
    """Where L3 lies along the patient's z axis, mm; None where it is not in view."""
    seg = highdicom.seg.segread(mask)
    numbers = seg.get_segment_numbers(segment_label=LEVEL)
    if not numbers:
        return None
    volume = seg.get_volume(segment_numbers=numbers, combine_segments=True, skip_overlap_checks=True)
    try:
        center = center_of(volume.array > 0)
    except Skip:
        return None
    return float((volume.affine @ np.array([center, 0, 0, 1]))[2])


def main(site: Path, cohort: Path) -> None:
    """Print the table."""
    true = {row["accession"]: row["level_mm"] for row in csv.DictReader(cohort.open())}
    errors: list[float] = []
    refused, absent, absent_told = 0, 0, 0
    for row in csv.DictReader((site / "predictions.csv").open()):
        found = told(site / row["mask"]) if row["mask"] else None
        level = true[row["accession"]]
        if not level:
            absent, absent_told = absent + 1, absent_told + (found is None)
        elif found is None:
            refused += 1
        else:
            errors.append(abs(found - float(level)))
    print("| in view | told in view | median error, mm | 95th percentile, mm | within 10 mm | out of view | told so |")
    print("|---|---|---|---|---|---|---|")
    middle, high = np.percentile(errors, [50, 95])
    within = np.mean(np.array(errors) <= 10)
    counts, share = f"| {len(errors) + refused} | {len(errors)} |", f"{within:.2f} | {absent} | {absent_told} |"
    print(counts, f"{middle:.1f} | {high:.1f} |", share)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
