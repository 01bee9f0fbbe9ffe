"""50 sites of 100 images, a small network, 10 rounds: whole process against a bare loop and, where it is, against pfl.

    python tests/benchmarks/cnn_speed.py [PAIRS] [PYTHON]

PYTHON is of an environment with the same torch and `pfl`. The goal is at most 1.15 of pfl's.
"""

import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from pairs import Program, compare, printed, recorded
from small_cnn import RATE, ROUNDS, SITES, write_arrays

HERE = Path(__file__).resolve().parent
EXPERIMENT = f"""
    # @package _global_
    defaults:
      - override /sites: [{", ".join(f"site{index:02}" for index in range(SITES))}]
    name: cnn
    allow_targets: [cnn_study.]
    dataset: {{_target_: cnn_study.Data}}
    model: {{_target_: cnn_study.Model, optimizer: {{_target_: torch.optim.SGD, _partial_: true, lr: {RATE}}}}}
    strategy: {{rounds: {ROUNDS}}}
"""


def write_conf(folder: Path, arrays: Path) -> None:
    """The study and its sites, for `--config-dir`."""
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "cnn.yaml").write_text(dedent(EXPERIMENT).lstrip())
    (folder / "sites").mkdir()
    for path in arrays.glob("*.npz"):
        text = f"# @package sites.{path.stem}\nroot: {path}\npolicy: public_data\n"
        (folder / "sites" / f"{path.stem}.yaml").write_text(text)


def main(pairs: int, other: str = "") -> None:
    """Prepare the arrays, run the pairs, and print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_arrays(folder / "arrays")
        write_conf(folder / "conf", folder / "arrays")
        flip = [sys.executable, "-m", "flip", "--config-dir", str(folder / "conf"), "experiment=cnn"]
        command = ["env", f"PYTHONPATH={HERE}", *flip, "federation=inprocess"]
        ours = Program("federation=inprocess", command, recorded)
        bare = Program("a bare loop", [sys.executable, str(HERE / "bare_cnn.py"), str(folder / "arrays")], printed)
        compare(ours, bare, folder / "bare", pairs, "none")
        if other:
            pfl = Program("pfl", [other, str(HERE / "pfl_cnn.py"), str(folder / "arrays")], printed)
            compare(ours, pfl, folder / "pfl", pairs, "1.15 of the whole")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, *sys.argv[2:])
