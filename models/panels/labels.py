"""Panel of several labels at once: a row a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from models.metrics.binned import BinnedAUROC, area, delong
from models.metrics.counts import LabelDecisions
from models.metrics.intervals import around, with_bounds
from models.panels.outcomes import POOLED, named, share

Scored = Mapping[str, Mapping[str, Metric]]


def panels(scored: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of the pooled metrics `auroc_binned` and `decisions`; `names` are the labels', in their declared order."""
    curve, tally = (scored.get(POOLED, {}).get(name) for name in ("auroc_binned", "decisions"))
    if not isinstance(curve, BinnedAUROC):
        return []
    decided = tally.counts if isinstance(tally, LabelDecisions) else None
    names = named(names, curve.ends.shape[2])
    rows = [_row(name, at, curve, decided) for at, name in enumerate(names)]
    columns = [
        "label",
        "positive",
        "AUROC",
        "95 % interval",
        "sensitivity",
        "95 % interval",
        "specificity",
        "95 % interval",
    ]
    note = "Test examples of the sites that train, label known; decisions at probability .5. AUROC: DeLong, from bins."
    return [{"title": "By label", "note": note, "table": {"columns": columns, "rows": rows}}]


def _row(name: str, at: int, curve: BinnedAUROC, decided: Tensor | None) -> list[Any]:
    negatives, positives = (int(each) for each in curve.ends[0, :, at].sum(-1))
    row: list[Any] = [name, f"{positives} of {negatives + positives}"]
    if negatives and positives:
        no, yes = (each[at] for each in curve.expected())
        value, error = float(area(no, yes)), delong(no, yes)[1]
        possible = tuple(float(area(low[at], high[at])) for low, high in curve.bounds())
        low, high = with_bounds(value, around(value, error, 0.0, 1.0), (possible[0], possible[1]))
        row += [value, f"{low:.3f} to {high:.3f}" if low == low else ""]
    else:
        row += [None, ""]
    if decided is None or not decided[at].any():
        return [*row, None, "", None, ""]
    right_no, wrong_yes, wrong_no, right_yes = (int(each) for each in decided[at])
    return [*row, *share(right_yes, right_yes + wrong_no), *share(right_no, right_no + wrong_yes)]
