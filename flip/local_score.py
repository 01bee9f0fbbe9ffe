"""One evaluation at a site: what of its scores may leave it."""

import math
from typing import Any

import numpy as np

from flip.federation import Summary, SummaryKind
from flip.scoring import Scores, evaluate, kept_back
from flip.training import Device


def score(
    module: Any, data: Any, loader: Any, *, split: str, device: Device, cell: int, seed: int
) -> tuple[dict[str, float], Scores]:
    """Exact values with intervals (of the test split), and the scores whose states may be summed over sites.

    Sums are over the test rows as scaled for the pooled cohort, where the data have such; `seed` is of the bootstrap.
    """
    rng = np.random.default_rng(seed) if split == "test" else None
    own = evaluate(module, loader, split=split, device=device, cell=cell, rng=rng)
    if split == "test" and hasattr(data, "pooled_test_dataloader"):
        pooled = data.pooled_test_dataloader()
        return own.values, evaluate(module, pooled, split=split, device=device, cell=cell)
    return own.values, own


def leaving(
    module: Any, values: dict[str, float], scores: Scores, *, examples: int, persons: int, cell: int
) -> tuple[dict[str, float], dict[str, Summary]]:
    """The values and sums that leave a site whose numbers have `cell` persons behind each."""
    withheld = kept_back(module, scores.states, examples, cell)
    kept = {
        name: value
        for name, value in values.items()
        if math.isfinite(value) and not {name, name.rpartition("/")[0]} & withheld
    }
    summaries = {
        f"metric/{name}": Summary(SummaryKind.SUM, array.astype(np.float64), persons)
        for name, array in scores.states.items()
        if name.rpartition("/")[0] not in withheld
    }
    return kept, summaries
