"""What a study predicts: one class a kind. Each says which columns it needs and makes the batch's target from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datamodules.alignment import level, levels, numbers

NO_TARGET = "what the study predicts is missing"
UNDECLARED = "what the study predicts is outside the declared levels"
NO_TIME = "the survival time is not a number above 0"
REASONS = (NO_TARGET, UNDECLARED, NO_TIME)

Arrays = dict[str, np.ndarray]


class Binary:
    """Yes or no: `label` float32 [n], 1 where the column has one of the `positive` levels, else 0.

    Args:
        column: the column to predict.
        positive: its levels that count as 1.
    """

    def __init__(self, column: str, positive: Sequence[str | float | bool]) -> None:
        self.columns, self.positive = [column], {level(each) for each in positive}
        self.classes = [f"{column} other", f"{column} {' or '.join(sorted(self.positive))}"]

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        found = levels(table[self.columns[0]])
        return {"label": found.isin(self.positive).to_numpy(np.float32)}, _reasons(found.isna(), NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: int64 [n]."""
        return arrays["label"].astype(np.int64)


class MultiClass:
    """One of several classes: `label` int64 [n], the number of the level in `levels`.

    Args:
        column: the column to predict.
        levels: its levels, in the order of the classes. Rows with another are left out and counted.
    """

    def __init__(self, column: str, levels: Sequence[str | float | bool]) -> None:
        self.columns, self.levels = [column], [level(each) for each in levels]
        self.classes = self.levels
        if len(set(self.levels)) < 2 or len(set(self.levels)) < len(self.levels):
            raise ValueError("dataset.target.levels: must name two or more classes, each once")

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        found = levels(table[self.columns[0]])
        number = found.map({name: index for index, name in enumerate(self.levels)})
        reasons = _reasons(number.isna(), UNDECLARED).where(found.notna(), NO_TARGET)
        return {"label": number.fillna(0).to_numpy(np.int64)}, reasons

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: int64 [n]."""
        return arrays["label"]


class MultiLabel:
    """Several yes-or-no columns: `label` float32 [n, k], NaN where it is not known.

    Args:
        columns: the columns to predict.
        positive: the levels that count as 1.
    """

    def __init__(self, columns: Sequence[str], positive: Sequence[str | float | bool] = ("1", "True")) -> None:
        self.columns, self.positive = list(columns), {level(each) for each in positive}
        self.classes = ["none", *self.columns]

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where any of the columns is known)."""
        found = [levels(table[name]) for name in self.columns]
        label = np.stack([each.isin(self.positive).to_numpy(np.float32) for each in found], axis=1)
        unknown = np.stack([each.isna().to_numpy() for each in found], axis=1)
        label[unknown] = np.nan
        return {"label": label}, _reasons(pd.Series(unknown.all(axis=1), index=table.index), NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: the first label that is present; int64 [n]."""
        present = np.nan_to_num(arrays["label"]) > 0
        return np.where(present.any(axis=1), present.argmax(axis=1) + 1, 0).astype(np.int64)


class Regression:
    """A number: `label` float32 [n], in the column's declared unit.

    Args:
        column: the column to predict.
    """

    def __init__(self, column: str) -> None:
        self.columns = [column]
        self.classes: list[str] = []  # a number has none

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        found = numbers(table[self.columns[0]], self.columns[0])
        return {"label": found.fillna(0).to_numpy(np.float32)}, _reasons(found.isna(), NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """One class: a split by a number is not stratified."""
        return np.zeros(len(arrays["label"]), np.int64)


class Survival:
    """Time to an event: `time` float32 [n], in the column's declared unit; `event` float32 [n], 1 event, 0 censored.

    Args:
        time: column of the follow-up time, above 0.
        event: column that tells how follow-up ended.
        positive: its levels that count as the event.
    """

    def __init__(self, time: str, event: str, positive: Sequence[str | float | bool] = ("1", "True")) -> None:
        self.columns, self.positive = [time, event], {level(each) for each in positive}
        self.classes = ["censored", "event"]

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        time, event = numbers(table[self.columns[0]], self.columns[0]), levels(table[self.columns[1]])
        reasons = _reasons(~(time > 0), NO_TIME).where(time.notna() & event.notna(), NO_TARGET)
        arrays = {"time": time.fillna(0).to_numpy(np.float32), "event": event.isin(self.positive).to_numpy(np.float32)}
        return arrays, reasons

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: whether the event was seen; int64 [n]."""
        return arrays["event"].astype(np.int64)


def _reasons(wrong: pd.Series, reason: str) -> pd.Series:
    """The reason where a row is wrong, None elsewhere."""
    return pd.Series(np.where(wrong, reason, None), index=wrong.index, dtype=object)


class Levels:
    """A subgroup by a column's levels, to report by: int64 [n], the number of the level in `levels`, -1 unknown.

    Args:
        column: the column.
        levels: its levels, in order.
    """

    def __init__(self, column: str, levels: Sequence[str | float | bool]) -> None:
        self.column, self.names = column, [level(each) for each in levels]

    def read(self, table: pd.DataFrame) -> np.ndarray:
        """The subgroup of each row."""
        number = levels(table[self.column]).map({name: index for index, name in enumerate(self.names)})
        return number.fillna(-1).to_numpy(np.int64)


class Bands:
    """A subgroup by bands of a number: int64 [n], the number of the band, -1 unknown.

    Args:
        column: the column.
        edges: the numbers at which a new band begins, in its unit: [40, 60] makes below 40, 40 to below 60, and above.
    """

    def __init__(self, column: str, edges: Sequence[float]) -> None:
        self.column, self.edges = column, list(edges)
        if not self.edges or self.edges != sorted(set(self.edges)):
            raise ValueError("dataset.subgroups: the edges of bands must be numbers that grow, as in [40, 60]")
        inner = [f"{low:g} to {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        self.names = [f"below {self.edges[0]:g}", *inner, f"{self.edges[-1]:g} or more"]

    def read(self, table: pd.DataFrame) -> np.ndarray:
        """The subgroup of each row."""
        found = numbers(table[self.column], self.column).to_numpy()
        return np.where(np.isnan(found), -1, np.searchsorted(self.edges, found, side="right")).astype(np.int64)


Target = Binary | MultiClass | MultiLabel | Regression | Survival
Subgroups = Mapping[str, Levels | Bands]
