"""Panels of a yes-or-no decision: ROC, precision and recall, calibration, and what the decision finds and misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from models.metrics.binned import BinnedAUROC
from models.metrics.calibration import BinnedCalibrationError
from models.metrics.intervals import wilson
from models.panels.outcomes import POOLED, named, outcome_panel, share

Scored = Mapping[str, Mapping[str, Metric]]
LEAST = 10  # rows of a calibration bin that is drawn


def panels(scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of the metrics by place ("pooled", or a site), `auroc_binned`, `sensitivity`, `specificity`, `brier` and so on.

    `names` are those of no and of yes. What a site withholds is left out.
    """
    names, found = named(names, 2), []
    counts = {place: each for place, metrics in scored.items() if (each := outcomes(metrics)) is not None}
    if counts:
        found.append(outcome_panel(counts, names))
    pooled = scored.get(POOLED, {})
    if {"sensitivity", "specificity"} <= pooled.keys():
        found.append(decisions(pooled, names))
    curve = pooled.get("auroc_binned")
    if isinstance(curve, BinnedAUROC) and curve.known().all():
        found.append(curves(curve, names))
    error = pooled.get("calibration_error_binned")
    if isinstance(error, BinnedCalibrationError) and error.rows.any():
        found.append(calibration(error, names))
    return found


def outcomes(metrics: Mapping[str, Metric]) -> list[int] | None:
    """Rows that are no and yes, by the counts of decisions; None where they are withheld."""
    if not {"sensitivity", "specificity"} <= metrics.keys():
        return None
    yes, no = metrics["sensitivity"], metrics["specificity"]
    return [int(no.tn + no.fp), int(yes.tp + yes.fn)]


def decisions(pooled: Mapping[str, Metric], names: Sequence[str]) -> dict[str, Any]:
    """What the decision at the study's threshold finds and misses, of each outcome, over the sites that train."""
    yes, no = pooled["sensitivity"], pooled["specificity"]
    cells = [("sensitivity", yes.tp, yes.tp + yes.fn, names[1]), ("specificity", no.tn, no.tn + no.fp, names[0])]
    cells += [("positive predictive value", yes.tp, yes.tp + no.fp, "decided yes")]
    cells += [("negative predictive value", no.tn, no.tn + yes.fn, "decided no")]
    rows = [
        [name, f"{int(hits)} of {int(total)} {of}", *share(int(hits), int(total))] for name, hits, total, of in cells
    ]
    note = (
        f"At the study's threshold, over the sites that train: {int(yes.fn)} of {int(yes.tp + yes.fn)} with "
        f"{names[1]} are missed, {int(no.fp)} of {int(no.tn + no.fp)} without are taken for it."
    )
    return {
        "title": "The decision", "note": note, "method": "Intervals: Wilson.",
        "table": {"columns": ["", "examples", "share", "95 % interval"], "rows": rows},
    }  # fmt: skip


def curves(curve: BinnedAUROC, names: Sequence[str]) -> dict[str, Any]:
    """ROC and precision-recall curves from bins, rows of a group where they are expected to lie."""
    negatives, positives = (each[0] for each in curve.expected())
    false, true = (_above(each) for each in (negatives, positives))
    n, m = false[-1], true[-1]
    above = [(t, f) for t, f in zip(true, false, strict=True) if t + f > 0]
    precision, recall = [t / (t + f) for t, f in above], [t / m for t, _ in above]
    low, high = curve.interval()
    area = f"area {float(curve.compute()):.3f} ({low:.3f} to {high:.3f})"
    roc = {
        "title": "ROC", "x": "1 - specificity", "y": "sensitivity", "unit": True, "diagonal": True,
        "lines": [{"name": area, "x": [f / n for f in false], "y": [t / m for t in true]}],
    }  # fmt: skip
    share = m / (n + m)
    recalled = {
        "title": "Precision and recall", "x": "recall (sensitivity)", "y": "precision", "unit": True,
        "lines": [
            {"name": "this run", "x": [0.0, *recall], "y": [precision[0], *precision]},
            {"name": f"no model: share of {names[1]}, {share:.3f}", "x": [0.0, 1.0], "y": [share, share]},
        ],
    }  # fmt: skip
    note = f"Test examples of the sites that train, {int(n)} {names[0]} and {int(m)} {names[1]}, by shared bins."
    return {"title": "Discrimination", "note": note, "plots": [roc, recalled]}


def _above(counts: Tensor) -> list[float]:
    """Rows above each bin, from the top: from 0 to all; one entry where they change."""
    sums = counts.flip(0).cumsum(0).tolist()
    return [0.0, *sums]


def calibration(error: BinnedCalibrationError, names: Sequence[str]) -> dict[str, Any]:
    """Observed shares against predicted probabilities in ten even bins, with Wilson's intervals."""
    x, y, low, high, rows = [], [], [], [], []
    for number, hits, total in zip(
        *(each.tolist() for each in (error.rows, error.hits, error.confidence)), strict=True
    ):
        if number < 1:
            continue
        ends = wilson(int(hits), int(number))
        rows.append([total / number, hits / number, f"{ends[0]:.3f} to {ends[1]:.3f}", int(number)])
        if number >= LEAST:
            x.append(total / number)
            y.append(hits / number)
            low.append(ends[0])
            high.append(ends[1])
    plot = {
        "title": "Calibration", "x": "predicted probability", "y": f"observed share, {names[1]}", "unit": True,
        "diagonal": True,
        "lines": [{"name": f"bins of {LEAST} examples or more", "x": x, "y": y, "low": low, "high": high}],
    }  # fmt: skip
    note = "Ten even bins, the same at all sites. On the diagonal a prediction of .3 comes true in 3 of 10."
    columns = ["predicted", "observed", "95 % interval", "examples"]
    return {"title": "Calibration", "note": note, "plots": [plot], "table": {"columns": columns, "rows": rows}}
