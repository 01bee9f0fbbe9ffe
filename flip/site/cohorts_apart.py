"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

The control of overlap of Dobkin, Jones and Lipton (ACM Trans. Database Syst. 4(1), 1979), over each split of a cohort,
the rows that are left out, any of them together, and the table. Of two such sets those persons count who are in one of
them alone, and those who have more examples in one than in the other.
"""

import fcntl
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
from flip.messages.safetensors import pack, unpack
from flip.privacy import private_among
from flip.site.admission import Loaded
from flip.site.disclosure import enough
from flip.site.persons import SPLITS
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE, content_name

FOLDER = Path("state", "cohorts", "persons")
NAME = re.compile(r"(\d+)\.(\d+)\.([0-9a-f]{32})")
COLUMNS = (*SPLITS, "")
"""Whose examples are counted: those of each split, and the rows of the table."""
PARTS = (*(f"split '{name}'" for name in SPLITS), "rows that are left out")
"""What a task tells of together or apart, as the site's log calls it."""
REMEDY = "put it back from a copy, or remove it, after which nothing is held against what was answered about it"


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

    def columns(self, everybody: NDArray[np.uint64]) -> NDArray[np.int64]:
        """How many examples each of `everybody` has in each of COLUMNS, int64 [4, persons]."""
        spread = np.zeros((len(COLUMNS), len(everybody)), np.int64)
        spread[:, np.searchsorted(everybody, self.persons)] = self.examples.T
        return spread

    def near(self, other: "Cohort", least: int, then: int) -> tuple[str, int] | None:
        """The first set that a task may tell of and that is near one of another's, and by how many persons; or None.

        A table is compared with a table alone: its rows may be fewer than the examples that are made of them. `least`,
        `then`: persons that a set has at least of which anything is told, of this cohort and of the other.
        """
        everybody = np.union1d(self.persons, other.persons)
        ours, theirs = self.columns(everybody), other.columns(everybody)
        of_other = [each for _, each in told_sets(theirs, then)]
        pairs = [(name, mine, each) for name, mine in told_sets(ours, least) for each in of_other]
        for name, mine, each in [*pairs, ("table", ours[-1], theirs[-1])]:
            if abs(persons_in(mine) - persons_in(each)) < least:  # else as many are in one alone
                for differ in ((mine > 0) != (each > 0), mine != each):
                    if 0 < (few := persons_in(differ)) < least:
                        return name, few
        return None

    def tells_no_more(self, least: int, then: int) -> bool:
        """Whether a minimum cell of `least` has nothing told of the cohort that one of `then` did not."""
        before = {each.tobytes() for _, each in told_sets(self.examples.T, then)}
        return all(each.tobytes() in before for _, each in told_sets(self.examples.T, least))


def told_sets(columns: NDArray[np.int64], least: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """What tasks tell of, by name: how many examples each person has in it, int64 [persons], of `Cohort.columns`.

    A part of fewer than `least` persons is in no set. The total (`flip.site.complementary.suppress_total`) tells of
    small splits where they have as many together with those who are in no split, some of whom it may leave out.
    """
    *splits, table = columns
    parts = dict(zip(PARTS, [*splits, (table - sum(splits)).clip(0)], strict=True))
    told = [name for name, each in parts.items() if each.any() and enough(persons_in(each), least)]
    for many in range(len(told), 0, -1):
        for names in combinations(told, many):
            yield " and its ".join(names), np.sum([parts[name] for name in names], axis=0)
    small = sum(persons_in(parts[name]) for name in PARTS[:-1] if name not in told)
    others = persons_in((table > 0) & (sum(splits) == 0))
    if small and enough(small + others, least):
        yield "total", np.sum([*parts.values()], axis=0)


def persons_in(examples: NDArray[np.int64 | np.bool_]) -> int:
    """How many persons have examples."""
    return int(np.count_nonzero(examples))


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

    def keep(self) -> None:
        """Put the cohort on the disk as one that was answered about, before anything is computed.

        Raises Refusal, unless the policy permits it, where a set of the cohort differs by at least 1 person and fewer
        than the minimum cell from one that was answered about before; OSError where it cannot be kept.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:  # two processes may be asked about two cohorts at a time
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept, content = self._kept(), pack(vars(self.cohort), {})
            ours = self._place(kept, content_name(content))
            self._held(kept, ours)
            if ours not in kept:
                write_atomic(self.folder / ours.name, content, PRIVATE)

    def _kept(self) -> list[Kept]:
        """The files of cohorts in the order of answers; each is whole as long as it is there."""
        return sorted(each for path in self.folder.glob("*") if (each := Kept.named(path)))

    def _place(self, kept: list[Kept], digest: str) -> Kept:
        """The file of this cohort: of an answer that told of no fewer sets than the policy does now, else the next."""
        cell = self.policy.minimum_cell
        own = (each for each in kept if each.digest == digest)
        there = (each for each in own if self.cohort.tells_no_more(cell, each.cell))
        return next(there, Kept(kept[-1].order + 1 if kept else 1, cell, digest))

    def _held(self, kept: list[Kept], ours: Kept) -> None:
        """Hold the cohort against those that were answered about before it."""
        least = self.policy.minimum_cell
        if least > 1 and self.policy.near_cohorts == REFUSED:
            for each in kept:
                if each.order < ours.order and (found := self.cohort.near(self._read(each), least, each.cell)):
                    then = None if each.digest != ours.digest else each.cell
                    raise near(*found, least, when=(self.folder / each.name).stat().st_mtime, then=then)

    def _read(self, kept: Kept) -> Cohort:
        """A cohort as it was written. Raises Refusal for one that was changed."""
        content = (self.folder / kept.name).read_bytes()
        if content_name(content) != kept.digest:
            raise Refusal(Fault.REFUSED_NEAR, f"{FOLDER / kept.name} is not as it was written; {REMEDY}")
        arrays, _ = unpack(content)
        return Cohort(**arrays)


def near(name: str, few: int, least: int, *, when: float, then: int | None) -> Refusal:
    """What the log says of a set of persons that differs by few from one of an answer of `when`, in Unix seconds.

    `then`: the minimum cell of that answer, where it was about these very persons.
    """
    day, persons = datetime.fromtimestamp(when).date(), f"{few} person{'s' * (few > 1)}"
    why = (
        f"{persons} came, went, or changed in examples, fewer than minimum_cell: {least}, so both answers together "
        f"would tell of them. Ask about the persons of before, or once {least} differ; where splits alone are near, "
        f"with another dataset.split.seed, and no split of fewer than {least}"
        if then is None
        else f"the same persons, under minimum_cell: {then}. Under {least} another part is told of, and both answers "
        f"together would tell of {persons}. Put minimum_cell back, or ask with shares of the split under which each "
        "has as many"
    )
    detail = f"its {name}, against what was answered about on {day}: {why}. near_cohorts: {ANSWERED} permits it"
    return Refusal(Fault.REFUSED_NEAR, detail)


def keep_apart(loaded: Loaded, home: Path, hidden: Callable[[str], str]) -> None:
    """Before a task of a study is answered for the first time: hold its cohort against others, and keep it as one.

    It stays whatever comes of the task, since that may depend on the rows. Asked once for each study that is loaded;
    not of one whose noise hides each person, unless it has too few to train on, since the share of a split at which
    that is said gives their number away; and not in simulations of a minimum cell of 1. `hidden` makes of a name what
    stands for it on the disk. Raises Refusal, and OSError where the cohort cannot be kept.
    """
    hides = private_among(loaded.mechanisms) and not loaded.few
    if not loaded.apart and not hides and (loaded.deployed or loaded.policy.minimum_cell > 1):
        Apart(home / FOLDER, Cohort.of(columns_of(loaded.datamodule), hidden), loaded.policy).keep()
        loaded.apart = True
    if loaded.few:
        raise Refusal(*loaded.few)


def columns_of(data: FederatedDataModule) -> dict[str, Counter[str]]:
    """By column of COLUMNS the examples of each person of a dataset, by name, else by code."""
    if isinstance(data, NamesExamples):
        return {column: Counter(data.example_persons(column)) for column in COLUMNS}
    splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    if isinstance(data, NamesPersons):
        splits = {name: Counter(f"row {code + 1}" for code in data.whose(name).tolist()) for name in SPLITS}
    return splits | {"": sum(splits.values(), Counter[str]())}
