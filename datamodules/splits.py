"""Splits by person, never by row, and the declared partition of one cohort into simulated sites."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

SPLITS = ("train", "validate", "test")
TRIES = 10_000  # draws of a partition until each part holds its minimum; a draw of 10,000 persons takes a millisecond


class ByPerson:
    """Persons split at random, stratified by what is predicted where its classes are large enough.

    Args:
        train: share of the persons to train on.
        validate: share to validate on after each round, 0 for none; the rest is tested on.
        seed: of the draw.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, train: float = 0.6, validate: float = 0.15, seed: int = 0) -> None:
        if not (0 < train <= 1 and validate >= 0 and train + validate <= 1):
            raise ValueError(
                "dataset.split: train (above 0) and validate are shares of the persons, together at most 1"
            )
        self.train, self.validate, self.seed = train, validate, seed

    def split(self, table: pd.DataFrame, person: np.ndarray, strata: np.ndarray) -> np.ndarray:
        """The split of each row, as text; `person` int64 [n] numbers the persons, `strata` int64 [n] their classes."""
        persons, first = np.unique(person, return_index=True)
        of_person = strata[first]
        rest = 1 - self.train - self.validate
        train, test = parted(persons, of_person, rest, self.seed)
        kept = np.isin(persons, train)
        share = self.validate / (self.train + self.validate)
        train, validate = parted(train, of_person[kept], share, self.seed)
        return np.where(np.isin(person, test), "test", np.where(np.isin(person, validate), "validate", "train"))


class ByShare:
    """Persons split at random into exact shares, as scikit-learn's `train_test_split` rounds them: published splits.

    A person's class is the largest of its rows'. Stratified where every class has more than two persons.

    Args:
        train: share of the persons to train on.
        validate: share to validate on after each round, 0 for none; the rest is tested on.
        seed: of the draw.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, train: float = 0.66, validate: float = 0.0, seed: int = 0) -> None:
        if not 0 < train < 1 or not 0 <= validate < 1 - train:
            raise ValueError("dataset.split: train and validate are shares of the persons, and must leave some to test")
        self.train, self.validate, self.seed = train, validate, seed

    def split(self, table: pd.DataFrame, person: np.ndarray, strata: np.ndarray) -> np.ndarray:
        """The split of each row, as text; `person` int64 [n] numbers the persons, `strata` int64 [n] their classes."""
        persons, code = np.unique(person, return_inverse=True)
        worst = np.zeros(len(persons), np.int64)
        np.maximum.at(worst, code, strata)
        rest, test = self._parts(np.arange(len(persons)), worst, 1 - self.train - self.validate)
        validate = rest[:0]
        if self.validate:
            validate = self._parts(rest, worst[rest], self.validate / (self.train + self.validate))[1]
        return np.where(np.isin(code, test), "test", np.where(np.isin(code, validate), "validate", "train"))

    def _parts(self, persons: np.ndarray, strata: np.ndarray, second: float) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import train_test_split  # takes most of a second to import

        counts = np.unique(strata, return_counts=True)[1]
        first, other = train_test_split(
            persons,
            train_size=round(1 - second, 9),
            test_size=round(second, 9),
            random_state=self.seed,
            stratify=strata if len(counts) > 1 and counts.min() > 2 else None,
        )
        return first, other


class ByHash:
    """Persons ranked by a hash of their identifier: the first are tested on, the next validate, the others train.

    Whatever order the table has, a person is in the same split.

    Args:
        validate: share of the persons to validate on after each round, 0 for none.
        test: share to test on.
        seed: of the hash.
    """

    def __init__(self, validate: float = 0.125, test: float = 0.25, seed: int = 0) -> None:
        if validate < 0 or test < 0 or validate + test > 1:
            raise ValueError("dataset.split: validate and test are shares of the persons, together at most 1")
        self.validate, self.test, self.seed = validate, test, seed

    def split(self, persons: Collection[str]) -> dict[str, str]:
        """The split of each person, by identifier."""
        ranked = sorted(persons, key=lambda person: hashlib.sha256(f"{self.seed}\x1f{person}".encode()).digest())
        test = round(self.test * len(ranked))
        validate = test + round(self.validate * len(ranked))
        return {
            person: "test" if rank < test else "validate" if rank < validate else "train"
            for rank, person in enumerate(ranked)
        }


class ByColumn:
    """The split that a column of the table declares, such as a benchmark's own.

    Args:
        column: the column.
        train, validate, test: the value that stands for each.
    """

    def __init__(self, column: str, train: str = "train", validate: str = "validate", test: str = "test") -> None:
        self.columns, self.names = (column,), {train: "train", validate: "validate", test: "test"}

    def split(self, table: pd.DataFrame, person: np.ndarray, strata: np.ndarray) -> np.ndarray:
        """The split of each row, as text. Raises ValueError for another value, and for a person in two splits."""
        found = table[self.columns[0]].map(self.names)
        if found.isna().any():
            raise ValueError(
                f"column {self.columns[0]} of dataset.split holds values other than {', '.join(self.names)}"
            )
        splits = np.asarray(found.to_numpy(), dtype=str)
        if len(set(zip(person.tolist(), splits.tolist(), strict=True))) > len(np.unique(person)):
            raise ValueError(f"column {self.columns[0]} of dataset.split puts a person into two splits")
        return splits


def parted(persons: np.ndarray, strata: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of the persons, the second of about this share, stratified unless a class is too small for it."""
    from sklearn.model_selection import train_test_split  # takes most of a second to import

    second = round(len(persons) * share)
    if second == 0 or second == len(persons):
        return (persons, persons[:0]) if second == 0 else (persons[:0], persons)
    classes, counts = np.unique(strata, return_counts=True)
    fits = len(classes) > 1 and counts.min() > 1 and min(second, len(persons) - second) >= len(classes)
    first, other = train_test_split(persons, test_size=second, random_state=seed, stratify=strata if fits else None)
    return np.sort(first), np.sort(other)


class Dirichlet:
    """One cohort parted into simulated sites with different shares of each class (Hsu et al. 2019), by person.

    Args:
        parts: number of parts.
        alpha: concentration: 0.1 gives each part few classes, 100 all about the same shares.
        seed: of the draw.
        minimum: persons that every part holds at least; shares are drawn again until they do.
    """

    def __init__(self, parts: int, alpha: float = 0.5, seed: int = 0, minimum: int = 10) -> None:
        if parts < 1 or alpha <= 0 or minimum < 1:
            raise ValueError("dataset.partition: parts and minimum must be 1 or more, alpha above 0")
        self.parts, self.alpha, self.seed, self.minimum = parts, alpha, seed, minimum

    def rows(self, person: np.ndarray, strata: np.ndarray, part: int) -> np.ndarray:
        """Which rows belong to a part: bool [n]. Raises ValueError for a part or a minimum that there cannot be."""
        if not 0 <= part < self.parts:
            raise ValueError(f"part: {part} is not one of the {self.parts} parts, 0 to {self.parts - 1}")
        persons, first = np.unique(person, return_index=True)
        if len(persons) < self.parts * self.minimum:
            raise ValueError(
                f"dataset.partition: {self.parts} parts of {self.minimum} persons are more than the {len(persons)} here"
            )
        rng = np.random.default_rng(self.seed)
        for _ in range(TRIES):
            owner = self._draw(rng, strata[first])
            if np.bincount(owner, minlength=self.parts).min() >= self.minimum:
                return np.isin(person, persons[owner == part])
        raise ValueError(
            f"dataset.partition: no draw of {TRIES} gave each part {self.minimum} persons; raise alpha or lower minimum"
        )

    def _draw(self, rng: np.random.Generator, strata: np.ndarray) -> np.ndarray:
        """The part of each person."""
        owner = np.zeros(len(strata), np.int64)
        for stratum in np.unique(strata):
            members = rng.permutation(np.flatnonzero(strata == stratum))
            shares = np.cumsum(rng.dirichlet(np.full(self.parts, self.alpha)))[:-1]
            for number, group in enumerate(np.split(members, np.round(shares * len(members)).astype(np.int64))):
                owner[group] = number
        return owner


def persons_by(pairs: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Distinct persons by reason, from pairs of a reason (None: no reason) and a person's code (below 0: not known)."""
    return dict(Counter(reason for reason, person in set(pairs) if reason is not None and person >= 0))
