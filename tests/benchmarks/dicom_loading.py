"""A folder of DICOM to HU in memory: our reader against SimpleITK's and dicom2nifti's, on the same folders in one run.

    pip install SimpleITK dicom2nifti
    python tests/benchmarks/dicom_loading.py FOLDER [RUNS]

FOLDER receives, where they are absent, the demo cohort (24 small series, encoded in another way at each of its four
sites) and a series of 512 x 512 of each encoding. The three readers run in turn, since machines drift, after one run
that is not counted: it imports, and starts the processes of our decoder. Printed: median seconds over the runs, and
the median ratio, pair by pair.
"""

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import dicom2nifti
import numpy as np
import SimpleITK

from datamodules.dicom import Decoder, read_series
from datamodules.phantom import PROFILES, generate

Reader = Callable[[Path], np.ndarray]


def simpleitk(folder: Path) -> np.ndarray:
    """SimpleITK's reader of a series."""
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    return SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float32)


def nifti(folder: Path) -> np.ndarray:
    """dicom2nifti's, in memory."""
    found = dicom2nifti.dicom_series_to_nifti(str(folder), None, reorient_nifti=False)
    return np.asarray(found["NII"].dataobj, dtype=np.float32)


def seconds(read: Reader, folders: Sequence[Path]) -> float:
    """Elapsed seconds of reading all folders."""
    started = time.perf_counter()
    for folder in folders:
        read(folder)
    return time.perf_counter() - started


def compare(name: str, folders: Sequence[Path], runs: int) -> None:
    """Run the readers in turn over the folders, and print their medians."""
    with Decoder() as decoder:
        readers: dict[str, Reader] = {
            "ours": lambda folder: read_series(folder, decoder=decoder).voxels,
            "SimpleITK": simpleitk,
            "dicom2nifti": nifti,
        }
        measured: dict[str, list[float]] = {reader: [] for reader in readers}
        for _ in range(runs + 1):
            for reader, read in readers.items():
                measured[reader].append(seconds(read, folders))
    words = [f"{reader} {statistics.median(times[1:]):.3f} s" for reader, times in measured.items()]
    for reader in ("SimpleITK", "dicom2nifti"):
        pairs = zip(measured["ours"][1:], measured[reader][1:], strict=True)
        words.append(f"ours / {reader} {statistics.median(own / other for own, other in pairs):.2f}")
    print(f"{name}: {len(folders)} series; {'; '.join(words)}", flush=True)


def main(folder: Path, runs: int) -> None:
    """Generate what is absent, compare."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for name, profile in PROFILES.items():
        generate(folder / "demo" / name, profile=profile, patients=6)
        large = replace(profile, pixels=512, slices=80, thickness=1.0)
        generate(folder / "large" / name, profile=large, patients=1)
    for size in ("demo", "large"):
        for name, profile in PROFILES.items():
            series = sorted((folder / size / name / "dicom").iterdir())
            compare(f"{size} {profile.transfer_syntax.name}", series, runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7)
