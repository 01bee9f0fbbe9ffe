"""When a federated study ends before its last round."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from flip.errors import UserError, nearest


@dataclass(frozen=True)
class Stop:
    """The study ends once so many rounds in a row have not improved a pooled validation metric.

    The result's weights are those of the last round, as ever; `weights/best.safetensors` are those of the best one. A
    round whose metric cannot be computed (the sites' policies withhold it) is not counted. Under `dp_sgd` with a
    `target_epsilon` the noise is made for all rounds, so a study that stops early spends less.

    Args:
        monitor: name of a metric of the model, over the validation data of all sites that train; `accuracy`.
        patience: rounds in a row without an improvement after which the study ends, at least 1.
        min_delta: an improvement is larger than this, in the metric's unit; 0 or more.
    """

    monitor: str
    patience: int
    min_delta: float = 0.0

    @classmethod
    def read(cls, stop: Mapping[str, Any]) -> "Stop":
        """From `strategy.stop`. Raises UserError with every mistake."""
        if not isinstance(stop, Mapping):
            raise UserError(f"strategy.stop={stop}: must be null, or as {{monitor: accuracy, patience: 3}}")
        names = [each.name for each in fields(cls)]
        unknown = sorted({*stop} - {*names})
        problems = [f"strategy.stop.{name}: there is no such key; {nearest(name, names)}" for name in unknown]
        problems += [f"strategy.stop.{name}: is not set" for name in ("monitor", "patience") if name not in stop]
        monitor, patience, delta = stop.get("monitor", ""), stop.get("patience", 1), stop.get("min_delta", 0.0)
        if not isinstance(monitor, str):
            problems.append(f"strategy.stop.monitor={monitor}: must be the name of a metric")
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            problems.append(f"strategy.stop.patience={patience}: must be a whole number, 1 or more")
        if not isinstance(delta, int | float) or isinstance(delta, bool) or not 0 <= delta < math.inf:
            problems.append(f"strategy.stop.min_delta={delta}: must be 0 or more")
        if problems:
            raise UserError(problems)
        return cls(monitor, patience, float(delta))
