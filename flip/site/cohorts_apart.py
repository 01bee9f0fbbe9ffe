"""Cohorts that differ by few persons: what is answered about both, subtracted, tells of these few.

Of the persons of two cohorts those count that are in one of them alone, as in the control of overlap of Dobkin, Jones
and Lipton (ACM Trans. Database Syst. 4(1), 1979). Splits are cohorts too: a share that is moved a little moves few.
"""

import fcntl
import os
from collections.abc import Collection, Iterator
from itertools import chain

import numpy as np

from flip.config.rules import ANSWERED, REFUSED
from flip.contracts import FederatedDataModule, NamesPersons
from flip.files import write_whole
from flip.messages import Fault, Task
from flip.privacy import private_among
from flip.site.admission import Loaded
from flip.site.disclosure import enough
from flip.site.journal import Journal
from flip.site.persons import SPLITS, persons_named
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE

TELLING = ("statistics", "plan", "describe", "fit", "evaluate")  # steps whose answers are numbers of a cohort
FILE, DIGITS = "answered.txt", 32  # a line is the name that the journal gives to a set of persons


def refuse_near(task: Task, loaded: Loaded, journal: Journal) -> None:
    """Write down that a cohort, and each of its splits, is answered about: on disk before anything leaves.

    Asks nothing of a study whose noise hides each person. Raises Refusal where one of them differs from one that was
    answered about by at least 1 person and fewer than the policy's `minimum_cell`.
    """
    least, asks = loaded.policy.minimum_cell, loaded.policy.near_cohorts == REFUSED
    if loaded.apart or not asks or least <= 1 or task.step not in TELLING or private_among(loaded.mechanisms):
        return
    told = [
        persons for persons in _cohorts(loaded.datamodule) if enough(len(persons), least)
    ]  # of fewer nothing leaves
    ours = {journal.of_persons(persons) for persons in told}
    path = journal.folder / "state" / "cohorts" / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = {line for line in path.read_text(encoding="utf-8").split("\n") if len(line) == DIGITS}
        if near := _nearest(journal, ours - before, before, least):
            raise Refusal(Fault.REFUSED_NEAR, _words(near, least))
        for name in sorted(ours - before):
            write_whole(file, f"\n{name}\n".encode(), path)  # a line that a crash cut off is ended first
        os.fsync(file)
    finally:
        os.close(file)
    loaded.apart = True


def _cohorts(data: FederatedDataModule) -> Iterator[Collection[str]]:
    """The names of all persons and of those of each split; where a dataset has no names, the numbers of its rows."""
    if everyone := persons_named(data):
        yield everyone
        yield from (persons_named(data, split) for split in SPLITS)
    elif isinstance(data, NamesPersons):
        splits = [{f"row {code}" for code in np.unique(data.whose(split))} for split in SPLITS]
        yield from ({*chain(*splits)}, *splits)


def _nearest(journal: Journal, ours: Collection[str], before: Collection[str], least: int) -> int:
    """The fewest persons by which one of our cohorts differs from another of those before; 0 where that is enough."""
    mine, others = ([journal.persons_in(name) for name in sorted(names)] for names in (ours, before))
    return min((number for a in mine for b in others if (number := len(a ^ b)) < least), default=0)


def _words(persons: int, least: int) -> str:
    """What the site's own log says."""
    return (
        f"the cohort, or a split of it, differs by {persons} of its persons (minimum_cell: {least}) from one that was "
        "answered about, and both answers together would tell of them. Ask again when more have come or gone, or about "
        f"the persons of before; near_cohorts: {ANSWERED} in the site's policy permits it"
    )
