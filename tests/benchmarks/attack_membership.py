"""Whether a person's row was trained on: LiRA (Carlini et al., S&P 2022) on heart disease, from weights alone.

    FLIP_DATA_DIR=data python -m tests.benchmarks.attack_membership 64 none

A shadow is a run of the study over the four hospitals in which each row of Cleveland is trained on with probability a
half, and tested on otherwise. The attacker knows all shadows but one and gets the weights of that one: those that
Cleveland sent in the last round (what a coordinator sees), or the mean (what it sees of a secure sum). Likelihood ratio
of the logit of a row's true class, Gaussians with one deviation each for in and out.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from flip.cli.execute import execute
from flip.config.build import datamodule
from flip.messages import Reply, Task
from flip.site.steps import Steps
from tests.studies import compose_study

TARGET = "cleveland"
ROUNDS, STEPS = 5, 100
SETTINGS = {
    "none": (),
    "dp_sgd 8": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=8"),
    "dp_sgd 3": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=3"),
    "dp_sgd 1": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=1"),
}
FOLD = 10  # a column that the study does not use: slope


@dataclass(frozen=True)
class Scored:
    """What an attack yields: area under the ROC curve, true positives at 1 % false ones, and its interval."""

    auc: float
    found: float
    low: float
    high: float


def confidences(weights: NDArray[np.float64], bias: float, rows: NDArray[np.float64], label: NDArray[np.float64]):
    """The logit of each row's true class under a linear classifier, [rows]."""
    return (rows @ weights + bias) * np.where(label > 0, 1, -1)


def likelihood_ratios(values: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The log likelihood ratio of in to out of each shadow and row, by all other shadows; both [shadows, rows]."""
    found = np.empty_like(values)
    for one in range(len(values)):
        others = np.arange(len(values)) != one
        score = np.zeros(values.shape[1])
        for inside, sign in ((True, 1), (False, -1)):
            kept = np.where(member[others] == inside, values[others], np.nan)
            mean, deviation = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0, ddof=1) + 1e-12
            score += sign * (-np.log(deviation) - ((values[one] - mean) / deviation) ** 2 / 2)
        found[one] = score
    return found


def rates(scores: NDArray[np.float64], member: NDArray[np.bool_], share: float = 0.01) -> tuple[float, float]:
    """Area under the ROC curve, and the true positives at this share of false positives."""
    order = np.argsort(-scores.ravel(), kind="stable")
    inside = member.ravel()[order]
    true, false = np.cumsum(inside) / inside.sum(), np.cumsum(~inside) / (~inside).sum()
    auc = float(np.trapezoid(np.concatenate([[0], true]), np.concatenate([[0], false])))
    return auc, float(true[false <= share].max(initial=0.0))


def scored(values: NDArray[np.float64], member: NDArray[np.bool_], resamples: int = 500) -> Scored:
    """The attack over all shadows, with a 95 % interval by a bootstrap of the rows (a person's scores stay together)."""
    scores, rng = likelihood_ratios(values, member), np.random.default_rng(0)
    auc, found = rates(scores, member)
    drawn = [rng.integers(scores.shape[1], size=scores.shape[1]) for _ in range(resamples)]
    low, high = np.quantile([rates(scores[:, each], member[:, each])[1] for each in drawn], [0.025, 0.975])
    return Scored(auc, found, float(low), float(high))


def dealt(data: Path, folder: Path, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Write the four hospitals' tables with a column of the split; which rows of Cleveland are trained on."""
    members = np.zeros(0, bool)
    (folder / "uci_heart").mkdir(parents=True)
    for path in sorted((data / "uci_heart").glob("processed.*.data")):
        rows = [line.split(",") for line in path.read_text().splitlines() if line]
        inside = rng.random(len(rows)) < 0.5
        for row, trained in zip(rows, inside, strict=True):
            row[FOLD] = "train" if trained else "test"
        (folder / "uci_heart" / path.name).write_text("\n".join(map(",".join, rows)) + "\n")
        members = inside if TARGET in path.name else members
    return members


def shadow(data: Path, folder: Path, seed: int, settings: Sequence[str]) -> tuple[list[dict[str, np.ndarray]], ...]:
    """The weights that Cleveland sent last and their mean over the sites, and the rows with who was in."""
    members = dealt(data, folder / "data", np.random.default_rng(seed))
    study = compose_study(
        "experiment=heart_disease", "federation=inprocess", f"paths.data_dir={folder / 'data'}", f"seed={seed}", f"strategy.rounds={ROUNDS}",
        f"trainer.steps={STEPS}", "dataset.scaling=declared", "~dataset.split.train", "~dataset.split.validate", "~dataset.split.seed",
        "dataset.split._target_=datamodules.splits.ByColumn", "+dataset.split.column=slope",
        *settings,
    )  # fmt: skip
    sent: dict[str, Reply] = {}
    honest = Steps.fit

    def fit(self: Steps, task: Task) -> Reply:
        sent[self.place.name] = reply = honest(self, task)
        return reply

    Steps.fit = fit  # type: ignore[method-assign]
    try:
        result = execute(study, folder / "run")
    finally:
        Steps.fit = honest  # type: ignore[method-assign]
    assert result["status"] == "ok", result["reason"]
    own, parts = sent[TARGET].weights, np.array([reply.examples or 1 for reply in sent.values()], float)
    mean = {
        name: np.einsum("s,s...->...", parts / parts.sum(), np.stack([np.asarray(r.weights[name]) for r in sent.values()]))
        for name in own
    }
    rows = datamodule(study.manifest, TARGET, study.sites[TARGET])
    rows.setup()
    features = np.concatenate([rows._rows[split][0] for split in ("train", "test")])
    return [own, mean], members, features, rows
