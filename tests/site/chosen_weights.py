"""A hospital of 120 patients, and a coordinator that sends it weights of its own choice instead of the study's."""

from pathlib import Path
from statistics import NormalDist
from weakref import WeakKeyDictionary

import numpy as np
import torch

from flip.config.schema import Site
from flip.config.study import Study
from flip.config.targets import STUDY_TARGETS
from flip.messages import Payload, Reply, Scalar, Task
from flip.messages.summary import Topic
from flip.messages.wire import join
from flip.site.silo import Silo
from models.tabular import LinearClassifier
from tests.cohorts.heart import row
from tests.studies import compose_study

HIDDEN = 600  # units of the trap: each tells where a row lies among as many thresholds
RULES = {"minimum_persons": 50, "minimum_cell": 5, "targets": [*STUDY_TARGETS, "tests."], "approval": "none"}
WIDE = ("model._target_=tests.site.chosen_weights.WideClassifier", "allow_targets=[tests.]")

AGREED: WeakKeyDictionary[Silo, Payload] = WeakKeyDictionary()  # statistics of each site, asked for once


class WideClassifier(LinearClassifier):
    """A study's own network: one hidden layer, far wider than the cohort."""

    def __init__(self, features, optimizer, threshold=0.5):
        super().__init__(features, optimizer, threshold)
        self.linear = torch.nn.Sequential(
            torch.nn.Linear(features, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
        )


def study_of(folder: Path, *overrides: str) -> Study:
    """One site of 120 patients; one step on all of its training rows in each of five rounds."""
    rng = np.random.default_rng(0)
    home = folder / "uci_heart"
    home.mkdir(parents=True)
    text = "\n".join(row(rng, index) for index in range(120)) + "\n"
    (home / "processed.cleveland.data").write_text(text)
    whole = [
        "sites=cleveland",
        "dataset.batch_size=1000",
        "trainer.steps=1",
        "strategy.rounds=5",
        "model.optimizer.lr=100000",
    ]
    return compose_study("experiment=heart_disease", f"paths.data_dir={folder}", *whole, *overrides)


def hospital(study: Study, home: Path, **rules: object) -> Silo:
    """The site as a hospital has it, under its own file."""
    site = study.sites["cleveland"]
    return Silo("cleveland", Site(root=site.root, person="row", policy={**RULES, **rules}), home, deployed=True)


def ask(
    silo: Silo,
    study: Study,
    step: str,
    weights: Payload,
    round: int = 0,
    stage: str = "study",
    state: Payload | None = None,
    **params: Scalar,
) -> Reply:
    """The site's answer, with its own statistics for those of all sites."""
    if silo not in AGREED:
        told = silo.answer(Task("run", "study", 0, "statistics", {}, {}, {}, study.manifest_text))
        assert told.fault is None, told.fault
        own = {name: summary.values for name, summary in told.summaries[Topic.STATISTICS].items()}
        AGREED[silo] = join(statistics=own)
    arrays = {**AGREED[silo], **(state or {})}
    return silo.answer(Task("run", stage, round, step, weights, arrays, params, study.manifest_text))


def training_rows(silo: Silo) -> np.ndarray:
    """What the site keeps to itself."""
    (loaded,) = silo._loaded.values()
    (batch,) = loaded.datamodule.train_dataloader()
    return batch["features"].numpy()


def trap(features: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under which each hidden unit sees the rows beyond one threshold (Fowl et al., ICLR 2022)."""
    direction = np.random.default_rng(seed).normal(size=features)
    direction /= np.linalg.norm(direction)
    thresholds = np.array([NormalDist().inv_cdf((unit + 0.5) / HIDDEN) for unit in range(HIDDEN)])
    arrays = {
        "linear.0.weight": np.tile(direction, (HIDDEN, 1)),
        "linear.0.bias": -thresholds,
        "linear.2.weight": np.full((1, HIDDEN), 1e-4),
        "linear.2.bias": np.zeros(1),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def stolen(sent: Payload, back: Payload, rows: np.ndarray) -> int:
    """How many rows the difference of neighboring units gives, each number right to a hundredth."""
    if not back:
        return 0
    weight, bias = (
        np.diff(np.float64(sent[name]) - back[name], axis=0) for name in ("linear.0.weight", "linear.0.bias")
    )
    found = weight[abs(bias) > 1e-4] / bias[abs(bias) > 1e-4, None]
    nearest = abs(found[:, None] - rows[None]).max(-1).min(0) if len(found) else np.full(len(rows), np.inf)
    return int((nearest < 1e-2).sum())


def score_at(study: Study, cut: float) -> dict[str, np.ndarray]:
    """Weights that say ill of whoever is older, in standard deviations from the mean."""
    weight, bias = np.zeros((1, 13), np.float32), np.full(1, -cut * 100, np.float32)
    weight[0, 0] = 100
    return {"linear.weight": weight, "linear.bias": bias}
