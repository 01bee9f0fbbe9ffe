"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

Of the persons of two cohorts those count who are in one of them alone, or with more examples in one than in the other:
the control of overlap of Dobkin, Jones and Lipton (ACM Trans. Database Syst. 4(1), 1979). Splits are cohorts too, and
so is what is described: all parts but those of too few persons.
"""

import fcntl
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flip.config.rules import ANSWERED, REFUSED
from flip.contracts import FederatedDataModule, NamesExamples, NamesPersons
from flip.files import write_atomic
from flip.messages import Fault, Task
from flip.privacy import private_among
from flip.site.admission import Loaded
from flip.site.disclosure import enough
from flip.site.persons import SPLITS
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE

TELLING = ("statistics", "plan", "describe", "fit", "evaluate")  # steps whose answers are numbers of a cohort
FOLDER = Path("state", "cohorts", "persons")
NAME = re.compile(r"(\d+)\.([0-9a-f]{32})\.(\d+)")

Persons = Mapping[str, int]
"""By person, as an HMAC, how many examples a cohort has."""


class Kept(NamedTuple):
    """The file of a set of persons: the number of the cohort that it is of, in the order of answers, and its size."""

    order: int
    digest: str
    persons: int

    @classmethod
    def named(cls, path: Path) -> "Kept | None":
        """From a file's name; None for any other file."""
        found = NAME.fullmatch(path.name)
        return cls(int(found[1]), found[2], int(found[3])) if found else None

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.order}.{self.digest}.{self.persons}"


@contextmanager
def answered_about(task: Task, loaded: Loaded, home: Path, hidden: Callable[[str], str]) -> Iterator[None]:
    """While a task is answered: its cohort is on disk before anything leaves, and gone again where that raises.

    Asks nothing of a study whose noise hides each person. `hidden` makes of a name what stands for it on the disk.
    Raises Refusal where the cohort, or a split, differs by at least 1 person and fewer than the policy's minimum cell
    from one that was answered about, unless the policy permits it.
    """
    counts = task.step in TELLING and not task.params.get("tries") and not private_among(loaded.mechanisms)
    if loaded.apart or not counts or not (loaded.deployed or loaded.policy.minimum_cell > 1):
        yield
        return
    folder = home / FOLDER
    sets = _sets(loaded, hidden)
    new = _reserved(loaded, folder, sets)
    try:
        yield
        _reserved(loaded, folder, sets)  # another task of these persons may have failed, and taken them away
    except BaseException:
        _taken_back(folder, new)
        raise
    loaded.apart = True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in the folder meanwhile."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _taken_back(folder: Path, new: Iterable[Path]) -> None:
    with _alone(folder):
        for path in new:
            path.unlink(missing_ok=True)


def _sets(loaded: Loaded, hidden: Callable[[str], str]) -> list[tuple[str, Persons]]:
    """The sets of persons of a cohort of which anything leaves, each person by what stands for the name."""
    least = loaded.policy.minimum_cell
    cohorts = _cohorts(loaded.datamodule, least)
    told = [(name, persons) for name, persons in cohorts if persons and enough(len(persons), least)]
    return [(name, {hidden(person): number for person, number in persons.items()}) for name, persons in told]


def _reserved(loaded: Loaded, folder: Path, sets: Iterable[tuple[str, Persons]]) -> list[Path]:
    """Keep the sets of persons of a cohort that are not there yet; returns their files.

    A set is held against those that were kept before it alone, and against none of the same cohort.
    """
    least, new = loaded.policy.minimum_cell, dict[Path, bytes]()
    with _alone(folder):
        kept = {each.digest: each for path in folder.iterdir() if (each := Kept.named(path))}
        last = max((each.order for each in kept.values()), default=0)
        for name, told in sets:
            text = "".join(f"{person} {told[person]}\n" for person in sorted(told)).encode()
            ours = Kept(last + 1, hashlib.sha256(text).hexdigest()[:32], len(told))
            ours = kept.get(ours.digest, ours)
            if least > 1 and loaded.policy.near_cohorts == REFUSED:
                before = [each for each in kept.values() if each.order < ours.order]
                _refuse_near(name, told, folder, before, least=least)
            if ours.digest not in kept:
                new[folder / ours.name] = text
        for path, text in new.items():
            write_atomic(path, text, PRIVATE)
    return [*new]


def _cohorts(data: FederatedDataModule, least: int) -> Iterator[tuple[str, Persons]]:
    """By what the site's log calls them: what is described of a dataset, without parts of too few, and each split."""
    if isinstance(data, NamesExamples):
        splits = {each: Counter(data.example_persons(each)) for each in SPLITS}
        whole = Counter(data.example_persons(""))
    elif isinstance(data, NamesPersons):
        splits = {each: Counter(f"row {code + 1}" for code in data.whose(each).tolist()) for each in SPLITS}
        whole = sum(splits.values(), Counter[str]())
    else:
        return
    parts = [*splits.values(), whole - sum(splits.values(), Counter[str]())]
    yield "the cohort", sum((each for each in parts if enough(len(each), least)), Counter[str]())
    yield from ((f"its split '{name}'", persons) for name, persons in splits.items())


def _refuse_near(name: str, ours: Persons, folder: Path, before: Sequence[Kept], *, least: int) -> None:
    """Raise Refusal where a set differs from one of those before by at least 1 person and fewer than `least`."""
    for each in before:
        if abs(each.persons - len(ours)) >= least:
            continue
        other = _read(folder / each.name, each.digest)
        few = sum(ours.get(person) != other.get(person) for person in {*ours, *other})
        if 0 < few < least:
            raise Refusal(
                Fault.REFUSED_NEAR,
                f"{name} differs by {few} of its persons, who came, went or have other examples, from one that was "
                f"answered about (minimum_cell: {least}): both answers together would tell of them. Ask about the "
                f"persons of before, or once {least} differ; near_cohorts: {ANSWERED} in the site's policy permits it",
            )


def _read(path: Path, digest: str) -> Persons:
    """A set as it was written. Raises Refusal for one that was changed."""
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest()[:32] != digest:
        raise Refusal(Fault.REFUSED_NEAR, f"{FOLDER / path.name} is not as it was written; put it back")
    return {person: int(number) for person, number in (line.split() for line in text.decode().splitlines())}
