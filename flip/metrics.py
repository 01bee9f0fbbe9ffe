"""What the metrics of a module say of a split: values, intervals, and the sums that may leave a site.

A module has `metrics`, whose states sum over sites. It may have, of the test split alone, `subgroup_metrics` (the same,
named `group/level/metric`, with `levels` by group) and `exact` (whose rows stay at the site; `auroc` has a partner
`auroc_...` that sums). A metric may have `interval() -> (low, high)` with its `method`, and `coarse(cell)`: its states
with bins merged until each holds `cell` examples. It may have `thin(cell)`, whether nothing of its rows may leave, and
`withheld(cell)`, the rule by which its states do not; `cell` is how many examples a count has to hold. A module that
`chooses_threshold` names by `decided` the metrics that the threshold changes. Intervals are of 95 % and named
`metric/low` and `metric/high`.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch

from flip.contracts.model import (
    FederatedModule,
    HasInterval,
    HasSubgroups,
    HasUnit,
    Metrics,
    NamesMethod,
    ScoresExactly,
    SummableMetric,
)

RESAMPLES = 200  # of the bootstrap: half a second for the AUROC of a site, 5 s for the C-index of 1,000 patients
BOOTSTRAP = (
    f"percentile bootstrap at the site, {RESAMPLES} resamples of its persons, or of examples where none is named"
)
SUBGROUPS = "subgroups"
LOW, HIGH, GAP, EXAMPLES = "low", "high", "gap", "examples"
TOGETHER = "widened by the design effect of persons with several rows"
APART = "of rows, not persons: too narrow where persons have several"


def metrics_of(module: FederatedModule, split: str) -> dict[str, SummableMetric]:
    """The metrics whose states sum, by name; of the test split by subgroup too."""
    by_subgroup = module.subgroup_metrics.items() if split == "test" and isinstance(module, HasSubgroups) else ()
    return {**dict(module.metrics.items()), **dict(by_subgroup)}


def levels_of(module: FederatedModule) -> Mapping[str, list[str]]:
    """The levels of each group that a module is scored by."""
    return module.levels if isinstance(module, HasSubgroups) else {}


def exact_of(module: FederatedModule) -> dict[str, SummableMetric]:
    """The metrics that keep a site's rows, by name."""
    return dict(module.exact.items()) if isinstance(module, ScoresExactly) else {}


def scored_names(module: FederatedModule, split: str) -> list[str]:
    """The metrics of a split, exact ones too."""
    return [*metrics_of(module, split), *(exact_of(module) if split == "test" else ())]


def names_of(module: FederatedModule, split: str) -> frozenset[str]:
    """Every name that a site's value may have."""
    names = scored_names(module, split)
    return frozenset(names) | {f"{name}/{end}" for name in names for end in (LOW, HIGH)}


def methods_of(
    module: FederatedModule, *, repeats: bool = False, together: Collection[str] = frozenset()
) -> dict[str, str]:
    """How the interval of each metric is made, by the metric's name.

    Where a person `repeats`, also whether it is of persons, as those that are named in `together`, or of rows; that of
    the metrics by subgroup, which are of rows, stands under "subgroups".
    """
    named = {**dict(module.metrics.items()), **exact_of(module)}
    own = {name: metric.method for name, metric in named.items() if isinstance(metric, NamesMethod)}
    if repeats:
        own = {name: f"{method}, {TOGETHER if name in together else APART}" for name, method in own.items()}
        own |= {SUBGROUPS: APART} if levels_of(module) else {}
    return {**own, **{name: BOOTSTRAP for name in exact_of(module) if name not in own}}


def units_of(module: FederatedModule) -> dict[str, str]:
    """The unit of each metric that has one, by the metric's name."""
    named = {**dict(module.metrics.items()), **exact_of(module)}
    return {name: metric.unit for name, metric in named.items() if isinstance(metric, HasUnit)}


def metric_states(metric: SummableMetric) -> dict[str, torch.Tensor]:
    """The sum-reduced states of a torchmetrics Metric, by name."""
    return {state: getattr(metric, state) for state in metric._defaults}


def states_of(module: FederatedModule, split: str) -> dict[str, np.ndarray]:
    """Arrays like the states of the module's metrics, by `metric/state`."""
    return {
        f"{name}/{state}": tensor.numpy()
        for name, metric in metrics_of(module, split).items()
        for state, tensor in metric_states(metric).items()
    }


def array(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as an array."""
    return tensor.detach().cpu().numpy().copy()


def values_of(name: str, metric: SummableMetric, *, intervals: bool) -> dict[str, float]:
    """A metric's value, and its interval where it has one; nothing of a metric that no row has come to."""
    if not metric.update_called:
        return {}
    found = bounds(name, metric.interval()) if intervals and isinstance(metric, HasInterval) else {}
    return {name: float(metric.compute()), **found}


def widened(
    values: Mapping[str, float], metric: SummableMetric, name: str, *, spread: np.ndarray, persons: int
) -> dict[str, float]:
    """A metric's value with its interval of rows made one of persons, within the metric's range.

    `spread` [4] are the sums of `flip.site.clusters`, `persons` how many are behind them: the distances of both ends
    from the value are multiplied by the root of the design effect, 1 or more, and by how much Student's t exceeds the
    normal deviate. Values without an interval are returned as they are.
    """
    if f"{name}/{LOW}" not in values:
        return dict(values)
    from scipy.stats import norm, t

    by_person, by_row, squares, rows = (float(each) for each in spread)
    effect = max(by_person / by_row if by_row > 0 else squares / rows, 1.0)
    factor = math.sqrt(effect) * float(t.ppf(0.975, max(persons - 1, 1)) / norm.ppf(0.975))
    value, low, high = (values[each] for each in (name, f"{name}/{LOW}", f"{name}/{HIGH}"))
    least, most = metric.plot_lower_bound, metric.plot_upper_bound
    ends = (value - factor * (value - low), value + factor * (high - value))
    kept = (ends[0] if least is None else max(ends[0], least), ends[1] if most is None else min(ends[1], most))
    return {**values, **bounds(name, kept)}


def bounds(name: str, ends: tuple[float, float]) -> dict[str, float]:
    """An interval by name; none where an end is unknown."""
    return {f"{name}/{LOW}": ends[0], f"{name}/{HIGH}": ends[1]} if all(map(math.isfinite, ends)) else {}


def filled(
    metrics: Metrics | Mapping[str, SummableMetric], states: Mapping[str, np.ndarray]
) -> dict[str, SummableMetric]:
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
    metrics: Mapping[str, SummableMetric], states: Mapping[str, np.ndarray], *, intervals: bool = False
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
