"""Rows that a model predicts for: their names, and a target of which no column is read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.alignment import numbered
from datamodules.remarks import Remark
from datamodules.targets import Arrays, MultiClass, MultiLabel, Target

ALONE = (
    "one row has no deviation, and dataset.scaling=site scales rows by those of their own site, as in the training: "
    "give two or more rows, or the model of a training with dataset.scaling=pooled or declared"
)


class Unlabeled:
    """A target that is not known: no column of it is asked for, no row is left out for it, and batches hold none.

    Args:
        target: what the study predicts.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.columns, self.must_occur = target, list[str](), list[str]()
        self.classes, self.sizes, self.declared = target.classes, target.sizes, dict[str, list[str]]()

    def read(self, table: pd.DataFrame) -> tuple[Arrays, pd.Series]:
        """No array, and no reason to leave a row out."""
        return {}, pd.Series(None, index=table.index, dtype=object)

    def strata(self, arrays: Arrays) -> np.ndarray:
        """One class, of all rows."""
        return np.zeros((), np.int64)

    def occurs(self, arrays: Arrays) -> np.ndarray:
        """Of none."""
        return np.zeros(0, bool)


def names_of(target: Target) -> list[str]:
    """The names of the numbers that are predicted for a row as one array: classes, or labels."""
    if isinstance(target, MultiClass):
        return list(target.levels)
    return list(target.columns) if isinstance(target, MultiLabel) else []


def asked(columns: Mapping[str, Any], used: Iterable[str], beside: Iterable[str]) -> dict[str, Any]:
    """A site's mapping of columns without those that are `beside` what is used: nothing reads them."""
    unread = {*beside} - {*used}
    return {name: each for name, each in columns.items() if name not in unread}


def header_of(path: Path, header: Sequence[str], target: str) -> list[str]:
    """The names of the columns of a file without a header line, which may lack that of what is predicted."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        cells = len(next(csv.reader(file), []))
    others = [name for name in header if name != target]
    return others if cells == len(others) else list(header)


class NamedRows:
    """The site's own names of the rows of a dataset, as `flip.contracts.NamesRows` has them."""

    predicted_names: Sequence[str] = ()
    opted_out = (0, 0)  # rows of persons who opted out, and of how many

    def _name_rows(self, names: Mapping[str, Sequence[str | None]], reasons: Sequence[str | None]) -> None:
        """Know all rows by the columns of `names`, else by their number, and why each is left out (None: it is not)."""
        known = {column: ["" if each is None else each for each in values] for column, values in names.items()}
        known = {column: values for column, values in known.items() if any(values)}
        self._all_names = known or {"row": [str(number + 1) for number in range(len(reasons))]}
        self._why = np.array([each if isinstance(each, str) else None for each in reasons], dtype=object)
        self._split_of = np.full(len(reasons), "", dtype=object)

    def _name_splits(
        self, splits: np.ndarray, nothing: Remark | None = None, there: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Know of each row that is kept, in order, its split, whether there is `nothing` to predict it from, and which
        of several inputs are `there`, by name bool [rows]."""
        kept = [why is None for why in self._why]
        self._split_of[kept] = splits
        self._unfounded = np.full(len(self._why), "", dtype=object)
        if nothing is not None:
            self._unfounded[kept] = np.where(nothing.rows, nothing.reason, "")
        self._inputs = None if there is None or len(there) < 2 else np.full(len(self._why), "", dtype=object)
        if there is not None and self._inputs is not None:
            rows = zip(*there.values(), strict=True)
            self._inputs[kept] = [" ".join(name for name, has in zip(there, row, strict=True) if has) for row in rows]

    def row_names(self, split: str) -> dict[str, list[str]]:
        """By column the site's own name of each row of a split, in the order of its loader."""
        self.setup()
        return self._named(self._split_of == split)

    def unfounded_rows(self, split: str) -> list[str]:
        """Why each row of a split has nothing to predict from, in the order of its loader; empty where it has."""
        self.setup()
        return list(self._unfounded[self._split_of == split])

    def row_inputs(self, split: str) -> list[str]:
        """The inputs that each row of a split has, in the order of its loader; nothing where the study has only one."""
        self.setup()
        return [] if self._inputs is None else list(self._inputs[self._split_of == split])

    def skipped_rows(self) -> dict[str, list[str]]:
        """The same of the rows that were left out, and the `reason`."""
        self.setup()
        left = np.array([why is not None for why in self._why], bool)
        return {**self._named(left), "reason": list(self._why[left])}

    def person_names(self) -> list[str]:
        """The site's own name of each person, once; none where no column names them."""
        self.setup()
        return [name for name in dict.fromkeys(self._all_names.get("person", ())) if name]

    def example_persons(self, split: str) -> list[str]:
        """The site's own name of the person of each example of a split, or of each row: see `flip.contracts`."""
        self.setup()
        rows = np.flatnonzero(self._split_of == split) if split else np.arange(len(self._split_of))
        names = numbered(self._all_names.get("person") or [""] * len(self._split_of))
        return [names[row] for row in rows]

    def _named(self, chosen: np.ndarray) -> dict[str, list[str]]:
        return {name: [values[row] for row in np.flatnonzero(chosen)] for name, values in self._all_names.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read the rows and name them, once."""
        raise NotImplementedError
