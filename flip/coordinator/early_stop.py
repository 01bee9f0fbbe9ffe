"""Whether a federated study ends before its last round (`strategy.stop`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flip.contracts import FederatedModule
from flip.runs.record import lower_is_better
from flip.strategies.stop import Stop


@dataclass
class EarlyStop:
    """Counts the rounds in a row that brought no improvement.

    Args:
        stop: when to stop; None never does.
        module: the study's module, which says whether more of the metric is better.

    Attributes:
        best: the best value so far, or None.
        waited: rounds since it was reached.
    """

    stop: Stop | None
    module: FederatedModule
    best: float | None = None
    waited: int = 0

    def take(self, metrics: Mapping[str, float]) -> None:
        """Count one round, by its pooled validation metrics."""
        value = metrics.get(self.stop.monitor, math.nan) if self.stop else math.nan
        if self.stop is None or math.isnan(value):
            return
        gain = math.inf if self.best is None else value - self.best
        if self.best is not None and not more_is_better(self.module, self.stop.monitor):
            gain = -gain
        improved = gain > self.stop.min_delta
        self.best, self.waited = (value, 0) if improved else (self.best, self.waited + 1)

    @property
    def over(self) -> bool:
        """Whether the study ends now."""
        return self.stop is not None and self.waited >= self.stop.patience

    def words(self, done: int, planned: int) -> str:
        """Why the study ended after `done` of the planned rounds; empty where it ran them all."""
        if self.stop is None or not self.over or done >= planned:
            return ""
        rounds = "the last round" if self.waited == 1 else f"the last {self.waited} rounds"
        return (
            f"stopped after round {done} of {planned}: {rounds} did not improve the pooled validation "
            f"{self.stop.monitor} (strategy.stop)"
        )


def more_is_better(module: FederatedModule, metric: str) -> bool:
    """Whether more of a metric is better: as the module says of its main one, else the metric itself, else its name."""
    if metric == module.monitor:
        return bool(module.higher_is_better)
    own = module.metrics[metric].higher_is_better
    return bool(own) if own is not None else not lower_is_better(metric)
