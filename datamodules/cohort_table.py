"""A cohort table (one row a person) with declared feature and label columns: CSV in, batches of numbers out."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from datamodules.description import Description, Edges

SCALINGS = ("site", "pooled")
EPSILON = 1e-9  # keeps a constant feature finite; the value of the published Fed-Heart-Disease benchmark (FLamby, 2022)


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Rows as tensors: `features` float32 [n, f], `label` float32 [n]."""

    def __init__(self, features: np.ndarray, label: np.ndarray) -> None:
        self.features = torch.from_numpy(features.astype(np.float32))
        self.label = torch.from_numpy(label.astype(np.float32))

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"features": self.features[index], "label": self.label[index]}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once: several times faster than row by row."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return {"features": self.features[rows], "label": self.label[rows]}


def collate(batch: Any) -> dict[str, torch.Tensor]:
    """A batch that `Rows.__getitems__` made is whole already; single rows (of pooled sites) are stacked."""
    if isinstance(batch, dict):
        return batch
    stacked: dict[str, torch.Tensor] = default_collate(batch)
    return stacked


MISSING = "a value that the study uses is missing"


class CohortTable(lightning.LightningDataModule):
    """A site's cohort table.

    Batches hold `features` (float32 [n, f], standardized) and `label` (float32 [n], 0 or 1).

    Args:
        root: the site's CSV file.
        columns: the site's own name for each column that it names differently (declared name: own name).
        trains: False for a site that is only tested on; all its rows are then in the test split.
        header: names of the columns in order, for a file without a header line; None reads the first line.
        numeric: columns used as numbers.
        categorical: columns one-hot encoded, each with all its levels; the first level is the reference and dropped.
        label: the column to predict.
        positive_above: the label is 1 where the column is above this number.
        person: column that identifies a person; None where each row is one person.
        missing: how the file writes a missing value. Rows with one in a used column are left out and counted.
        batch_size: rows per training batch.
        train_fraction: part of the rows to train on; the rest, less the validation part, is tested on.
        validation_fraction: part of the rows to validate on after each round; 0 for none.
        split_seed: seed of the stratified split by person (scikit-learn's `train_test_split`).
        scaling: "site" standardizes training rows with the site's own mean and deviation, "pooled" with those agreed
            over all sites. `pooled_test_dataloader` always uses the agreed ones.
    """

    REASONS = frozenset({MISSING})
    loads_quickly = True

    def __init__(
        self,
        root: str,
        columns: Mapping[str, str] | None = None,
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
        train_fraction: float = 0.66,
        validation_fraction: float = 0.0,
        split_seed: int = 0,
        scaling: str = "site",
    ) -> None:
        super().__init__()
        if scaling not in SCALINGS:
            raise ValueError(f"dataset.scaling={scaling}: must be one of {', '.join(SCALINGS)}")
        if not 0 < train_fraction < 1 or not 0 <= validation_fraction < 1 - train_fraction:
            raise ValueError("dataset.train_fraction and dataset.validation_fraction: must leave rows to test on")
        self.root, self.columns, self.trains = Path(root), dict(columns or {}), trains
        self.header, self.numeric, self.categorical = (
            header,
            list(numeric),
            {k: list(v) for k, v in categorical.items()},
        )
        self.label, self.positive_above, self.person, self.missing = label, positive_above, person, missing
        self.batch_size, self.train_fraction, self.validation_fraction = batch_size, train_fraction, validation_fraction
        self.split_seed, self.scaling = split_seed, scaling
        self.skipped: dict[str, int] = {}
        self._rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._pooled: tuple[np.ndarray, np.ndarray] | None = None

    # Reading.

    def persons(self) -> int:
        """Number of distinct persons in the table, rows with missing values included."""
        table = self._table()
        if self.person is None:
            return len(next(iter(table.values())))
        return len(set(table[self.person]))

    def setup(self, stage: str | None = None) -> None:
        """Read the table once, leave out rows with missing values, split."""
        if self._rows:
            return
        table = self._table()
        used = [*self.numeric, *self.categorical, self.label]
        values = np.array([self._numbers(name, table[name]) for name in used]).T
        complete = ~np.isnan(values).any(axis=1)
        if not complete.all():
            self.skipped = {MISSING: int((~complete).sum())}
        values = values[complete]
        if not len(values):
            raise ValueError(f"no row has a value in all of {', '.join(used)}")
        label = (values[:, -1] > self.positive_above).astype(np.float64)
        names = np.array(table[self.person]) if self.person else np.arange(len(complete))
        person = np.unique(names[complete], return_inverse=True)[1]
        features = self._features(values[:, :-1])
        self._rows = {name: (features[rows], label[rows]) for name, rows in self._split(person, label).items()}

    def _table(self) -> dict[str, list[str]]:
        """The declared columns as text."""
        if not self.root.is_file():
            raise FileNotFoundError(f"no cohort table at {self.root}")
        with self.root.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
        names = list(self.header) if self.header else lines.pop(0) if lines else []
        if any(len(line) != len(names) for line in lines):
            raise ValueError(f"a row has another number of columns than the {len(names)} of the header")
        wanted = [*self.numeric, *self.categorical, self.label, *([self.person] if self.person else [])]
        own = {name: self.columns.get(name, name) for name in wanted}
        absent = sorted(name for name in own.values() if name not in names)
        if absent:
            raise ValueError(
                f"the table has no column {', '.join(absent)}; map it in the site's `columns` "
                f"(its columns: {', '.join(names)})"
            )
        return {name: [line[names.index(column)].strip() for line in lines] for name, column in own.items()}

    def _numbers(self, name: str, texts: Sequence[str]) -> list[float]:
        try:
            return [float("nan") if text in (self.missing, "") else float(text) for text in texts]
        except ValueError as error:
            raise ValueError(
                f"column {name} holds text that is neither a number nor '{self.missing}' (dataset.missing)"
            ) from error

    def _features(self, values: np.ndarray) -> np.ndarray:
        """Numbers as they are, then one column per level but the first of each category."""
        columns = [values[:, index] for index in range(len(self.numeric))]
        for index, (name, levels) in enumerate(self.categorical.items(), start=len(self.numeric)):
            unknown = sorted(set(values[:, index]) - set(levels))
            if unknown:
                raise ValueError(
                    f"column {name} holds {unknown[0]:g}, which is not among its levels in dataset.categorical"
                )
            columns += [(values[:, index] == level).astype(np.float64) for level in levels[1:]]
        return np.stack(columns, axis=1)

    def _split(self, person: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
        """Rows of each split: persons are split, stratified by label, so that no person is in two of them."""
        persons = np.arange(person.max() + 1)
        worst = np.zeros(len(persons))
        np.maximum.at(worst, person, label)
        parts = {"train": persons[:0], "validate": persons[:0], "test": persons}
        if self.trains:
            rest, parts["test"] = self._parts(persons, worst, 1 - self.train_fraction - self.validation_fraction)
            parts["train"] = rest
            if self.validation_fraction:
                part = self.validation_fraction / (self.train_fraction + self.validation_fraction)
                parts["train"], parts["validate"] = self._parts(rest, worst[rest], part)
        return {name: np.flatnonzero(np.isin(person, part)) for name, part in parts.items()}

    def _parts(self, persons: np.ndarray, label: np.ndarray, second: float) -> tuple[np.ndarray, np.ndarray]:
        """Two parts of the persons, stratified by label unless a class has two of them or fewer."""
        from sklearn.model_selection import train_test_split  # takes most of a second to import

        counts = np.unique(label, return_counts=True)[1]
        stratify = label if len(counts) > 1 and counts.min() > 2 else None
        first, other = train_test_split(
            persons,
            train_size=round(1 - second, 9),
            test_size=round(second, 9),
            random_state=self.split_seed,
            stratify=stratify,
        )
        return first, other

    def describe(self, edges: Edges) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The cohort by column, rows with missing values included: see `datamodules.description`."""
        table = self._table()
        rows = len(table[self.label])
        person = np.unique(table[self.person], return_inverse=True)[1] if self.person else np.arange(rows)
        told = Description(person, edges)
        told.rows("studies", np.ones(rows, bool))
        for name in self.numeric:
            told.number(name, np.array(self._numbers(name, table[name])))
        for name, levels in self.categorical.items():
            values = [None if np.isnan(value) else f"{value:g}" for value in self._numbers(name, table[name])]
            told.category(name, values, [f"{level:g}" for level in levels])
        label = np.array(self._numbers(self.label, table[self.label]))
        told.known(self.label, ~np.isnan(label))
        codes = np.where(np.isnan(label), -1, label > self.positive_above)
        told.classes(codes, [f"{self.label} 0", f"{self.label} 1"])
        return told.found()

    # Scaling.

    def statistics(self) -> dict[str, np.ndarray]:
        """Number, sum and sum of squares of each feature over the training rows: [f, 3]."""
        self.setup()
        features = self._rows["train"][0]
        number = np.full(features.shape[1], float(len(features)))
        return {"moments/features": np.stack([number, features.sum(axis=0), (features**2).sum(axis=0)], axis=1)}

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take the mean and deviation (ddof 1) of all sites' training rows from their summed moments."""
        number, total, squares = merged["moments/features"].T
        variance = (squares - total**2 / number) / (number - 1)
        self._pooled = total / number, np.sqrt(np.maximum(variance, 0.0))

    def sizes(self) -> dict[str, int]:
        """Rows by split; known before any scaling is agreed."""
        self.setup()
        return {split: len(label) for split, (_, label) in self._rows.items()}

    def _scaled(self, split: str, *, pooled: bool) -> Rows:
        self.setup()
        features, label = self._rows[split]
        if pooled and self._pooled is None:
            raise RuntimeError("the pooled mean and deviation were not agreed before the first round")
        own = self._rows["train"][0] if self.trains else self._rows["test"][0]
        mean, deviation = self._pooled if pooled and self._pooled else (own.mean(axis=0), own.std(axis=0, ddof=1))
        return Rows((features - mean) / (deviation + EPSILON), label)

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

    def pooled_test_dataloader(self) -> DataLoader[Any]:
        """Test rows scaled with the agreed mean and deviation: what the published pooled test scores."""
        return self._loader("test", pooled=True)
