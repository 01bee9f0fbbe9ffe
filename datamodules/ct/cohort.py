"""The cohort table of a site with CT studies: one row a study, read and checked without touching an image."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.alignment import aligned, identifier, numbered
from datamodules.csv_table import read_csv
from datamodules.description import Description, Edges
from datamodules.opt_out import Gone, without

REQUIRED = ("person_id", "accession_id", "sex", "height_m")
OPTIONAL = ("age", "weight_kg", "followup_days", "event")
SEXES = {0: "female", 1: "male"}
_SEXES = {"f": 0, "female": 0, "m": 1, "male": 1}
_RANGES = {
    "height_m": (1.0, 2.5),
    "weight_kg": (20.0, 400.0),
    "age": (0.0, 125.0),
    "followup_days": (0.0, 50_000.0),
    "event": (0, 1),
}


NO_PERSON = "the table gives no person_id"
NO_ACCESSION = "the table's accession_id is missing or not a plain name"
NO_SEX = "the table's sex is not one of F, M, female, male"
NO_HEIGHT = "the table's height_m is missing or not between 1 and 2.5 m"
UNREAD_NUMBER = "an age, weight_kg, followup_days or event of the table is no number of its range: missing"
PROBLEMS = (NO_PERSON, NO_ACCESSION, NO_SEX, NO_HEIGHT)


@dataclass(frozen=True)
class Study:
    """One row of the table. `sex` 0 female, 1 male, -1 unknown; a number that is missing or impossible is NaN.

    `unread`: one of `OPTIONAL` is there, and is no number of its range.
    """

    person: str
    accession: str
    sex: int
    height_m: float
    weight_kg: float
    age: float
    followup_days: float
    event: float
    unread: bool = False

    @property
    def problem(self) -> str:
        """Why the row cannot be used, as a sentence without identifiers; empty where it can."""
        if not self.person:
            return NO_PERSON
        if not self.accession or Path(self.accession).name != self.accession or self.accession in (".", ".."):
            return NO_ACCESSION
        if self.sex < 0:
            return NO_SEX
        if math.isnan(self.height_m):
            return NO_HEIGHT
        return ""


def read_cohort(root: Path, columns: Mapping[str, str], opt_out: Collection[str] = ()) -> tuple[list[Study], Gone]:
    """Read `cohort.csv` below `root`, in the order of its rows, without persons who opted out; and who they are.

    `columns` gives the site's own name for a column of `REQUIRED` or `OPTIONAL` that it names differently. Raises
    FileNotFoundError for a missing folder or table, ValueError for one that is no table, lacks a column or has no row.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"the data root {root} does not exist: set the site's `root` to the folder that holds cohort.csv"
        )
    path = root / "cohort.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{root} holds no cohort.csv")
    table = read_csv(path)
    if not len(table):
        raise ValueError(f"{path} has no row")
    mapped = {name: own for name, own in columns.items() if name in (*REQUIRED, *OPTIONAL)}
    table, _, opted_out = without(table, REQUIRED[0], mapped, opt_out=opt_out)
    wanted = [*REQUIRED, *(name for name in OPTIONAL if name in mapped or name in table)]
    found = aligned(table, wanted, mapped)
    found = found.where(found.notna(), "")
    rows = [{name: row.get(name, "") for name in (*REQUIRED, *OPTIONAL)} for row in found.to_dict("records")]
    return [_study(row) for row in rows], opted_out


class OfTable:
    """What a dataset over such a table says of its persons."""

    root: Path
    columns: Mapping[str, str]
    opt_out: Collection[str]
    opted_out: Gone = (0, 0)
    _table: list[Study] | None = None

    def prepare_data(self) -> None:
        """Whatever must be on disk before the table is read."""

    def persons(self) -> int:
        """Number of distinct persons in the table. Raises FileNotFoundError or ValueError for an unusable one."""
        self.prepare_data()
        return len({study.person for study in self._studies()})

    def person_names(self) -> list[str]:
        """The site's own name of each person, once."""
        return [name for name in dict.fromkeys(study.person for study in self._studies()) if name]

    def example_persons(self, split: str) -> list[str]:
        """The site's own name of the person of each example of a split, or of each row: see `flip.contracts`."""
        rows = numbered([study.person for study in self._studies()])
        return [rows[code] for code in self.whose(split).tolist()] if split else rows

    def whose(self, split: str) -> NDArray[np.int64]:
        """A code of the person of each example of a split, int64 [n]: the row of a study."""
        raise NotImplementedError

    def _studies(self) -> list[Study]:
        """The rows of the table, read once: what is told later is of what was split."""
        if self._table is None:
            self._table, self.opted_out = read_cohort(self.root, self.columns, self.opt_out)
        return self._table


def unread(studies: Sequence[Study], doubts: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """By remark, how many studies, and of how many persons, have a number that is none; `doubts` are about all."""
    of_studies = {UNREAD_NUMBER: [each for each in studies if each.unread], **dict.fromkeys(doubts, studies)}
    made = {remark: [each.person for each in found] for remark, found in of_studies.items() if found}
    return {each: len(made[each]) for each in made}, {each: len(set(made[each])) for each in made}


def described(
    studies: Sequence[Study],
    parts: NDArray[np.str_],
    images: Mapping[int, NDArray[np.float32]],
    edges: Edges,
    *,
    minimum_cell: int,
) -> tuple[dict[str, Any], dict[str, int]]:
    """The table by column, and how many have images with labels (`parts`, their split, is empty of the others): see
    `datamodules.description`. `images`: planes by row, 0 to 1 in the window; of a person with several, the last."""
    person = np.unique([study.person for study in studies], return_inverse=True)[1]
    told = Description(person, edges, parts, minimum_cell)
    told.rows("studies", np.ones(len(studies), bool))
    told.rows("labels", parts != "")
    told.category("sex", [SEXES.get(study.sex) for study in studies], tuple(SEXES.values()))
    for name in ("height_m", "weight_kg", "age", "followup_days", "event"):
        told.number(name, np.array([getattr(study, name) for study in studies]))
    of = {studies[row].person: image for row, image in images.items()}
    told.images([of.get(study.person) for study in studies])
    return told.found()


def _study(row: Mapping[str, str]) -> Study:
    numbers = {name: _number(row[name], *bounds) for name, bounds in _RANGES.items()}
    return Study(
        identifier(row["person_id"]) or "",
        row["accession_id"].strip(),
        _SEXES.get(row["sex"].strip().lower(), -1),
        **numbers,
        unread=any(row[name].strip() and math.isnan(numbers[name]) for name in OPTIONAL),
    )


def _number(text: str, low: float, high: float) -> float:
    """The number, or NaN where there is none or it is out of bounds."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if low <= value <= high else math.nan
