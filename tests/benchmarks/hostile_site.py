"""One of five sites is hostile: the accuracy at the four honest ones, by strategy and by what the hostile one does.

    FLIP_DATA_DIR=data python tests/benchmarks/hostile_site.py 42,43,44

Heart disease with the four real hospitals, Cleveland's rows dealt to two sites, of which the second is hostile. It
sends its update with the sign turned (w - d for w + d), ten times as long (w + 10 d), or trained on turned labels.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from flip.cli.execute import execute
from flip.messages import Reply, Task
from flip.site.steps import Steps
from tests.studies import compose_study

STRATEGIES = ("fedavg", "median", "trimmed_mean", "krum")
FACTORS = {"honest": 1.0, "sign flipped": -1.0, "scaled x10": 10.0, "labels flipped": 1.0}  # of the update
HONEST = ("cleveland", "hungarian", "switzerland", "va")
honest_fit = Steps.fit


def deal(data: Path, folder: Path) -> dict[str, Path]:
    """Cleveland's rows as two sites', in turn, and the second half again with the label turned."""
    rows = (data / "uci_heart" / "processed.cleveland.data").read_text().splitlines()
    turned = [f"{row.rpartition(',')[0]},{int(row.rpartition(',')[2] == '0')}" for row in rows[1::2]]
    files = {}
    for name, lines in {"cleveland": rows[::2], "fifth": rows[1::2], "turned": turned}.items():
        files[name] = folder / f"{name}.data"
        files[name].write_text("\n".join(lines) + "\n")
    return files


def behave(factor: float) -> None:
    """From now on the fifth site sends its update times a factor."""

    def fit(self: Steps, task: Task) -> Reply:
        reply = honest_fit(self, task)
        if self.place.name != "fifth" or factor == 1:
            return reply
        return replace(reply, weights={name: sent(task.weights[name], each) for name, each in reply.weights.items()})

    def sent(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if not np.issubdtype(after.dtype, np.floating):
            return after
        bent: np.ndarray = (before + factor * (after - before)).astype(after.dtype)
        return bent

    Steps.fit = fit  # type: ignore[method-assign]


def accuracy(strategy: str, seed: str, files: Mapping[str, Path], act: str, run: Path) -> float:
    """Accuracy at the honest hospitals, each counting the same."""
    behave(FACTORS[act])
    root = files["turned" if act == "labels flipped" else "fifth"]
    study = compose_study(
        "experiment=heart_disease",
        "federation=inprocess",
        f"strategy={strategy}",
        f"seed={seed}",
        f"sites.cleveland.root={files['cleveland']}",
        f"+sites.fifth={{root: {root}, columns: {{}}, trains: true, policy: public_data}}",
        "strategy.rounds=15",
    )
    metrics = execute(study, run)["metrics"]
    return float(np.mean([metrics[f"test/site/{site}/accuracy"] for site in HONEST]))


def main() -> None:
    """Print the table, a row for each strategy: means over the seeds."""
    seeds = sys.argv[1].split(",")
    table = [f"| strategy | {' | '.join(FACTORS)} |", f"|---{'|---' * len(FACTORS)}|"]
    with tempfile.TemporaryDirectory() as name:
        files = deal(Path(os.environ["FLIP_DATA_DIR"]), Path(name))
        for strategy in STRATEGIES:
            rows = [
                [accuracy(strategy, seed, files, act, Path(name) / f"{strategy}-{act}-{seed}") for act in FACTORS]
                for seed in seeds
            ]
            cells = np.mean(rows, axis=0)
            table.append(f"| {strategy} | {' | '.join(f'{cell:.3f}'.lstrip('0') for cell in cells)} |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
