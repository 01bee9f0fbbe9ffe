"""Numbers scaled by the range that a study declares for each, from which nothing of the rows can be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from datamodules.remarks import Remark

OUT_OF_RANGE = "values outside of the range that the study declares for the number, which count as its nearest end"
HALF_WIDTH = 2.0  # what the ends become: about 95 % of a normal distribution lies within two deviations of its mean
FITTED = {
    "dataset.scaling": (
        "the mean and deviation of the training rows",
        "set dataset.scaling=declared, with the range of each number in dataset.ranges",
    )
}
"""What a `CohortTable` without ranges takes from the rows, and how to do without."""


class Ranges:
    """The declared range of each of some numbers.

    A number becomes (x - middle) / half of the width * 2, from -2 to 2; one outside of its range counts as the nearest
    end, a missing one as the middle. What a row becomes depends on no other row.

    Args:
        key: the key of the study, for messages.
        columns: the numbers, in order.
        declared: by column its lowest and highest value, in its unit; of others than `columns` it is of no use.

    Raises ValueError where a column has none, or it is no range.
    """

    def __init__(self, key: str, columns: Sequence[str], declared: Mapping[str, Sequence[float]]) -> None:
        self.columns = list(columns)
        if absent := [name for name in self.columns if name not in declared]:
            raise ValueError(
                f"{key}: has no range of {', '.join(absent)}; declare the lowest and highest value of each, from what "
                "is known of it and not from the data, as {age: [18, 100]}"
            )
        for name in self.columns:
            ends = list(declared[name])
            if len(ends) != 2 or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
                raise ValueError(f"{key}.{name}={ends}: must be a lowest and a higher highest value, as [18, 100]")
        ends = np.array([declared[name] for name in self.columns], np.float64).reshape(-1, 2)
        self.low, self.high = ends.T

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Numbers float64 [n, columns] in their units, NaN where missing, as float64 [n, columns] from -2 to 2."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.nan_to_num((np.clip(values, self.low, self.high) - middle) / half * HALF_WIDTH)

    def remarks(self, values: np.ndarray) -> list[Remark]:
        """By column the rows with a number outside of its range; `values` as for `scaled`."""
        outside = (values < self.low) | (values > self.high)
        return [
            Remark(
                OUT_OF_RANGE,
                f"column {name} has values outside of {low:g} to {high:g}, which count as the nearest end",
                rows,
            )
            for name, low, high, rows in zip(self.columns, self.low, self.high, outside.T, strict=True)
            if rows.any()
        ]
