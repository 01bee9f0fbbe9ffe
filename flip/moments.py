"""Number, mean and deviation from sums, as sites send them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Number, mean and deviation of a column at a site, or over sites."""

    number: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Moments | None":
        """From [number, sum, sum of squares]; None without a value."""
        number, total, squares = values
        if not number:
            return None
        mean = total / number
        return cls(number, mean, math.sqrt(max(squares / number - mean**2, 0.0)))
