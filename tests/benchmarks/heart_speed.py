"""One seed of heart disease, whole process, report included, against a bare loop and Flower by hand, the same arrays.

    FLIP_DATA_DIR=data python tests/benchmarks/heart_speed.py [PAIRS]

Printed: wall and processor seconds, seconds of the rounds alone, and their ratios. The goal is at most 2.1 of the whole
process and 1.2 of the rounds against the bare loop, 1.0 of the whole process against Flower by hand.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import Program, compare, printed, recorded
from torch.utils.data import default_collate

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.config import build
from flip.config.resolve import settle

STUDY = "experiment=heart_disease"


def write_arrays(path: Path, data: str) -> None:
    """The rows of each site as its dataset prepares them: training rows as the site trains, test rows as pooled."""
    study = settle(composed(Composer([STUDY, f"paths.data_dir={data}"])))
    cohorts, moments = {}, []
    for name, site in study.sites.items():
        cohorts[name] = build.datamodule(study.manifest, name, site)
        build.persons(cohorts[name])
        build.load_cohort(cohorts[name])
        moments.append(cohorts[name].statistics())
    agreed = {key: np.sum([each[key] for each in moments], axis=0) for key in moments[0]}
    arrays = {}
    for name, cohort in cohorts.items():
        cohort.agree(agreed)
        for split, loader in {"train": cohort.train_dataloader(), "test": cohort.pooled_test_dataloader()}.items():
            rows = default_collate([loader.dataset[index] for index in range(len(loader.dataset))])
            arrays |= {f"{name}/{split}/x": rows["features"].numpy(), f"{name}/{split}/y": rows["label"].numpy()}
    np.savez(path, **arrays)


def main(pairs: int) -> None:
    """Prepare the arrays, run the pairs, and print the figures."""
    data = str(Path(os.environ["FLIP_DATA_DIR"]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_arrays(folder / "heart.npz", data)
        script = str(Path(__file__).with_name("bare_heart.py").resolve())
        bare = Program("a bare loop", [sys.executable, script, str(folder / "heart.npz")], printed)
        for way in ("federation=inprocess", "federation=inprocess federation.workers=2"):
            command = [sys.executable, "-m", "flip", STUDY, f"paths.data_dir={data}", *way.split()]
            compare(Program(way, command, recorded), bare, folder / way, pairs, "2.1 of the whole, 1.2 of the rounds")
        script = str(Path(__file__).with_name("flower_heart.py").resolve())
        hand = Program("Flower by hand", [sys.executable, script, str(folder / "heart.npz")], printed)
        command = [sys.executable, "-m", "flip", STUDY, f"paths.data_dir={data}", "federation=flower"]
        compare(Program("federation=flower", command, recorded), hand, folder / "flower", pairs, "1.0 of the whole")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
