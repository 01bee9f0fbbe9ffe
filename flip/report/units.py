"""A metric's name with its unit, wherever a person reads it."""

from flip.runs.record import RunRecord


def titled(run: RunRecord, metric: str) -> str:
    """A metric's name, and in brackets the unit that its class declares, unless the name ends in it."""
    unit = str((run.result.get("units") or {}).get(metric, ""))
    return f"{metric} ({unit})" if unit and not metric.endswith(f"_{unit}") else metric
