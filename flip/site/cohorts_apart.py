"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

Of the persons of two cohorts those count who are in one of them alone, or with more examples in one than in the other:
the control of overlap of Dobkin, Jones and Lipton (ACM Trans. Database Syst. 4(1), 1979). Splits are cohorts too, and
so is what is described: all parts but those of too few persons.
"""

import fcntl
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
    """Keep the sets of persons of a cohort that are not there yet; returns their files."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours = {name: persons for name, persons in _cohorts(loaded.datamodule, loaded.policy.minimum_cell) if persons}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new: dict[Path, bytes] = {}
        for name, persons in ours.items():
            told = {hidden(person): number for person, number in persons.items()}
            text = "".join(f"{person} {told[person]}\n" for person in sorted(told)).encode()
            path = folder / f"{hashlib.sha256(text).hexdigest()[:32]}.{len(told)}"
            if path in new or path.exists():
                continue
            if loaded.policy.near_cohorts == REFUSED:
                _refuse_near(name, told, folder, loaded.policy.minimum_cell)
            new[path] = text
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


def _refuse_near(name: str, ours: Persons, folder: Path, least: int) -> None:
    """Raise Refusal where a set differs from one that is kept by at least 1 person and fewer than `least`."""
    for path in sorted(folder.glob("*.*")):
        number = int(path.suffix[1:])
        if not (enough(number, least) and enough(len(ours), least) and abs(number - len(ours)) < least):
            continue  # of a set of fewer nothing has left
        other = _kept(path)
        few = sum(ours.get(person) != other.get(person) for person in {*ours, *other})
        if 0 < few < least:
            raise Refusal(
                Fault.REFUSED_NEAR,
                f"{name} differs by {few} persons, who came, went or have other examples, from one that was answered "
                f"about (minimum_cell: {least}): both answers together would tell of them. Ask about the persons of "
                f"before, or once {least} differ; near_cohorts: {ANSWERED} in the site's policy permits it",
            )


def _kept(path: Path) -> Persons:
    """A set as it was written. Raises Refusal for one that was changed."""
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest()[:32] != path.stem:
        raise Refusal(Fault.REFUSED_NEAR, f"{FOLDER / path.name} is not as it was written; put it back")
    return {person: int(number) for person, number in (line.split() for line in text.decode().splitlines())}
