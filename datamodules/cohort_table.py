"""A cohort table (one row a person) with declared feature and label columns: CSV in, batches of numbers out."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader

from datamodules.alignment import aligned, identifier, numbers
from datamodules.csv_table import read_csv
from datamodules.description import Description, Edges, behind_moments, parts_of, told_levels
from datamodules.one_hot import one_hot
from datamodules.opt_out import without
from datamodules.ranges import FITTED, OUT_OF_RANGE, Ranges
from datamodules.remarks import counted
from datamodules.rows import Rows, collate
from datamodules.splits import SPLITS, ByColumn, ByPerson, ByShare
from datamodules.unlabeled import ALONE, NamedRows, asked, header_of

SCALINGS = ("site", "pooled", "declared")
EPSILON = 1e-9  # keeps a constant feature finite; the value of the published Fed-Heart-Disease benchmark (FLamby, 2022)
MISSING = "a value that the study uses is missing"


class CohortTable(NamedRows, lightning.LightningDataModule):
    """A site's cohort table.

    Batches hold `features` (float32 [n, f], standardized), `label` (float32 [n], 0 or 1) and, never an input, `person`
    (int64 [n], whose row it is, as the site counts).

    Args:
        root: the site's CSV file.
        columns: the site's own columns (datamodules.alignment).
        opt_out: the site's persons who opted out; their rows are in nothing.
        trains: False for a site that is only tested on; all its rows are then in the test split.
        header: names of the columns in order, for a file without a header line; None reads the first line.
        numeric: columns used as numbers.
        categorical: columns one-hot encoded, each with all its levels; the first level is the reference and dropped.
        label: the column to predict.
        positive_above: the label is 1 where the column is above this number.
        person: column that identifies a person; None where each row is one person.
        missing: how the file writes a missing value. Rows with one in a used column are left out and counted.
        batch_size: rows per training batch.
        split: which persons are trained, validated and tested on.
        scaling: "site" standardizes by mean and deviation of the site's training rows, "pooled" by those of all sites,
            as `pooled_test_dataloader` does; "declared" scales numbers by `ranges` alone, categories are 0 and 1.
        ranges: by number its lowest and highest value, for "declared" (datamodules.ranges).
        labeled: False where the label is not known: it and `split` are not read, and all are test rows.
    """

    REASONS, REMARKS = frozenset({MISSING}), frozenset({OUT_OF_RANGE})
    loads_quickly, no_bundle = True, "a bundle of MONAI takes images, and this is a table"
    must_occur: Sequence[str] = ()  # both classes of the label

    def __init__(
        self,
        root: str,
        columns: Mapping[str, Any] | None = None,
        trains: bool = True,
        *,
        numeric: Sequence[str],
        categorical: Mapping[str, Sequence[float]],
        label: str,
        header: Sequence[str] | None = None,
        positive_above: float = 0.0,
        person: str | None = None,
        missing: str = "",
        batch_size: int = 32,
        split: ByShare | ByPerson | ByColumn | None = None,
        scaling: str = "site",
        ranges: Mapping[str, Sequence[float]] | None = None,
        labeled: bool = True,
        opt_out: Collection[str] = (),
    ) -> None:
        super().__init__()
        if scaling not in SCALINGS:
            raise ValueError(f"dataset.scaling={scaling}: must be one of {', '.join(SCALINGS)}")
        self.root, self.labeled, self.trains = Path(root), labeled, trains and labeled
        self.header, self.numeric = header, list(numeric)
        self.categorical = {name: list(levels) for name, levels in categorical.items()}
        self.label, self.positive_above, self.person, self.missing = label, positive_above, person, missing
        self.batch_size, self.scaling, self.opt_out = batch_size, scaling, frozenset(opt_out)
        self.ranges = Ranges("dataset.ranges", self.numeric, ranges or {}) if scaling == "declared" else None
        self.fitted = FITTED if self.ranges is None else dict[str, tuple[str, str]]()
        self.must_occur = [f"{label} {side} {positive_above:g}" for side in ("up to", "above") if labeled]
        self.skipped, self.skipped_persons, self.split = dict[str, int](), dict[str, int](), split or ByShare()
        self.remarks, self.remarks_persons, self.remarks_in_words = counted((), np.zeros(0))
        beside = [label, *self.split.columns]
        self.used = [*self.numeric, *self.categorical, *([person] if person else []), *(beside if labeled else [])]
        self.columns = asked(columns or {}, self.used, beside)
        self._rows: dict[str, tuple[np.ndarray, ...]] = {}  # features, label, person
        self._pooled: tuple[np.ndarray, np.ndarray] | None = None

    def declared_sizes(self) -> dict[str, int]:
        """`features`: the width of `features`, from the declared columns alone."""
        return {"features": len(self.numeric) + sum(len(levels) - 1 for levels in self.categorical.values())}

    def occurs(self) -> np.ndarray:
        """Whether each of `must_occur`, both classes of the label, is among the training rows of this site, bool."""
        self.setup()
        return np.isin([0, 1], self._rows["train"][1])[: len(self.must_occur)]

    def persons(self) -> int:
        """Number of distinct persons in the table, rows with missing values included."""
        return len(np.unique(self._persons(self._table)))

    def setup(self, stage: str | None = None) -> None:
        """Read the table once, leave out rows with missing values, split."""
        if self._rows:
            return
        table = self._table
        used = [*self.numeric, *self.categorical, *([self.label] if self.labeled else [])]
        values = np.array([numbers(table[name], name).to_numpy() for name in used]).T
        complete = ~np.isnan(values).any(axis=1)
        names = {"person": table[self.person].map(identifier).to_list()} if self.person else {}
        self._name_rows(names, np.where(complete, None, MISSING).tolist())
        if not complete.all():
            self.skipped = {MISSING: int((~complete).sum())}
            self.skipped_persons = {MISSING: len(np.unique(self._persons(table)[~complete]))}
        table, values = table[complete], values[complete]
        if not len(values):
            raise ValueError(f"no row has a value in all of {', '.join(used)}")
        label = (values[:, -1] > self.positive_above).astype(np.float64)  # of no meaning where there is none
        numeric, categories, _ = np.split(values, np.cumsum([len(self.numeric), len(self.categorical)]), axis=1)
        scaled = numeric if self.ranges is None else self.ranges.scaled(numeric)
        features = np.stack([*scaled.T, *one_hot(categories, self.categorical)], axis=1)
        person = self._persons(table)
        outside = self.ranges.remarks(numeric) if self.ranges is not None else []
        self.remarks, self.remarks_persons, self.remarks_in_words = counted(outside, person)
        splits = self.split.split(table, person, label.astype(np.int64)) if self.trains else np.full(len(label), "test")
        self._name_splits(splits)
        self._rows = {name: tuple(each[splits == name] for each in (features, label, person)) for name in SPLITS}

    @cached_property
    def _table(self) -> pd.DataFrame:
        """The declared columns as text, None where a value is missing; read once: what is told is of what was split."""
        header = self.header if self.labeled or not self.header else header_of(self.root, self.header, self.label)
        gone, own = [str(self.missing)], read_csv(self.root, header)
        own, _, self.opted_out = without(own, self.person, self.columns, opt_out=self.opt_out, missing=gone)
        return aligned(own, self.used, self.columns, gone)

    def _persons(self, table: pd.DataFrame) -> np.ndarray:
        """A code of each row's person; each row is one where the study names no column."""
        if not self.person:
            return np.arange(len(table))
        return np.unique(table[self.person].map(identifier).fillna("").to_numpy(str), return_inverse=True)[1]

    def describe(self, edges: Edges, minimum_cell: int = 1) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The cohort by column, rows with missing values included: see `datamodules.description`."""
        self.setup()
        table = self._table
        told = Description(self._persons(table), edges, parts_of(self._why, self._split_of), minimum_cell)
        told.rows("studies", np.ones(len(table), bool))
        for name in self.numeric:
            told.number(name, numbers(table[name], name).to_numpy())
        for name, levels in self.categorical.items():
            values = [None if np.isnan(value) else f"{value:g}" for value in numbers(table[name], name)]
            told.category(name, values, [f"{level:g}" for level in levels])
        label = numbers(table[self.label], self.label).to_numpy()
        told.known(self.label, known := ~np.isnan(label))
        told.classes(np.where(known, label > self.positive_above, -1), [f"{self.label} 0", f"{self.label} 1"])
        return told.found()

    # Scaling.

    def statistics(self, minimum_cell: int = 1) -> dict[str, np.ndarray]:
        """Number, sum and sum of squares of each feature over the training rows: [f, 3].

        Those of a feature that tell of fewer persons than `minimum_cell`, as of a rare level, are 0. And `count/label`
        [2], the persons without and with what the study predicts.
        """
        self.setup()
        features, label, person = self._rows["train"]
        number = np.full(features.shape[1], float(len(features)))
        sums = np.stack([number, features.sum(axis=0), (features**2).sum(axis=0)], axis=1)
        if minimum_cell > 1:
            sums[[behind_moments(column, person) < minimum_cell for column in features.T]] = 0
            first = len(self.numeric)
            for levels in self.categorical.values():
                columns = slice(first, first := first + len(levels) - 1)
                told = told_levels(features[:, columns] > 0, sums[columns, 0] > 0, person, minimum_cell)
                sums[columns][~told] = 0
        classes = [float(len(np.unique(person[label == each]))) for each in (0, 1)]
        return {"moments/features": sums, "count/label": np.array(classes)}

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take the mean and deviation (ddof 1) of all sites' training rows from their summed moments: 1 for a feature
        that every site withholds, or of one value where it is told, since rows that differ may be withheld."""
        number, total, squares = merged["moments/features"].T
        known, number = number > 1, np.maximum(number, 2)
        mean, variance = total / number, (squares - total**2 / number) / (number - 1)
        known &= variance > np.maximum(EPSILON, 1e-7 * np.abs(mean)) ** 2
        self._pooled = mean, np.where(known, np.sqrt(np.maximum(variance, 0.0)), 1.0)

    def whose(self, split: str) -> np.ndarray:
        """A code of the person of each row of a split, int64 [n]."""
        self.setup()
        return self._rows[split][2]

    def _scaled(self, split: str, *, pooled: bool) -> Rows:
        self.setup()
        features, label, person = self._rows[split]
        if pooled and self.ranges is None and self._pooled is None:
            raise RuntimeError("the pooled mean and deviation were not agreed before the first round")
        if self.ranges is None:
            own = self._rows["train"][0] if self.trains else self._rows["test"][0]
            if not (pooled or self.labeled or len(own) > 1):
                raise ValueError(ALONE)
            mean, deviation = self._pooled if pooled and self._pooled else (own.mean(axis=0), own.std(axis=0, ddof=1))
            features = (features - mean) / (deviation + EPSILON)
        arrays = {"features": torch.from_numpy(features.astype(np.float32)), "person": torch.from_numpy(person)}
        arrays |= {"label": torch.from_numpy(label.astype(np.float32))} if self.labeled else {}
        return Rows(arrays, None, np.arange(len(label)), augmented=False)

    def _loader(self, split: str, *, pooled: bool, shuffle: bool = False) -> DataLoader[Any]:
        rows = self._scaled(split, pooled=pooled)
        return DataLoader(
            rows, batch_size=self.batch_size if shuffle else max(1, len(rows)), shuffle=shuffle, collate_fn=collate
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Training rows in random order."""
        return self._loader("train", pooled=self.scaling == "pooled", shuffle=self.trains)

    def val_dataloader(self) -> list[DataLoader[Any]] | DataLoader[Any]:
        """Validation rows; no loader without any."""
        self.setup()
        return self._loader("validate", pooled=self.scaling == "pooled") if len(self._rows["validate"][1]) else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Test rows, scaled as the training rows."""
        return self._loader("test", pooled=self.scaling == "pooled")

    def pooled_train_dataloader(self) -> DataLoader[Any]:
        """Training rows scaled with the agreed mean and deviation, for a pooled cohort."""
        return self._loader("train", pooled=True, shuffle=True)

    def pooled_val_dataloader(self) -> list[DataLoader[Any]] | DataLoader[Any]:
        """Validation rows scaled with the agreed mean and deviation, for a pooled cohort; no loader without any."""
        self.setup()
        return self._loader("validate", pooled=True) if len(self._rows["validate"][1]) else []

    def pooled_test_dataloader(self) -> list[DataLoader[Any]] | DataLoader[Any]:
        """Test rows scaled as agreed, which the published pooled test scores; none with declared ranges."""
        return self._loader("test", pooled=True) if self.ranges is None else []
