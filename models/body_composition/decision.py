"""The clinical decision on muscle at L3: whom the prediction finds sarcopenic, and whom it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.body_composition import CutOff
from models.metrics.intervals import wilson

Arrays = Mapping[str, NDArray[np.float64]]
COUNTS, PERSONS = "count/sarcopenia", "moments/index_error"


def decided(arrays: Arrays) -> NDArray[np.int64] | None:
    """Persons [reference, predicted] of not low and low muscle; None where a site may withhold some of these counts.

    A count that is withheld is 0: only where all persons are in the table, or no count is 0, is it whole.
    """
    counts = arrays.get(COUNTS)
    if counts is None or not counts.any():
        return None
    known = arrays.get(PERSONS)
    whole = known is not None and counts.sum() == known[0]
    return np.rint(counts).astype(np.int64) if whole or bool((counts > 0).all()) else None


def shares(counts: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    """By name, how many of how many: sensitivity and specificity of the prediction against the reference."""
    return {
        "sarcopenia_sensitivity": (int(counts[1, 1]), int(counts[1].sum())),
        "sarcopenia_specificity": (int(counts[0, 0]), int(counts[0].sum())),
    }


def metrics(arrays: Arrays) -> dict[str, float]:
    """Sensitivity, specificity and both prevalences, the first two with Wilson's interval; none of no person."""
    counts = decided(arrays)
    if counts is None:
        return {}
    found: dict[str, float] = {}
    for name, (hits, total) in shares(counts).items():
        if total:
            low, high = wilson(hits, total)
            found |= {name: hits / total, f"{name}/low": low, f"{name}/high": high}
    found["prevalence_predicted"] = float(counts[:, 1].sum() / counts.sum())
    found["prevalence_reference"] = float(counts[1].sum() / counts.sum())
    return found


def panel(by_place: Sequence[tuple[str, Arrays]], cut_off: CutOff) -> dict[str, Any]:
    """A row a site and all of them: who is found and missed, with Wilson's intervals."""
    rows = []
    for place, arrays in by_place:
        counts = decided(arrays)
        if counts is None:
            rows.append([place, "withheld", None, "", "withheld", None, ""])
            continue
        row: list[Any] = [place]
        for hits, total in shares(counts).values():
            low, high = wilson(hits, total)
            row += [f"{hits} of {total}", hits / total if total else None, f"{low:.3f} to {high:.3f}" if total else ""]
        rows.append(row)
    columns = ["site", "found", "sensitivity", "95 % interval", "left", "specificity", "95 % interval"]
    note = (
        f"Test persons with low muscle by the reference ({cut_off.name}) that the prediction finds, and those without "
        "that it leaves. Intervals: Wilson."
    )
    return {"title": "The decision: sarcopenia", "note": note, "table": {"columns": columns, "rows": rows}}
