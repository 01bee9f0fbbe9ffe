"""Whose row a step was made of: the exact inversion of a layer with a bias, on heart disease, from weights alone.

    FLIP_DATA_DIR=data python -m tests.benchmarks.attack_row 20

A step of plain SGD moves the weights of a layer by the rows times what each adds to the bias. Of one row the quotient
of both is the row itself. Of many rows in one batch it is a mean of them, unless whoever chooses the weights gives each
unit of a wide layer a threshold of its own (Fowl et al., ICLR 2022): neighboring units then differ by one row. The
first attack is on honest weights and steps of few rows, each a whole run of the engine; the second on weights made for
it.
"""

import logging
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from flip.cli.execute import execute
from flip.config.build import datamodule, initial_module
from flip.config.study import Study
from flip.messages import Fault, Payload
from flip.messages.model_file import load_model
from flip.messages.weights import LAST_WEIGHTS, to_arrays
from tests.benchmarks.attack_membership import TARGET, Hospital
from tests.site.chosen_weights import WIDE, ask, hospital, stolen, trap
from tests.studies import compose_study

Floats = NDArray[np.float64]
NEAR = 0.01  # in every column, of columns whose declared range is about two
ALONE, FOUR = (f"sites={TARGET}",), ()
PERSON = ("privacy.distributed_dp.unit=person", "privacy.distributed_dp.batch=1.0")
SETTINGS = {
    "none, 1 row a step": (*ALONE, "dataset.batch_size=1"),
    "none, 8 rows": (*ALONE, "dataset.batch_size=8"),
    "none, all rows": (*ALONE, "dataset.batch_size=1000"),
    "secure_aggregation, 1 row at each of 4 sites": (*FOUR, "dataset.batch_size=1", "privacy=secure_aggregation"),
    "dp_sgd 8, 1 row": (*ALONE, "dataset.batch_size=1", "privacy=dp_sgd"),
    "local_dp 8, 1 row": (*ALONE, "dataset.batch_size=1", "privacy=local_dp"),
    "distributed_dp 8, a site, 1 row at each of 4": (*FOUR, "dataset.batch_size=1", "privacy=distributed_dp"),
    "distributed_dp 8, a person": (*FOUR, "dataset.batch_size=1", "privacy=distributed_dp", *PERSON),
}
STEP = ("dataset.scaling=declared", "trainer.steps=1", "strategy.rounds=1")
WHOLE = ("dataset.batch_size=1000", "model.optimizer.lr=100000", *WIDE)


@dataclass(frozen=True)
class Inverted:
    """What the quotient of a step is nearest to.

    Attributes:
        distance: to the nearest row of any site that took part, the largest over its columns.
        found: whether that row is known by it.
    """

    distance: float
    found: bool


def inverted(before: Payload, after: Payload, rows: Floats, layer: str = "linear") -> Inverted:
    """The attack on one step: `rows` [n, f] are those that it may have been made of."""
    weight, bias = (np.float64(before[name]) - after[name] for name in (f"{layer}.weight", f"{layer}.bias"))
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = weight[0] / bias[0]
    distances = np.abs(rows - guess).max(1)
    distance = float(distances.min()) if np.isfinite(guess).all() else float("inf")
    return Inverted(distance, distance < NEAR)


def step_of(study: Study, folder: Path) -> Inverted:
    """Run the study, and invert what the coordinator has of its one round. Raises RuntimeError where it failed."""
    result = execute(study, folder / "run")
    if result["status"] != "ok":
        raise RuntimeError(result["reason"])
    parts = [datamodule(study.manifest, name, site).train_dataloader() for name, site in study.sites.items()]
    rows = np.concatenate([batch["features"].numpy() for part in parts for batch in part])
    sent = load_model(folder / "run" / LAST_WEIGHTS).weights
    return inverted(to_arrays(initial_module(study.manifest)), sent, rows)


def heart(data: Path, *words: str) -> Study:
    """A study of one step of one round on heart disease."""
    return compose_study("experiment=heart_disease", "federation=inprocess", f"paths.data_dir={data}", *STEP, *words)


def refused(data: Path, *words: str, weights: Payload | None = None) -> Fault | None:
    """What a hospital under its default rules answers to the same step; None: it trains."""
    study = heart(data, *ALONE, *words)
    start = to_arrays(initial_module(study.manifest)) if weights is None else weights
    with tempfile.TemporaryDirectory() as folder:
        return ask(hospital(study, Path(folder)), study, "fit", start).fault


def trapped(data: Path, *words: str) -> tuple[list[int], int, int]:
    """Rows stolen of each hospital's own step from weights made for it, of the mean of all, and rows in a step."""
    study, member = heart(data, *WHOLE, *words), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sites = [Hospital.of(study, name, Path(folder)) for name in study.sites]
        kept = [member.random(len(site.rows[1])) < 0.66 for site in sites]
        features = [site.rows[0][one] for site, one in zip(sites, kept, strict=True)]
        sent = trap(features[0].shape[1])
        back = [site.fit(one, "run", sent) for site, one in zip(sites, kept, strict=True)]
    parts = np.array([len(each) for each in features], np.float64) / sum(map(len, features))
    mean = {name: sum(part * np.float64(each[name]) for part, each in zip(parts, back, strict=True)) for name in sent}
    own = [stolen(sent, each, rows) for each, rows in zip(back, features, strict=True)]
    return own, stolen(sent, mean, np.concatenate(features)), sum(map(len, features))


def main(seeds: int) -> None:
    """Print a line for each setting of both attacks."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    data = Path(os.environ["FLIP_DATA_DIR"])
    print("hospital's rules, 1 row a step:", refused(data, "dataset.batch_size=1"))
    made = trap(heart(data, *WHOLE).manifest["model"]["features"])
    print("hospital's rules, weights made for it:", refused(data, *WHOLE, weights=made))
    for name, words in (("none", ()), ("dp_sgd 8", ("privacy=dp_sgd",))):
        own, mean, rows = trapped(data, *words)
        print(f"weights made for it, {name}: {own} of {rows} rows from each site, {mean} from their mean", flush=True)
    for name, words in SETTINGS.items():
        steps = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                steps.append(step_of(heart(data, f"seed={seed}", *words), Path(folder)))
        found, middle = sum(each.found for each in steps), float(np.median([each.distance for each in steps]))
        print(f"{name}: {found} of {seeds} rows, nearest row at {middle:.2g} in the median", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
