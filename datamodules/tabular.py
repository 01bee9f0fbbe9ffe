"""Structured data as numbers for a network, prepared from counts and sums that the sites agree on, never from rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from datamodules.agreed_levels import PREFIX as LEVELS
from datamodules.agreed_levels import check_known, most_frequent, persons_by_level
from datamodules.alignment import level, levels, numbers
from datamodules.description import Description, behind_moments, untold
from datamodules.harmonize import ComBat
from datamodules.ranges import Ranges
from datamodules.remarks import OTHER_LEVEL, Remark

SCALINGS = ("agreed", "declared")
MOMENTS = "moments/tabular/"
SMALLEST = 1e-9  # a deviation below it is that of a constant column, which becomes 0


class Tabular:
    """Numbers standardized with the mean and deviation of all sites, categories one-hot with levels agreed over them.

    Batches hold `tabular` float32 [n, width]: the numeric columns in order, then each category's levels, then missing
    indicators if asked for; `tabular_present` float32 [n], 1 where any column has a value. Mean, deviation (over n, as
    scikit-learn's StandardScaler) and levels come from the training rows of all sites.

    A missing number becomes the agreed mean. A missing category becomes a level drawn with the agreed frequencies, the
    same at every reading of the same table: a code of its own, such as all zeros, would tell a network that the value
    is missing, and where that depends on the diagnosis it is a shortcut. A level that no site may name, since fewer
    persons have it than the site's minimum cell, counts as missing.

    Args:
        numeric: columns used as numbers.
        categorical: by column its levels, or how many are agreed on: those that most persons have, in order of name.
        missing_indicators: whether to add a column for each that is 1 where its value is missing.
        harmonize: removes what differs between sites from numeric columns.
        seed: of the draws for missing categories.
        scaling: "agreed" as above; "declared": nothing is taken from the rows. Numbers are scaled by `ranges`, a
            missing one is the middle of its range, and a missing category becomes any of its levels, each as likely,
            drawn for a row from its own values.
        ranges: by number its lowest and highest value, for "declared" (datamodules.ranges).
    """

    def __init__(
        self,
        numeric: Sequence[str] = (),
        categorical: Mapping[str, int | Sequence[str | float | bool]] | None = None,
        *,
        missing_indicators: bool = False,
        harmonize: ComBat | None = None,
        seed: int = 0,
        scaling: str = "agreed",
        ranges: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.numeric, self.missing_indicators, self.harmonize = list(numeric), missing_indicators, harmonize
        declared = dict(categorical or {})
        self.declared = {
            name: None if isinstance(each, int) else [level(value) for value in each] for name, each in declared.items()
        }
        self.slots = {name: each if isinstance(each, int) else len(each) for name, each in declared.items()}
        if not self.numeric and not declared:
            raise ValueError("dataset.tabular: name a column in numeric or categorical, or set dataset.tabular: null")
        if small := [name for name, number in self.slots.items() if number < 1]:
            raise ValueError(f"dataset.tabular.categorical.{small[0]}: must have 1 level or more")
        absent = sorted({*harmonize.columns, *harmonize.covariates} - set(self.numeric)) if harmonize else []
        if absent:
            raise ValueError(f"dataset.tabular.harmonize: {absent[0]} is not among dataset.tabular.numeric")
        self.seed, self.ranges = seed, self._declared_ranges(scaling, ranges or {})
        self.columns = [*self.numeric, *self.slots]
        self.width = len(self.numeric) + sum(self.slots.values()) + missing_indicators * len(self.columns)
        self.levels: dict[str, list[str]] = {}
        self._frequency: dict[str, np.ndarray] = {}
        self._mean, self._deviation = np.zeros(len(self.numeric)), np.ones(len(self.numeric))

    def _declared_ranges(self, scaling: str, ranges: Mapping[str, Sequence[float]]) -> Ranges | None:
        """The ranges to scale by, None where the scale is agreed. Raises ValueError where the two do not fit."""
        if scaling not in SCALINGS:
            raise ValueError(f"dataset.tabular.scaling={scaling}: must be one of {', '.join(SCALINGS)}")
        if scaling == "agreed":
            return None
        if counted := [name for name, levels in self.declared.items() if levels is None]:
            raise ValueError(f"dataset.tabular.categorical.{counted[0]}: list its levels, for scaling: declared")
        if self.harmonize:
            raise ValueError("dataset.tabular.harmonize: is fitted to the rows; set it to null for scaling: declared")
        return Ranges("dataset.tabular.ranges", self.numeric, ranges)

    @property
    def fitted(self) -> dict[str, tuple[str, str]]:
        """By key of the study what is taken from the rows of all sites, and how to do without: see the README."""
        what = "means, deviations and levels of the training rows of all sites"
        remedy = (
            "set dataset.tabular.scaling=declared, with the range of each number in dataset.tabular.ranges and the "
            "levels of each category in dataset.tabular.categorical"
        )
        return {"dataset.tabular.scaling": (what, remedy)} if self.ranges is None else {}

    def declared_sizes(self) -> dict[str, int]:
        """`features`: the columns of `tabular`."""
        return {"features": self.width}

    def read(self, table: pd.DataFrame) -> pd.DataFrame:
        """The columns as numbers (NaN where missing) and texts (None where missing). Raises ValueError."""
        found = {name: numbers(table[name], name) for name in self.numeric}
        return pd.DataFrame({**found, **{name: levels(table[name]) for name in self.slots}}, index=table.index)

    def describe(self, told: Description, table: pd.DataFrame) -> None:
        """Say of each column what `datamodules.description` lists; `table` is the site's own."""
        found = self.read(table)
        for name in self.numeric:
            told.number(name, found[name].to_numpy(np.float64))
        for name, declared in self.declared.items():
            told.category(name, found[name].tolist(), declared)

    def remarks(self, table: pd.DataFrame) -> list[Remark]:
        """By column the rows with an undeclared level, which count as missing, and with a number beyond its range.

        Raises ValueError for a column of several levels, none of which is declared.
        """
        found = []
        if self.ranges is not None:
            found = self.ranges.remarks(self.read(table)[self.numeric].to_numpy(np.float64))
        for name, declared in self.declared.items():
            values = levels(table[name])
            check_known(name, set(values.dropna()), declared or ())
            other = values.notna() & ~values.isin(declared if declared is not None else values)
            if other.any():
                words = ", ".join(map(repr, sorted(set(values[other]))))
                found.append(Remark(OTHER_LEVEL, f"column {name} has levels {words} ({OTHER_LEVEL})", other.to_numpy()))
        return found

    # What sites tell each other.

    def statistics(
        self, table: pd.DataFrame, person: np.ndarray, minimum_cell: int = 1
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Moments by number [n, sum, sum of squares], persons by level, and on how many persons each of them rests.

        Where a value is missing in fewer persons than `minimum_cell`, these would tell how many: see `untold`.
        """
        arrays: dict[str, np.ndarray] = {}
        behind: dict[str, int] = {}
        for name in self.numeric:
            values = table[name].to_numpy(np.float64)
            known = untold(~np.isnan(values), person, minimum_cell)
            arrays[MOMENTS + name] = np.array([known.sum(), values[known].sum(), (values[known] ** 2).sum()])
            behind[MOMENTS + name] = behind_moments(values[known], person[known])
        for name, declared in self.declared.items():
            known = (table[name].notna() if declared is None else table[name].isin(declared)).to_numpy()
            kept = untold(known, person, minimum_cell)
            pairs = pd.DataFrame({"level": table[name].to_numpy()[kept], "person": person[kept]}).drop_duplicates()
            for text, number in pairs["level"].value_counts().items():
                arrays[f"{LEVELS}{name}/{text}"] = np.array([float(number)])
        if self.harmonize:
            sums, persons = self.harmonize.statistics(table, person, minimum_cell)
            arrays, behind = {**arrays, **sums}, {**behind, **dict.fromkeys(sums, persons)}
        return arrays, behind

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take mean, deviation, levels and their frequencies from the merged statistics."""
        for index, name in enumerate(self.numeric):
            number, total, squares = merged.get(MOMENTS + name, np.zeros(3))
            mean = total / number if number else 0.0
            variance = squares / number - mean**2 if number else 0.0
            deviation = np.sqrt(max(variance, 0.0))
            # Of a constant column the squares leave rounding errors alone.
            constant = deviation <= max(SMALLEST, 1e-7 * abs(mean))
            self._mean[index], self._deviation[index] = mean, 1.0 if constant else deviation
        for name, declared in self.declared.items():
            counts = persons_by_level(merged, name)
            most = most_frequent(counts, self.slots[name])
            self.levels[name] = declared if declared is not None else sorted(most)
            found = np.array([counts.get(text, 0.0) for text in self.levels[name]])
            self._frequency[name] = found / found.sum() if found.sum() else found
        if self.harmonize:
            self.harmonize.agree(merged)

    def adjusted(self, table: pd.DataFrame, merged: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Moments of a site's training rows once harmonised by the merged statistics, by the name of their own."""
        if self.harmonize is None:
            return {}
        changed = ComBat(self.harmonize.columns, self.harmonize.covariates)
        changed.agree(merged)
        rows = changed.adjust(table, np.ones(len(table), bool))
        known = {MOMENTS + name: values[table[name].notna()] for name, values in rows.items()}
        return {name: np.array([len(each), each.sum(), (each**2).sum()]) for name, each in known.items()}

    # Encoding.

    def encode(self, table: pd.DataFrame, own: np.ndarray) -> dict[str, np.ndarray]:
        """`tabular` and `tabular_present`; `own` bool [n] are the rows that the site's own offsets are taken from.

        Raises ValueError for a column of several levels, none of which was agreed.
        """
        values = table[self.numeric].to_numpy(np.float64)
        known = table.notna().to_numpy()
        if self.harmonize:
            adjusted = self.harmonize.adjust(table, own)
            values = np.stack([adjusted.get(name, values[:, index]) for index, name in enumerate(self.numeric)], axis=1)
        agreed = self.ranges is None
        scaled = np.nan_to_num((values - self._mean) / self._deviation) if agreed else self.ranges.scaled(values)
        parts = [scaled, *(self._one_hot(name, table) for name in self.slots)]
        if self.missing_indicators:
            parts.append(~known)
        present = known.any(axis=1)
        tabular = np.concatenate(parts, axis=1).astype(np.float32)
        tabular[~present] = 0.0
        return {"tabular": tabular, "tabular_present": present.astype(np.float32)}

    def _one_hot(self, name: str, table: pd.DataFrame) -> np.ndarray:
        """A category in its slots, [n, slots]; missing levels are drawn."""
        names, frequency = self.levels[name], self._frequency[name]
        check_known(name, set(table[name].dropna()), names)
        number = table[name].map({text: index for index, text in enumerate(names)}).to_numpy(np.float64)
        code = np.where(np.isnan(number), -1, number).astype(np.int64)
        gone = code < 0
        if self.ranges is not None:
            code[gone] = [self._drawn(name, row) for row in table[gone].itertuples(index=False, name=None)]
        elif gone.any() and frequency.sum():
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
            code[gone] = rng.choice(len(names), size=len(code), p=frequency)[gone]
        return np.eye(self.slots[name] + 1)[code][:, : self.slots[name]]  # -1 is the last row: in no slot

    def _drawn(self, name: str, row: tuple[Any, ...]) -> int:
        """A level of a category that a row lacks, each as likely: the rows of others do not move the draw."""
        digest = hashlib.sha256(f"{self.seed}/{name}/{row}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.slots[name]
