"""Whether a person's row was trained on: LiRA (Carlini et al., S&P 2022) on heart disease, from weights alone.

    FLIP_DATA_DIR=data python -m tests.benchmarks.attack_membership 64 none 'dp_sgd 8'

A shadow is the engine's own fit of a round at Cleveland, of which each row is trained on with probability a half. The
attacker knows all shadows but one, and gets the weights of that one: those that Cleveland sends, or (a secure sum)
their mean with those of the three other hospitals. Likelihood ratio of the logit of a row's true class, by Gaussians.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json

import numpy as np
from numpy.typing import NDArray

from flip.config.build import initial_module
from flip.config.study import Study
from flip.messages import Payload, Task
from flip.messages.weights import to_arrays
from flip.site.admission import Loaded, Place, accept, admit
from flip.site.fit import LocalFit
from tests.studies import compose_study

TARGET = "cleveland"
STEPS, RATE, OTHERS = 300, 0.05, 4  # of a round; fits of each other hospital, for the mean
SETTINGS = {
    "none": (),
    "dp_sgd 8": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=8"),
    "dp_sgd 3": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=3"),
    "dp_sgd 1": ("privacy=dp_sgd", "privacy.dp_sgd.target_epsilon=1"),
}


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
    """The attack over all shadows, with a 95 % interval by a bootstrap of the rows, each with all its scores."""
    scores, rng = likelihood_ratios(values, member), np.random.default_rng(0)
    auc, found = rates(scores, member)
    drawn = [rng.integers(scores.shape[1], size=scores.shape[1]) for _ in range(resamples)]
    low, high = np.quantile([rates(scores[:, each], member[:, each])[1] for each in drawn], [0.025, 0.975])
    return Scored(auc, found, float(low), float(high))


@dataclass
class Hospital:
    """A hospital of the study, whose training rows can be chosen."""

    place: Place
    loaded: Loaded
    rows: tuple[NDArray[np.float64], ...]  # features, label and person of all rows

    @classmethod
    def of(cls, study: Study, name: str, folder: Path) -> "Hospital":
        """Admit the study at a simulated hospital."""
        place = Place(name, study.sites[name], folder / name)
        loaded = admit(accept(study.manifest_text, place, place.policy()), place)
        parts = loaded.datamodule._rows
        rows = tuple(np.concatenate([parts[split][each] for split in ("train", "test")]) for each in range(3))
        return cls(place, loaded, rows)

    def fit(self, member: NDArray[np.bool_], run: str, start: Payload) -> Payload:
        """The weights after a round on these rows."""
        parts = self.loaded.datamodule._rows
        parts["train"], parts["test"] = (tuple(each[kept] for each in self.rows) for kept in (member, ~member))
        task = Task(run, "study", 0, "fit", start, {}, {}, json.dumps(self.loaded.manifest))
        self.loaded.receive(task, self.place.store(run))
        return LocalFit(self.place, self.loaded, self.place.store(run), task).round()["weights"]


def shadows(data: Path, number: int, settings: Sequence[str]) -> tuple[NDArray[np.float64], ...]:
    """Logits from Cleveland's weights and from the mean, and who was in: [shadows, rows] each."""
    study = compose_study(
        "experiment=heart_disease", "federation=inprocess", f"paths.data_dir={data}", "dataset.scaling=declared",
        "strategy.rounds=1", f"trainer.steps={STEPS}", f"model.optimizer.lr={RATE}", *settings,
    )  # fmt: skip
    rng, start = np.random.default_rng(0), to_arrays(initial_module(study.manifest))
    with tempfile.TemporaryDirectory() as folder:
        sites = {name: Hospital.of(study, name, Path(folder)) for name in study.sites}
        others = {
            name: [site.fit(rng.random(len(site.rows[1])) < 0.5, f"{name}{each}", start) for each in range(OTHERS)]
            for name, site in sites.items()
            if name != TARGET
        }
        target, own, mean, members = sites[TARGET], [], [], []
        features, label, _ = target.rows
        for number_of in range(number):
            member = rng.random(len(label)) < 0.5
            sent = target.fit(member, f"shadow{number_of}", start)
            each = [
                (sent, member.sum()),
                *((pool[rng.integers(OTHERS)], len(sites[n].rows[1]) / 2) for n, pool in others.items()),
            ]
            total = sum(part for _, part in each)
            pooled = {name: sum(np.asarray(w[name], np.float64) * part for w, part in each) / total for name in sent}
            members.append(member)
            for found, weights in ((own, sent), (mean, pooled)):
                found.append(confidences(weights["linear.weight"][0], weights["linear.bias"][0], features, label))
    return np.array(own), np.array(mean), np.array(members)


def main() -> None:
    """Print a line for what Cleveland sends, and one for the mean."""
    data = Path(os.environ["FLIP_DATA_DIR"])
    for name in sys.argv[2:]:
        own, mean, member = shadows(data, int(sys.argv[1]), SETTINGS[name])
        for seen, values in (("own weights", own), ("secure sum", mean)):
            print(name, "|", seen, "|", len(member), "shadows |", scored(values, member), flush=True)


if __name__ == "__main__":
    main()
