"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

The control of overlap of Dobkin, Jones and Lipton (ACM Trans. Database Syst. 4(1), 1979), for whatever a task tells of:
each split of a cohort, any of them together, and the rows of its table. Of two such sets those persons count who are in
one of them alone, and those who have more examples in one than in the other.
"""

import fcntl
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flip.config.policy import Policy
from flip.config.rules import ANSWERED, REFUSED
from flip.contracts import FederatedDataModule, NamesExamples, NamesPersons
from flip.files import write_atomic
from flip.messages import Fault
from flip.messages.safetensors import load_file, pack
from flip.privacy import private_among
from flip.site.admission import Loaded
from flip.site.disclosure import enough
from flip.site.persons import SPLITS
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE, content_name

FOLDER = Path("state", "cohorts", "persons")
NAME = re.compile(r"(\d+)\.(\d+)\.([0-9a-f]{32})")
SETS = {
    "the cohort": SPLITS,
    "its table": ("",),
    **{f"its split '{name}'": (name,) for name in SPLITS},
    **{f"its splits '{one}' and '{other}'": (one, other) for one, other in combinations(SPLITS, 2)},
}
"""What a task may tell of, as the site's log calls it, and the columns of `Cohort.examples` that it adds up."""
COLUMNS = (*SPLITS, "")
ADDED = np.array([[column in columns for columns in SETS.values()] for column in COLUMNS], np.int64)


class Kept(NamedTuple):
    """The file of a cohort: its number in the order of answers, the minimum cell then, and what it is of."""

    order: int
    cell: int
    digest: str

    @classmethod
    def named(cls, path: Path) -> "Kept | None":
        """From a file's name; None for any other file."""
        found = NAME.fullmatch(path.name)
        return cls(int(found[1]), int(found[2]), found[3]) if found else None

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.order}.{self.cell}.{self.digest}"


@dataclass(frozen=True)
class Cohort:
    """Who is in a cohort: what stands for each person, uint64 [n] in ascending order, and how many examples each has in
    each of COLUMNS, int64 [n, 4]: the splits, and the rows of the table."""

    persons: NDArray[np.uint64]
    examples: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Mapping[str, Mapping[str, int]], hidden: Callable[[str], str]) -> "Cohort":
        """From the examples of each person in each of COLUMNS; `hidden` makes hexadecimal digits of a name."""
        names = {name: int(hidden(name)[:16], 16) for each in columns.values() for name in each}
        persons, places = np.unique(np.array([*names.values()], np.uint64), return_inverse=True)
        examples = np.zeros((len(persons), len(COLUMNS)), np.int64)
        for name, place in zip(names, places, strict=True):
            examples[place] += [columns[column].get(name, 0) for column in COLUMNS]
        return cls(persons, examples)

    def sets(self, everybody: NDArray[np.uint64]) -> NDArray[np.int64]:
        """How many examples each of `everybody` has in each of SETS, [persons, sets]."""
        spread = np.zeros((len(everybody), len(COLUMNS)), np.int64)
        spread[np.searchsorted(everybody, self.persons)] = self.examples
        return spread @ ADDED

    def near(self, other: "Cohort", least: int, then: int) -> tuple[str, int] | None:
        """The first set that a task may tell of and that is near one of another's, and by how many persons; or None.

        `least`, `then`: persons that a set has at least of which anything is told, of this cohort and of the other.
        """
        everybody = np.union1d(self.persons, other.persons)
        ours, theirs = self.sets(everybody), other.sets(everybody)
        of_other = [each for each in theirs.T if each.any() and enough(int((each > 0).sum()), then)]
        for name, mine in zip(SETS, ours.T, strict=True):
            if mine.any() and enough(int((mine > 0).sum()), least):
                for each in of_other:
                    for differ in ((mine > 0) != (each > 0), mine != each):
                        if 0 < (few := int(differ.sum())) < least:
                            return name, few
        return None


@dataclass(frozen=True)
class Apart:
    """A cohort that is about to be answered about, and the folder of those that were.

    Args:
        folder: where they are kept.
        cohort: the one that is asked about.
        policy: says whether one near another is refused.
    """

    folder: Path
    cohort: Cohort
    policy: Policy

    def refuse_near(self) -> None:
        """Raises Refusal, unless the policy permits it, where a set of the cohort differs by at least 1 person and
        fewer than the minimum cell from one that was answered about before."""
        with self._alone() as kept:
            self._held(kept, self._place(kept))

    def keep(self) -> None:
        """Once the answer is there and before it leaves: the same, since another process may have answered meanwhile,
        and then the cohort is on the disk as one that was answered about. Raises OSError besides."""
        with self._alone() as kept:
            ours = self._place(kept)
            self._held(kept, ours)
            if ours not in kept:
                write_atomic(self.folder / ours.name, self._content, PRIVATE)

    @contextmanager
    def _alone(self) -> Iterator[list[Kept]]:
        """The files of cohorts in the order of answers; no other process is in the folder meanwhile."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield sorted(each for path in self.folder.iterdir() if (each := Kept.named(path)))

    @property
    def _content(self) -> bytes:
        return pack({"persons": self.cohort.persons, "examples": self.cohort.examples}, {})

    def _place(self, kept: list[Kept]) -> Kept:
        """The file of this cohort: one that tells of no fewer sets than the policy does now, else the next."""
        digest, cell = content_name(self._content), self.policy.minimum_cell
        there = (each for each in kept if each.digest == digest and each.cell <= cell)
        return next(there, Kept(kept[-1].order + 1 if kept else 1, cell, digest))

    def _held(self, kept: list[Kept], ours: Kept) -> None:
        """Hold the cohort against those that were answered about before it."""
        least = self.policy.minimum_cell
        if least > 1 and self.policy.near_cohorts == REFUSED:
            for each in kept:
                if each.order < ours.order and (found := self.cohort.near(self._read(each), least, each.cell)):
                    raise near(*found, least, when=(self.folder / each.name).stat().st_mtime)

    def _read(self, kept: Kept) -> Cohort:
        """A cohort as it was written. Raises Refusal for one that was changed."""
        path = self.folder / kept.name
        if content_name(path.read_bytes()) != kept.digest:
            raise Refusal(Fault.REFUSED_NEAR, f"{FOLDER / path.name} is not as it was written; put it back")
        arrays, _ = load_file(path)
        return Cohort(arrays["persons"], arrays["examples"])


def near(name: str, few: int, least: int, *, when: float) -> Refusal:
    """What the log says of a set of persons that differs by few from one of an answer of `when`, in Unix seconds."""
    return Refusal(
        Fault.REFUSED_NEAR,
        f"{few} of the persons of {name} came, went, changed splits, or have other examples than in what was answered "
        f"about on {datetime.fromtimestamp(when).date()} (minimum_cell: {least}): both answers together would tell of "
        f"them. Ask about the persons of before, with another dataset.split.seed where a split alone is near, or once "
        f"{least} differ; near_cohorts: {ANSWERED} in the site's policy permits it",
    )


@contextmanager
def answered_about(loaded: Loaded, home: Path, hidden: Callable[[str], str]) -> Iterator[None]:
    """While a task is answered: its cohort is held against others before, and is kept as one of them before it leaves.

    A refusal for the number of persons to train on tells of them as an answer does, and comes after it, too. Nothing is
    held against others once a process has answered about the study, where its noise hides each person, and in
    simulations of a minimum cell of 1. `hidden` makes of a name what stands for it on the disk. Raises Refusal, and
    OSError where the cohort cannot be kept.
    """
    private, of_patients = private_among(loaded.mechanisms), loaded.deployed or loaded.policy.minimum_cell > 1
    apart = None
    if of_patients and not (loaded.apart or private):
        apart = Apart(home / FOLDER, Cohort.of(columns_of(loaded.datamodule), hidden), loaded.policy)
        apart.refuse_near()
    if loaded.few is None:
        yield
    if apart is not None:
        apart.keep()
        loaded.apart = True
    if loaded.few is not None:
        raise loaded.few


def columns_of(data: FederatedDataModule) -> dict[str, Counter[str]]:
    """By column of COLUMNS the examples of each person of a dataset, by name, else by code."""
    if isinstance(data, NamesExamples):
        return {column: Counter(data.example_persons(column)) for column in COLUMNS}
    splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    if isinstance(data, NamesPersons):
        splits = {name: Counter(f"row {code + 1}" for code in data.whose(name).tolist()) for name in SPLITS}
    return splits | {"": sum(splits.values(), Counter[str]())}
