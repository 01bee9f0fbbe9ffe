"""Accuracy on heart by epsilon, with the noise inside a secure sum and outside it, of a whole site and of a person.

FLIP_DATA_DIR=FOLDER python -m tests.benchmarks.noise_in_sums SEED [SEED ...]

Of each study the final weights are scored here, on the pooled test rows of the four hospitals: no site sends a score. A
line of JSON a study; by epsilon the median over seeds stands at the end.
"""

import json
import logging
import statistics
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import torch

from flip.cli.execute import execute
from flip.config import build
from flip.config.study import Study
from flip.messages.model_file import load_model
from flip.messages.weights import LAST_WEIGHTS, load_arrays
from tests.studies import compose_study

HEART = ("experiment=heart_disease", "federation=inprocess", "dataset.scaling=declared")
ONE_ROUND = ("strategy.rounds=1", "trainer.steps=1000", "model.optimizer.lr=0.02")
ONE_STEP = ("trainer.steps=1", "strategy.rounds=20", "dataset.batch_size=1000", "model.optimizer.lr=1.0")
STUDIES = {
    "site, none": ("privacy=none", *ONE_ROUND),
    "site, in the sum": ("privacy=distributed_dp", *ONE_ROUND),
    "site, outside": ("privacy=local_dp", *ONE_ROUND),
    "person, none": ("privacy=none", *ONE_STEP),
    "person, in the sum": (
        "privacy=distributed_dp", "privacy.distributed_dp.unit=person", "privacy.distributed_dp.batch=100", *ONE_STEP,
    ),
    "person, outside": ("privacy=dp_sgd", "privacy.dp_sgd.metrics_epsilon=null", *ONE_STEP),
    "person, many steps outside": ("privacy=dp_sgd", "privacy.dp_sgd.metrics_epsilon=null"),
}  # fmt: skip
EPSILONS = {"site": (3, 8, 30, 100), "person": (1, 3, 8)}


def accuracy(study: Study, folder: Path) -> float:
    """Of the study's final weights, over all test rows."""
    result = execute(study, folder)
    if result["status"] != "ok":
        raise RuntimeError(result["reason"])
    module = build.initial_module(study.manifest)
    load_arrays(module, dict(load_model(folder / LAST_WEIGHTS).weights))
    right, rows = 0, 0
    for name, site in study.sites.items():
        data = build.datamodule(study.manifest, name, site)
        for batch in data.test_dataloader():
            with torch.no_grad():
                said = torch.sigmoid(module(batch["features"])).ravel() > 0.5
            right, rows = right + int((said == batch["label"].ravel().bool()).sum()), rows + len(said)
    return right / rows


def main(seeds: list[int]) -> None:
    """Run all studies with each seed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for seed in seeds:
        for name, words in STUDIES.items():
            for target in (0,) if name.endswith("none") else EPSILONS[name.split(",")[0]]:
                own = words[0].removeprefix("privacy=")
                noise = [f"privacy.{own}.target_epsilon={target}"] if target else []
                study = compose_study(*HEART, *words, *noise, f"seed={seed}")
                with tempfile.TemporaryDirectory() as folder:
                    found[name, target].append(accuracy(study, Path(folder) / "run"))
                print(json.dumps([seed, name, target, found[name, target][-1]]), flush=True)
    for (name, target), all_seeds in found.items():
        low, high = min(all_seeds), max(all_seeds)
        print(f"{name:20} {target:5g}  {statistics.median(all_seeds):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
