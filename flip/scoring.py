"""What the metrics of a module say of a split: values, intervals, and the sums that may leave a site.

A module has `metrics`, whose states sum over sites. It may have, of the test split alone, `subgroup_metrics` (the same,
named `group/level/metric`, with `levels` by group) and `exact` (whose rows stay at the site; `auroc` has a partner
`auroc_...` that sums). A metric may have `interval() -> (low, high)` with its `method`, and `coarse(cell)`: its states
with thin bins merged. Intervals are of 95 % and named `metric/low` and `metric/high`.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torchmetrics.utilities import dim_zero_cat

from flip.training import Device

RESAMPLES = 200  # of the bootstrap: half a second for the AUROC of a site, 5 s for the C-index of 1,000 patients
BOOTSTRAP = (
    f"percentile bootstrap at the site, {RESAMPLES} resamples of its persons, or of examples where none is named"
)
PERSON = "person"  # key of a batch: whose rows they are, int64 [n]
LOW, HIGH, GAP, EXAMPLES = "low", "high", "gap", "examples"


@dataclass
class Scores:
    """A split's scores: values by metric, and states by `metric/state`, in their own types."""

    values: dict[str, float] = field(default_factory=dict)
    states: dict[str, np.ndarray] = field(default_factory=dict)


class ScoreCallback(lightning.Callback):
    """Takes the metrics before the module itself computes and resets them."""

    def __init__(self, cell: int, rng: np.random.Generator | None) -> None:
        self.scores, self.cell, self.rng = Scores(), cell, rng
        self.persons: list[torch.Tensor] = []

    def _take(self, metrics: Mapping[str, Any]) -> None:
        for name, metric in metrics.items():
            self.scores.values |= values_of(name, metric, intervals=self.rng is not None)
            states = metric.coarse(self.cell) if hasattr(metric, "coarse") else metric_states(metric)
            self.scores.states |= {f"{name}/{state}": array(tensor) for state, tensor in states.items()}

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the metrics that sum."""
        self._take(metrics_of(pl_module, "validate"))

    def on_test_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, *where: Any
    ) -> None:
        """Keep whose rows the exact metrics have taken."""
        if isinstance(batch, Mapping) and PERSON in batch:
            self.persons.append(batch[PERSON].cpu())

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take all metrics."""
        self._take(metrics_of(pl_module, "test"))
        person = torch.cat(self.persons).numpy() if self.persons else None
        for name, metric in exact_of(pl_module).items():
            if not metric.update_called:
                continue
            self.scores.values[name] = float(metric.compute())
            if self.rng is not None:
                own = hasattr(metric, "interval")
                self.scores.values |= bounds(name, metric.interval() if own else bootstrap(metric, self.rng, person))


def metrics_of(module: Any, split: str) -> dict[str, Any]:
    """The metrics whose states sum, by name; of the test split by subgroup too."""
    by_subgroup = getattr(module, "subgroup_metrics", {}) if split == "test" else {}
    return {**dict(module.metrics.items()), **dict(by_subgroup.items())}


def exact_of(module: Any) -> dict[str, Any]:
    """The metrics that keep a site's rows, by name."""
    return dict(getattr(module, "exact", {}).items())


def names_of(module: Any, split: str) -> frozenset[str]:
    """Every name that a site's value may have."""
    names = [*metrics_of(module, split), *(exact_of(module) if split == "test" else ())]
    return frozenset(names) | {f"{name}/{end}" for name in names for end in (LOW, HIGH)}


def methods_of(module: Any) -> dict[str, str]:
    """How the interval of each metric is made, by the metric's name."""
    summed = {name: metric.method for name, metric in module.metrics.items() if hasattr(metric, "method")}
    return {**summed, **{name: getattr(metric, "method", BOOTSTRAP) for name, metric in exact_of(module).items()}}


def metric_states(metric: Any) -> dict[str, torch.Tensor]:
    """The sum-reduced states of a torchmetrics Metric, by name."""
    return {state: getattr(metric, state) for state in metric._defaults}


def states_of(module: Any, split: str) -> dict[str, np.ndarray]:
    """Arrays like the states of the module's metrics, by `metric/state`."""
    return {
        f"{name}/{state}": tensor.numpy()
        for name, metric in metrics_of(module, split).items()
        for state, tensor in metric_states(metric).items()
    }


def array(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as an array."""
    return tensor.detach().cpu().numpy().copy()


def values_of(name: str, metric: Any, *, intervals: bool) -> dict[str, float]:
    """A metric's value, and its interval where it has one; nothing of a metric that no row has come to."""
    if not metric.update_called:
        return {}
    found = bounds(name, metric.interval()) if intervals and hasattr(metric, "interval") else {}
    return {name: float(metric.compute()), **found}


def bounds(name: str, ends: tuple[float, float]) -> dict[str, float]:
    """An interval by name; none where an end is unknown."""
    return {f"{name}/{LOW}": ends[0], f"{name}/{HIGH}": ends[1]} if all(map(math.isfinite, ends)) else {}


def bootstrap(metric: Any, rng: np.random.Generator, person: np.ndarray | None = None) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of a metric over resamples of its rows, of one person together.

    `person` is whose each row is; without it, and for a metric that keeps other rows, each row is a person's own. NaN
    with fewer than two persons, or where more than a tenth of the resamples have no value (one class alone). Source:
    Efron B, Tibshirani RJ, An Introduction to the Bootstrap, 1993; by cluster: Field CA, Welsh AH, J R Stat Soc B
    2007;69:369-390.
    """
    rows = {state: dim_zero_cat(kept) for state, kept in metric_states(metric).items() if len(kept)}
    number = min((len(kept) for kept in rows.values()), default=0)
    whose = np.arange(number) if person is None or len(person) != number else person
    _, group, counts = np.unique(whose, return_inverse=True, return_counts=True)
    together = np.split(np.argsort(group, kind="stable"), counts.cumsum()[:-1])
    if len(counts) < 2:
        return math.nan, math.nan
    again, found = copy.deepcopy(metric), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(together), size=len(together))
        picked = torch.from_numpy(np.concatenate([together[each] for each in drawn]))
        again.reset()
        for state, kept in rows.items():
            setattr(again, state, [kept[picked]])
        again._update_count = 1
        found.append(float(again.compute()))
    known = [value for value in found if math.isfinite(value)]
    if len(known) < 0.9 * RESAMPLES:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def evaluate(
    module: Any, loaders: Any, *, split: str, device: Device, cell: int = 1, rng: np.random.Generator | None = None
) -> Scores:
    """Score a module on the `validate` or `test` split.

    `cell` is what a bin of the states must hold at least; with `rng` the values have intervals.
    """
    callback = ScoreCallback(cell, rng)
    metrics = [*metrics_of(module, "test").values(), *exact_of(module).values()]
    for metric in metrics:
        metric.reset()
    trainer = device.trainer(callbacks=[callback])
    run = trainer.test if split == "test" else trainer.validate
    run(module, dataloaders=loaders, verbose=False)
    for metric in metrics:
        metric.reset()
    return callback.scores


def filled(metrics: Mapping[str, Any], states: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Those metrics whose states are all there, holding them; reset them after use."""
    found = {}
    for name, metric in metrics.items():
        names = {state: f"{name}/{state}" for state in metric_states(metric)}
        if not all(key in states for key in names.values()):
            continue
        metric.reset()
        for state, key in names.items():
            like = getattr(metric, state)
            setattr(metric, state, torch.as_tensor(states[key]).to(like.dtype).reshape(like.shape))
        metric._update_count = 1  # torchmetrics warns of a compute without an update; the updates were the sites'
        found[name] = metric
    return found


def values_from_states(
    metrics: Mapping[str, Any], states: Mapping[str, np.ndarray], *, intervals: bool = False
) -> dict[str, float]:
    """Compute metrics from states that were summed over sites; a metric whose states are missing is left out."""
    values: dict[str, float] = {}
    for name, metric in filled(metrics, states).items():
        values |= values_of(name, metric, intervals=intervals)
        metric.reset()
    return {name: value for name, value in values.items() if math.isfinite(value)}


def gaps(values: Mapping[str, float], levels: Mapping[str, list[str]]) -> dict[str, float]:
    """By subgroup and metric (`group/gap/metric`) the largest less the smallest value over the group's levels."""
    found = {}
    for group, named in levels.items():
        metrics = {key.split("/", 2)[2] for key in values if key.startswith(f"{group}/") and key.count("/") == 2} - {
            EXAMPLES
        }
        for metric in sorted(metrics):
            known = [values[key] for level in named if (key := f"{group}/{level}/{metric}") in values]
            if len(known) > 1:
                found[f"{group}/{GAP}/{metric}"] = max(known) - min(known)
    return found


def kept_back(module: Any, states: Mapping[str, np.ndarray], examples: int, cell: int) -> set[str]:
    """Names of the metrics that stay at the site: with a thin cell, of a small subgroup, or exact with such a partner.

    Of a group's levels so many are kept back, the smallest first, that no thin one follows from the others and the
    total.
    """
    names = {key.rpartition("/")[0] for key, found in states.items() if thin(found, cell)}
    for group, levels in getattr(module, "levels", {}).items():
        counts = {level: int(states.get(f"{group}/{level}/{EXAMPLES}/count", 0)) for level in levels}
        for level in thin_levels(counts, examples, cell):
            names |= {name for name in metrics_of(module, "test") if name.startswith(f"{group}/{level}/")}
    return names | {name for name in exact_of(module) if any(other.startswith(f"{name}_") for other in names)}


def thin_levels(counts: Mapping[str, int], total: int, cell: int) -> set[str]:
    """Levels of a group to keep back; what `total` has beyond them are rows whose level is not known."""
    unknown = max(total - sum(counts.values()), 0)
    if not any(0 < number < cell for number in (*counts.values(), unknown)):
        return set()
    hidden, kept = unknown, set()
    for level in sorted(counts, key=lambda name: (counts[name], name)):
        if counts[level] and (counts[level] < cell or hidden < cell):
            kept.add(level)
            hidden += counts[level]
    return kept


def thin(found: np.ndarray, minimum_cell: int) -> bool:
    """Whether a metric's counts hold a cell of fewer persons than the site lets out."""
    whole = np.issubdtype(found.dtype, np.integer)
    return bool(minimum_cell > 1 and whole and np.any((found > 0) & (found < minimum_cell)))
