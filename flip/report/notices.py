"""What a reader must know before the numbers of a run: a site is in doubt, it diverged, or had not converged."""

import math

from flip.files import POOLED
from flip.report.format import number
from flip.report.series import mean_series, validation_metric, validation_phase
from flip.report.tables import warnings
from flip.report.units import titled
from flip.runs.record import RunRecord

DIVERGED = 10.0  # a last training loss so many times the first
HUGE = 1e6  # a loss above this is none that any shipped model has before it learns anything
PROTOCOL = (
    "Benchmark's protocol: the same test rows, scaled by the mean and deviation of all sites instead of by each site's "
    "own. No site predicts so; it is there to compare with what is published so."
)
NOISE = "Each count behind a metric has noise for privacy at each site, of standard deviation"
NO_INTERVAL = "No interval is given, since it would leave out this noise."
UNSENT = (
    "No number without noise left a site: neither how many persons and examples it has nor losses, validation scores "
    "and other metrics. Sites weigh the same in a mean, unless strategy.site_weights says otherwise."
)
UNJUDGED = "No validation scores: nothing tells whether the training had converged."
LEAST = 5  # rounds below which a best last one says nothing


def notices(run: RunRecord) -> list[str]:
    """One sentence each, the worst first; those that `result.json` names come before."""
    found = [str(each) for each in run.result.get("warnings") or ()]
    doubts = [f"{site}: {words}." for site, words in warnings(run)]
    return [*found, *doubts, *_diverged(run), *_not_converged(run)]


def notes(run: RunRecord) -> list[str]:
    """What a reader must know of how the numbers were made; nothing is wrong with them."""
    return [*([PROTOCOL] if has_protocol(run) else []), *_without_noise(run)]


def _without_noise(run: RunRecord) -> list[str]:
    """What a privacy mechanism kept at the sites, and how much noise the metrics have."""
    if not run.noised:
        return []
    noise: dict[str, float] = (run.result.get("privacy") or {}).get("noise") or {}
    by_size = {size: [name for name, each in noise.items() if each == size] for size in noise.values()}
    told = "; ".join(f"{number(size)} rows for {', '.join(names)}" for size, names in by_size.items())
    return [*([f"{NOISE} {told}. {NO_INTERVAL}"] if told else []), UNSENT]


def has_protocol(run: RunRecord) -> bool:
    """Whether a federated run has a pooled number of rows that are scaled as no site scales them."""
    return run.backend != "none" and math.isfinite(run.tested(run.main or "", None, rescaled=True))


def _diverged(run: RunRecord) -> list[str]:
    unit, (_, losses) = _unit(run), mean_series(run)
    for what, values in (("Training loss", losses), ("Validation loss", _validated(run, "loss"))):
        worse = len(values) > 1 and abs(values[-1]) > DIVERGED * max(abs(values[0]), 1.0)
        if worse or (values and abs(values[-1]) > HUGE):
            return [
                f"Diverged: {what.lower()} is {number(values[-1])} in the last {unit}, {number(values[0])} at first."
            ]
    tested = run.tested("loss", None)
    if math.isfinite(tested) and (tested > HUGE or (losses and tested > DIVERGED**2 * max(abs(losses[0]), 1.0))):
        return [f"Diverged: test loss is {number(tested)}."]
    return []


def _not_converged(run: RunRecord) -> list[str]:
    metric = validation_metric(run)
    values = _validated(run, metric) if metric else []
    phases = {str(record["phase"]) for record in run.records if record.get("metrics")}
    if "fit" in phases and "validate" not in phases:
        return [UNJUDGED]
    if len(values) < LEAST or metric is None or run.result.get("stopped"):
        return []
    best = max(values) if run.higher_is_better(metric) else min(values)
    if values[-1] != best or values.count(best) > 1:
        return []
    unit = _unit(run)
    return [
        f"Not converged: validation {titled(run, metric)} is best in the last of {len(values)} {unit}s; train for more."
    ]


def _unit(run: RunRecord) -> str:
    return "epoch" if run.backend == "none" else "round"


def _validated(run: RunRecord, metric: str) -> list[float]:
    """A validation metric over all sites, by round."""
    phase = validation_phase(run)
    lines = [record for record in run.records if record["phase"] == phase and record["site"] == POOLED]
    values = [(record.get("metrics") or {}).get(metric) for record in lines]
    return [float(value) for value in values if value is not None and math.isfinite(value)]
