"""Panels of survival: events by site, and the Kaplan-Meier curve with the numbers at risk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchmetrics import Metric

from models.metrics.counts import FollowUp
from models.metrics.intervals import Z
from models.panels.outcomes import POOLED, named, outcome_panel

Scored = Mapping[str, Mapping[str, Metric]]
Floats = NDArray[np.float64]
SHOWN = 7  # columns of numbers at risk


def panels(scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of the metric `follow_up` by place; `names` are those of the censored and of the event."""
    found = {
        place: each
        for place, metrics in scored.items()
        if isinstance(each := metrics.get("follow_up"), FollowUp) and each.counts().any()
    }
    told = {place: each.counts()[:, 0].numpy() for place, each in found.items()}
    if not told:
        return []
    names = named(names, 2)
    table = outcome_panel({place: counts.sum(1).tolist() for place, counts in told.items()}, names)
    return [table, curve(told[POOLED], found[POOLED].ends, names)] if POOLED in told else [table]


def kaplan_meier(counts: NDArray[np.int64], ends: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Times, survival and its 95 % limits from counts [2 (censored, event), bins] over `ends`, from time 0 on.

    Those who are censored in an event's bin are at risk in it, as at an event's own time. Variance by Greenwood, limits
    on the log-log scale. Source: Kaplan EL, Meier P, J Am Stat Assoc 1958;53:457-481.
    """
    censored, died = counts.astype(np.float64)
    at_risk = counts.sum() - np.concatenate([[0.0], np.cumsum(censored + died)[:-1]])
    seen = died > 0
    died, at_risk, times = died[seen], at_risk[seen], ends[seen]
    survival = np.cumprod(1 - died / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = Z * np.sqrt(np.cumsum(died / (at_risk * (at_risk - died)))) / np.abs(np.log(survival))
        low, high = survival ** np.exp(half), survival ** np.exp(-half)
    unknown = ~np.isfinite(half)
    low, high = np.where(unknown, survival, low), np.where(unknown, survival, high)
    return (np.concatenate([[0.0], times]), *(np.concatenate([[1.0], each]) for each in (survival, low, high)))


def curve(counts: NDArray[np.int64], ends: Floats, names: Sequence[str]) -> dict[str, Any]:
    """The curve of the sites that train together, and how many are at risk at even times."""
    times, survival, low, high = kaplan_meier(counts, ends)
    last = float(ends[np.flatnonzero(counts.any(0)).max()])
    ticks = _even(last)
    at_risk = [int(counts[:, tick <= ends].sum()) for tick in ticks]
    events = [int(counts[1, tick > ends].sum()) for tick in ticks]
    lines = {
        key: [*values.tolist(), float(values[-1])] for key, values in (("y", survival), ("low", low), ("high", high))
    }
    name = f"{int(counts.sum())} examples, {int(counts[1].sum())} with {names[1]}"
    below = [["at risk", *at_risk], ["events before", *events]]
    plot = {
        "title": "Kaplan-Meier", "x": "time, in the study's unit", "y": f"share without {names[1]}",
        "lines": [{"name": name, "step": True, "x": [*times.tolist(), last], **lines}],
        "below": {"columns": ["time", *(f"{tick:g}" for tick in ticks)], "rows": below},
    }  # fmt: skip
    note = (
        "Test examples of the sites that train, from counts in bins of time that are 2 % wide; 95 % limits: Greenwood."
    )
    return {"title": "Follow-up", "note": note, "plots": [plot]}


def _even(last: float) -> list[float]:
    """Round times from 0 to the last, at most `SHOWN`."""
    power = 10 ** math.floor(math.log10(last / (SHOWN - 1)))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by * (SHOWN - 1) >= last * (1 - 1e-9))
    return [step * index for index in range(SHOWN) if step * index <= last]
