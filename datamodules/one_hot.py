"""Categories of a table of numbers, one-hot encoded."""

from collections.abc import Mapping, Sequence

import numpy as np


def one_hot(values: np.ndarray, categorical: Mapping[str, Sequence[float]]) -> list[np.ndarray]:
    """One float64 [n] for each level but the first of each category, of values [n, categories].

    Raises ValueError for a value that is not among the levels.
    """
    columns = []
    for (name, levels), found in zip(categorical.items(), values.T, strict=True):
        if unknown := sorted(set(found) - set(levels)):
            raise ValueError(
                f"column {name} holds {unknown[0]:g}, which is not among its levels in dataset.categorical"
            )
        columns += [(found == level).astype(np.float64) for level in levels[1:]]
    return columns
