"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

Of the persons of two cohorts those count who are in one of them alone, or with more examples in one than in the other:
the control of overlap of Dobkin, Jones and Lipton (ACM Trans. Database Syst. 4(1), 1979). Splits are cohorts too, and
so is what is described: all parts but those of too few persons.
"""

import fcntl
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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

Persons = Mapping[str, int]
"""By person, as an HMAC, how many examples a cohort has."""


class Kept(NamedTuple):
    """The file of a set of persons: the number of the cohort that it is of, in the order of answers, and its size."""

    order: int
    digest: str
    persons: int

    @classmethod
    def named(cls, path: Path) -> "Kept":
        """From a file's name."""
        order, digest, persons = path.name.split(".")
        return cls(int(order), digest, int(persons))

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
    counts = task.step in TELLING and not private_among(loaded.mechanisms)
    if loaded.apart or not counts or not (loaded.deployed or loaded.policy.minimum_cell > 1):
        yield
        return
    new = _reserved(loaded, home / FOLDER, hidden)
    try:
        yield
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    loaded.apart = True


def _reserved(loaded: Loaded, folder: Path, hidden: Callable[[str], str]) -> list[Path]:
    """Keep the sets of persons of a cohort that are not there yet; returns their files.

    A set is held against those that were kept before it alone, and against none of the same cohort.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new: dict[Path, bytes] = {}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = {each.digest: each for each in map(Kept.named, folder.glob("*.*.*"))}
        last = max((each.order for each in kept.values()), default=0)
        for name, persons in _cohorts(loaded.datamodule, loaded.policy.minimum_cell):
            told = {hidden(person): number for person, number in persons.items()}
            text = "".join(f"{person} {told[person]}\n" for person in sorted(told)).encode()
            ours = Kept(last + 1, hashlib.sha256(text).hexdigest()[:32], len(told))
            ours = kept.get(ours.digest, ours)
            if loaded.policy.near_cohorts == REFUSED:
                before = [each for each in kept.values() if each.order < ours.order]
                _refuse_near(name, told, folder, before, least=loaded.policy.minimum_cell)
            if told and ours.digest not in kept:
                new[folder / ours.name] = text
        for path, text in new.items():
            write_atomic(path, text, PRIVATE)
    return [*new]


def _cohorts(data: FederatedDataModule, least: int) -> Iterator[tuple[str, Persons]]:
    """By what the site's log calls them: a dataset's rows, each split, and what is described of it."""
    if isinstance(data, NamesExamples):
        splits = {each: Counter(data.example_persons(each)) for each in SPLITS}
        whole = Counter(data.example_persons(""))
    elif isinstance(data, NamesPersons):
        splits = {each: Counter(f"row {code + 1}" for code in data.whose(each).tolist()) for each in SPLITS}
        whole = sum(splits.values(), Counter[str]())
    else:
        return
    yield "the cohort", whole
    yield from ((f"its split '{name}'", persons) for name, persons in splits.items())
    parts = [*splits.values(), whole - sum(splits.values(), Counter[str]())]
    yield "what is described of it", sum((each for each in parts if enough(len(each), least)), Counter[str]())


def _refuse_near(name: str, ours: Persons, folder: Path, before: Sequence[Kept], *, least: int) -> None:
    """Raise Refusal where a set differs from one of those before by at least 1 person and fewer than `least`."""
    for each in before:
        if not (enough(each.persons, least) and enough(len(ours), least) and abs(each.persons - len(ours)) < least):
            continue  # of a set of fewer nothing has left
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
