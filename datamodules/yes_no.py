"""Columns of yes or no: which levels count as which, and which rows have neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datamodules.alignment import level, levels
from datamodules.counted import counted

OPPOSITES = (("1", "0"), ("True", "False"), ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("Y", "N"), ("y", "n"))


class YesNo:
    """A column of yes or no.

    Args:
        positive: its levels that count as yes.
        negative: its levels that count as no; None for the opposites of the positive ones in `OPPOSITES`.

    Raises ValueError where a level is both, or has no opposite: what counts as no is then to be declared, or a code for
    unknown would count as it.
    """

    def __init__(
        self,
        positive: Sequence[str | float | bool],
        negative: Sequence[str | float | bool] | None,
    ) -> None:
        self.positive = [level(each) for each in positive]
        opposite = {**dict(OPPOSITES), **{no: yes for yes, no in OPPOSITES}}
        if negative is None and (unclear := [each for each in self.positive if each not in opposite]):
            raise ValueError(
                f"dataset.target.negative: name the levels that count as no, since the opposite of {unclear[0]} is not "
                "known; rows with any other level are left out and counted"
            )
        no = [opposite[each] for each in self.positive] if negative is None else [level(each) for each in negative]
        self.negative = list(dict.fromkeys(no))
        if both := sorted(set(self.positive) & set(self.negative)):
            raise ValueError(f"dataset.target.negative: {both[0]} is in positive too; a level is one or the other")
        self.declared = [*self.positive, *self.negative]
        if not self.positive or not self.negative:
            raise ValueError("dataset.target: positive and negative must each name a level or more")

    def read(self, column: pd.Series) -> tuple[np.ndarray, pd.Series, pd.Series]:
        """1 where the level is positive, float32 [n]; and where it is missing, and where it is not declared."""
        found = levels(column)
        undeclared = found.notna() & ~found.isin(self.declared)
        return found.isin(self.positive).to_numpy(np.float32), found.isna(), undeclared


def undeclared_levels(declared: Mapping[str, Sequence[str]], table: pd.DataFrame) -> list[str]:
    """How many rows of a table have which level that is not among those declared for its column, in words."""
    found = [(name, text) for name in declared for text in levels(table[name]).dropna() if text not in declared[name]]
    return [
        f"column {name} has {counted(number, 'row')} of level {text!r}, which dataset.target does not declare: left out"
        for (name, text), number in Counter(found).items()
    ]
