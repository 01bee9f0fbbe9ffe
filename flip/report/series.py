"""Numbers of a run over its rounds, as its learning curves and its notices read them."""

import math

from flip.files import POOLED
from flip.runs.record import RunRecord


def series(run: RunRecord, phase: str, metric: str) -> dict[str, tuple[list[int], list[float]]]:
    """A metric by site over the rounds (from 1), of the records of a phase; faults and absent values left out."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for record in run.records:
        value = (record.get("metrics") or {}).get(metric)
        if record["phase"] == phase and not record.get("fault") and value is not None and math.isfinite(value):
            x, y = lines.setdefault(str(record["site"]), ([], []))
            x.append(int(record["round"]) + 1)
            y.append(float(value))
    return lines


def mean_series(run: RunRecord) -> tuple[list[int], list[float]]:
    """The training loss over the sites of each round, weighted by their examples; without federation, of each epoch."""
    if run.backend == "none":
        return series(run, "fit", "loss").get(POOLED, ([], []))
    sums: dict[int, list[float]] = {}
    for record in run.records:
        value = (record.get("metrics") or {}).get("loss")
        if record["phase"] == "fit" and record["site"] != POOLED and value is not None and math.isfinite(value):
            total = sums.setdefault(int(record["round"]) + 1, [0.0, 0.0])
            total[0] += float(value) * (record.get("examples") or 1)
            total[1] += record.get("examples") or 1
    return list(sums), [a / b for a, b in sums.values()]


def validation_metric(run: RunRecord) -> str | None:
    """The metric that the validation curve shows: the main one where it was validated, else the first that was."""
    phase = validation_phase(run)
    records = [record for record in run.records if record["phase"] == phase]
    found = dict.fromkeys(name for record in records for name in record.get("metrics") or {})
    if phase == "fit":
        found.pop("loss", None)
    names = sorted(found, key=lambda name: (name != run.main, "loss" in name))
    return names[0] if names else None


def validation_phase(run: RunRecord) -> str:
    """Where validation stands: in lines of its own, or, without federation, in those of the fit."""
    of_its_own = any(record["phase"] == "validate" for record in run.records)
    return "validate" if of_its_own or run.backend != "none" else "fit"
