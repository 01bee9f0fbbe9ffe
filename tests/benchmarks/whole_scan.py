"""Time and peak memory of `experiment=sarcopenia_scans` on one scan, writing of table, page, SEG and SR included.

FLIP_DATA_DIR=data python tests/benchmarks/whole_scan.py RUN LEVEL            # the real CT as it is: what comes of it
FLIP_DATA_DIR=data python tests/benchmarks/whole_scan.py RUN LEVEL 400 512 512  # by nearest voxels, to such a size

RUN and LEVEL are finished runs of `experiment=sarcopenia` and `experiment=level_finder`.
"""

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from datamodules.nifti import read_nifti_volume
from tests.datamodules.ct_files import save, slices_of

TOLD = ("level_slice", "level_confidence", "muscle_area_cm2", "subcutaneous_fat_cm2", "visceral_fat_cm2", "reason")


def series(folder: Path, size: list[int]) -> None:
    """Write the real CT as a DICOM series, of its own size or of another on the same extent."""
    volume = read_nifti_volume(Path(os.environ["FLIP_DATA_DIR"]) / "ct_patient_a" / "patientA_ct_3mm.nii.gz", "CT")
    own = volume.voxels.shape
    size = size or list(own)
    places = [(np.arange(new) * old) // new for new, old in zip(size, own, strict=True)]
    step, row, column = (mm * old / new for mm, new, old in zip(volume.spacing, size, own, strict=True))
    hu = np.clip(np.rint(volume.voxels[np.ix_(*places)]), -1024, 3071).astype(np.int16)
    images = slices_of(hu, step=(0.0, 0.0, step))
    for image in images:
        image.PixelSpacing, image.SliceThickness = [round(row, 6), round(column, 6)], round(step, 6)
    save(folder, images)


def main(run: str, level: str, *size: str) -> None:
    """Print what the process took, and the row of the table."""
    with tempfile.TemporaryDirectory() as where:
        folder, out = Path(where) / "in", Path(where) / "out"
        series(folder, [int(each) for each in size])
        words = ["experiment=sarcopenia_scans", f"sites.here.root={folder}", f"hydra.run.dir={out}"]
        command = [sys.executable, "-m", "flip", *words, f"model_from={run}", f"companions.level={level}"]
        started = time.monotonic()
        subprocess.run(command, check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{time.monotonic() - started:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time, ", end="")
        print(f"{used.ru_maxrss / 2**20:.2f} GiB at most")
        with (out / "sites" / "here" / "biomarkers.csv").open(newline="") as table:
            for row in csv.DictReader(table):
                print({name: row[name] for name in TOLD})
        print(*sorted(path.relative_to(out).as_posix() for path in out.glob("sites/here/s*/*.dcm")))


if __name__ == "__main__":
    main(*sys.argv[1:])
