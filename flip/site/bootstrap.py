"""Intervals of metrics that keep a site's rows: a bootstrap of its persons."""

import copy
import math

import numpy as np
import torch
from torchmetrics.utilities import dim_zero_cat

from flip.contracts import SummableMetric
from flip.metrics import RESAMPLES, metric_states


def bootstrap(
    metric: SummableMetric, rng: np.random.Generator, person: np.ndarray | None = None
) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of a metric over resamples of its rows, of one person together.

    `person` is whose each row is; without it, and for a metric that keeps other rows, each row is a person's own. NaN
    with fewer than two persons, where more than a tenth of the resamples have no value (one class alone), or where both
    ends are the same (classes that do not overlap), which is no certainty. Source: Efron B, Tibshirani RJ, An
    Introduction to the Bootstrap, 1993; by cluster: Field CA, Welsh AH, J R Stat Soc B 2007;69:369-390.
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
    low, high = (float(each) for each in np.quantile(known, [0.025, 0.975]))
    same = math.isclose(low, high, rel_tol=1e-6)  # but for the rounding of single precision
    return (math.nan, math.nan) if same else (low, high)
