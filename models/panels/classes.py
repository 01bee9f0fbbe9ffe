"""Panels of one of several classes: the confusion matrix by name, and each class's sensitivity and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchmetrics import Metric

from models.metrics.counts import Confusion
from models.panels.outcomes import POOLED, named, outcome_panel, share

Scored = Mapping[str, Mapping[str, Metric]]


def panels(scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of the metric `confusion` by place; `names` are the classes', in their declared order."""
    told = {place: each for place, metrics in scored.items() if isinstance(each := metrics.get("confusion"), Confusion)}
    if not told:
        return []
    names = named(names, next(iter(told.values())).classes)
    counts = {place: [number or None for number in each.counts.sum(1).tolist()] for place, each in told.items()}
    found = [outcome_panel(counts, names)]
    return [*found, *_pooled(told[POOLED], names)] if POOLED in told else found


def _pooled(confusion: Confusion, names: Sequence[str]) -> list[dict[str, Any]]:
    counts = confusion.counts.cpu()
    rows = []
    for at, name in enumerate(names):
        right, total, named = int(counts[at, at]), int(counts[at].sum()), int(counts[:, at].sum())
        rows.append([name, total, f"{right} of {total}", *share(right, total), *share(right, named)])
    columns = ["class", "examples", "recognized", "sensitivity", "95 % interval", "precision", "95 % interval"]
    hidden = bool(counts[:, -1].any())
    matrix = {
        "names": list(names), "columns": [*names, *(["not told"] if hidden else [])],
        "counts": (counts if hidden else counts[:, :-1]).tolist(),
    }  # fmt: skip
    note = "Test examples of the sites that train: rows are the true class, columns the most probable one."
    note += " Counts below a site's minimum cell stand under not told, or are missing." if hidden else ""
    said = "Sensitivity: of a class's examples the share that is recognized; precision: of those named it, that is."
    return [
        {
            "title": "By class",
            "note": said,
            "method": "Intervals: Wilson.",
            "table": {"columns": columns, "rows": rows},
        },
        {"title": "Confusion matrix", "note": note, "matrix": matrix},
    ]
