"""What a study predicts: one class a kind. Each says which columns it needs and makes the batch's target from them.

Each also says, from its declaration alone, the names of its `classes` and of what `must_occur` among the training rows
of all sites, the `sizes` that a model is made for, and the levels that are `declared` for a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datamodules.agreed_levels import check_codes, check_known
from datamodules.alignment import level, levels, numbers
from datamodules.yes_no import YesNo

NO_TARGET = "what the study predicts is missing"
UNDECLARED = "what the study predicts is outside the declared levels"
NO_TIME = "the survival time is not a number above 0"
REASONS = (NO_TARGET, UNDECLARED, NO_TIME)

Arrays = dict[str, np.ndarray]


class Binary:
    """Yes or no: `label` float32 [n], 1 where the column has one of the `positive` levels, 0 for a `negative` one.

    Args:
        column: the column to predict.
        positive: its levels that count as 1.
        negative: its levels that count as 0; None for the opposites of the positive ones (1 and 0, yes and no, ...).
            Rows with another are left out and counted.
    """

    def __init__(
        self,
        column: str,
        positive: Sequence[str | float | bool],
        negative: Sequence[str | float | bool] | None = None,
    ) -> None:
        self.columns, self.yes_no = [column], YesNo(positive, negative)
        self.classes = [f"{column} other", f"{column} {' or '.join(sorted(self.yes_no.positive))}"]
        self.sizes, self.declared = {"target.classes": 2}, {column: self.yes_no.declared}
        self.must_occur = [f"{column} {' or '.join(self.yes_no.negative)}", self.classes[1]]

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        label, missing, undeclared = self.yes_no.read(table[self.columns[0]])
        return {"label": label}, _reasons(undeclared, UNDECLARED).where(~missing, NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: int64 [n]."""
        return arrays["label"].astype(np.int64)

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Whether each of `must_occur` is among these rows, bool."""
        return np.isin(np.arange(len(self.classes)), self.strata(arrays))


class MultiClass:
    """One of several classes: `label` int64 [n], the number of the level in `levels`.

    Args:
        column: the column to predict.
        levels: its levels, in the order of the classes. Rows with another are left out and counted.
    """

    def __init__(self, column: str, levels: Sequence[str | float | bool]) -> None:
        self.columns, self.levels = [column], [level(each) for each in levels]
        self.classes = self.must_occur = self.levels
        self.sizes, self.declared = {"target.classes": len(self.levels)}, {column: self.levels}
        if len(set(self.levels)) < 2 or len(set(self.levels)) < len(self.levels):
            raise ValueError("dataset.target.levels: must name two or more classes, each once")

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one).

        Raises ValueError where all levels are whole numbers beside the declared ones, 0 to 2 for 1 to 3.
        """
        found = levels(table[self.columns[0]])
        check_codes(self.columns[0], set(found.dropna()), self.levels)
        number = found.map({name: index for index, name in enumerate(self.levels)})
        reasons = _reasons(number.isna(), UNDECLARED).where(found.notna(), NO_TARGET)
        return {"label": number.fillna(0).to_numpy(np.int64)}, reasons

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: int64 [n]."""
        return arrays["label"]

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Whether each of `must_occur` is among these rows, bool."""
        return np.isin(np.arange(len(self.classes)), self.strata(arrays))


class MultiLabel:
    """Several yes-or-no columns: `label` float32 [n, k], NaN where it is not known.

    Args:
        columns: the columns to predict.
        positive: the levels that count as 1.
        negative: the levels that count as 0; None for the opposites of the positive ones. Rows with another in any of
            the columns are left out and counted.
    """

    def __init__(
        self,
        columns: Sequence[str],
        positive: Sequence[str | float | bool] = ("1", "True"),
        negative: Sequence[str | float | bool] | None = None,
    ) -> None:
        self.columns, self.yes_no = list(columns), YesNo(positive, negative)
        self.classes, self.sizes = ["none", *self.columns], {"target.labels": len(self.columns)}
        self.declared = dict.fromkeys(self.columns, self.yes_no.declared)
        self.must_occur = [*self.columns, *(f"not {name}" for name in self.columns)]

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where any of the columns is known)."""
        found = [self.yes_no.read(table[name]) for name in self.columns]
        label = np.stack([each for each, *_ in found], axis=1)
        unknown = np.stack([missing.to_numpy() for _, missing, _ in found], axis=1)
        label[unknown] = np.nan
        undeclared = pd.concat([each for *_, each in found], axis=1).any(axis=1)
        nothing = pd.Series(unknown.all(axis=1), index=table.index)
        return {"label": label}, _reasons(undeclared, UNDECLARED).where(~nothing, NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: the first label that is present; int64 [n]."""
        present = np.nan_to_num(arrays["label"]) > 0
        return np.where(present.any(axis=1), present.argmax(axis=1) + 1, 0).astype(np.int64)

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Whether each of `must_occur` is among these rows, bool."""
        return np.concatenate([(arrays["label"] == 1).any(axis=0), (arrays["label"] == 0).any(axis=0)])


class Regression:
    """A number: `label` float32 [n], in the column's declared unit.

    Args:
        column: the column to predict.
    """

    def __init__(self, column: str) -> None:
        self.columns = [column]
        self.classes: list[str] = []  # a number has none
        self.must_occur: list[str] = []
        self.sizes, self.declared = {"target.numbers": 1}, dict[str, list[str]]()

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        found = numbers(table[self.columns[0]], self.columns[0])
        return {"label": found.fillna(0).to_numpy(np.float32)}, _reasons(found.isna(), NO_TARGET)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """One class: a split by a number is not stratified."""
        return np.zeros(len(arrays["label"]), np.int64)

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Whether each of `must_occur` is among these rows, bool: of none."""
        return np.zeros(0, bool)


class Survival:
    """Time to an event: `time` float32 [n], in the column's declared unit; `event` float32 [n], 1 event, 0 censored.

    Args:
        time: column of the follow-up time, above 0.
        event: column that tells how follow-up ended.
        positive: its levels that count as the event.
        negative: its levels that count as censored; None for the opposites of the positive ones. Rows with another are
            left out and counted.
    """

    def __init__(
        self,
        time: str,
        event: str,
        positive: Sequence[str | float | bool] = ("1", "True"),
        negative: Sequence[str | float | bool] | None = None,
    ) -> None:
        self.columns, self.yes_no = [time, event], YesNo(positive, negative)
        self.classes, self.must_occur, self.sizes = ["censored", "event"], ["event"], {"target.events": 1}
        self.declared = {event: self.yes_no.declared}

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """The target's arrays, and by row the reason why it has none (None where it has one)."""
        time = numbers(table[self.columns[0]], self.columns[0])
        event, missing, undeclared = self.yes_no.read(table[self.columns[1]])
        reasons = _reasons(~(time > 0), NO_TIME).where(~undeclared, UNDECLARED)
        reasons = reasons.where(time.notna() & ~missing, NO_TARGET)
        return {"time": time.fillna(0).to_numpy(np.float32), "event": event}, reasons

    def strata(self, arrays: Arrays) -> np.ndarray:
        """Classes by which a split is stratified: whether the event was seen; int64 [n]."""
        return arrays["event"].astype(np.int64)

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Whether each of `must_occur` is among these rows, bool."""
        return np.array([(arrays["event"] > 0).any()])


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
        """The subgroup of each row. Raises ValueError for a column of several levels, none of which is declared."""
        found = levels(table[self.column])
        check_known(self.column, set(found.dropna()), self.names)
        number = found.map({name: index for index, name in enumerate(self.names)})
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
