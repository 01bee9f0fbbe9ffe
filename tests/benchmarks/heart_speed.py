"""Whole process, one seed of heart disease, report included, against a bare PyTorch loop of the same arithmetic.

    FLIP_DATA_DIR=data python tests/benchmarks/heart_speed.py [PAIRS]

The two run in turn, and the ratio is taken pair by pair, since machines drift. Printed: median seconds of each, and the
median ratio with its range. The target is at most 2.2.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 2.2


def seconds(command: list[str], folder: str) -> float:
    """Seconds of a whole process; it must succeed."""
    started = time.perf_counter()
    subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return time.perf_counter() - started


def main(pairs: int) -> None:
    """Run the pairs, after one of each that is not counted, and print the figures."""
    data = str(Path(os.environ["FLIP_DATA_DIR"]).resolve())
    bare = [sys.executable, str(Path(__file__).with_name("bare_heart.py").resolve()), data]
    variants = {
        "inprocess": ["federation=inprocess"],
        "inprocess, 2 workers": ["federation=inprocess", "federation.workers=2"],
    }
    for name, overrides in variants.items():
        ours = [sys.executable, "-m", "flip", "experiment=heart_disease", f"paths.data_dir={data}", *overrides]
        with tempfile.TemporaryDirectory() as folder:
            measured = [(seconds(ours, folder), seconds(bare, folder)) for _ in range(pairs + 1)][1:]
        ratios = [first / second for first, second in measured]
        middle = [statistics.median(column) for column in zip(*measured, strict=True)]
        print(
            f"{name}: {middle[0]:.1f} s, bare {middle[1]:.1f} s, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) over {pairs} pairs; target {TARGET}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
