"""A site's cohort as one aligned table, with its notes, and a way to open the image of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datamodules.alignment import aligned, identifier
from datamodules.below import below
from datamodules.counted import counted
from datamodules.csv_table import read_csv
from datamodules.image_files import files_below
from datamodules.npz import NPZ
from datamodules.opt_out import Gone, without
from datamodules.records import Records
from datamodules.remarks import Remark
from datamodules.units import InUnit

PERSON, ACCESSION = "person", "accession"
NO_PERSON = "the table gives no person"
COPY = "the row is a copy of another one of the same accession"


@dataclass(frozen=True)
class CohortQuery:
    """What a study needs of a cohort: its rows, the declared names of all columns but those that identify, and `text`.

    `text` is the one among them that the site's notes go into, if it has a source of notes.
    """

    records: Records
    columns: Sequence[str]
    text: str | None


@dataclass(frozen=True)
class Cohort:
    """The aligned table, of each row `person`, an int64 code (-1 unknown), and `accession` (None where unknown); and
    what the source lacks of them, and in which units it has its values.
    """

    table: pd.DataFrame
    person: np.ndarray
    accession: list[str | None]
    remarks: Sequence[Remark] = ()
    units: Sequence[InUnit] = ()
    told_apart: bool = False  # whether the table itself gives the accessions, each its row
    names: Sequence[str | None] = ()  # of the persons, as the site writes them; none where the table has no such column
    opted_out: Gone = (0, 0)  # what is not in it since the persons opted out

    def rows(self, rows: np.ndarray) -> Cohort:
        """Some rows of it, by their number."""
        accession = [self.accession[row] for row in rows]
        remarks = [replace(each, rows=each.rows[rows]) for each in self.remarks]
        units = [replace(each, rows=each.rows[rows]) for each in self.units]
        table = self.table.iloc[rows].reset_index(drop=True)
        names = [self.names[row] for row in rows] if len(self.names) else []
        kept = replace(self, table=table, person=self.person[rows], accession=accession, names=names)
        return replace(kept, remarks=remarks, units=units)

    def part(self, mine: np.ndarray) -> Cohort:
        """The rows of known persons where `mine` is true, bool [n]."""
        return self.rows(np.flatnonzero(mine & (self.person >= 0)))

    def digest(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Sha256 of its table and persons, and of arrays that were read besides; uint8 [32]."""
        total = hashlib.sha256(self.table.assign(person=self.person).to_json(orient="split").encode())
        for array in arrays:
            total.update(np.ascontiguousarray(array))
        return np.frombuffer(total.digest(), np.uint8)

    @property
    def persons(self) -> int:
        """Number of distinct persons."""
        return len(np.unique(self.person[self.person >= 0]))


def read_cohort(
    root: Path,
    columns: Mapping[str, Any],
    sources: Mapping[str, Any],
    *,
    query: CohortQuery,
    opt_out: Collection[str] = (),
) -> Cohort:
    """Read and align a cohort, without the persons who opted out.

    Raises FileNotFoundError or ValueError, naming what is wrong and the remedy.
    """
    own, records = _own_table(root, sources, query.records, opt_out), query.records
    keyed = "table" in sources or _is_archive(root)
    person = PERSON if keyed else records.person
    accession = (ACCESSION if ACCESSION in own else None) if keyed else records.accession
    named = [name for name in (person, accession) if name]
    notes = sources.get("notes")
    from_table = [name for name in query.columns if not (notes is not None and name == query.text)]
    given = (records.person, records.accession) if keyed else ()
    mapped = {name: each for name, each in columns.items() if name not in given}
    own, kept, opted_out = without(own, person, mapped, opt_out=opt_out, missing=records.missing)
    table = aligned(own, [*from_table, *named], mapped, records.missing)
    names = [identifier(each) for each in table[person]] if person else []
    persons = pd.factorize(table[person].map(identifier))[0] if person else np.arange(len(table))
    accessions = [identifier(each) for each in table[accession]] if accession else None
    if accessions is None:
        accessions = _accessions(table, person, sources)
    if notes is not None and query.text:
        table[query.text] = _notes(_asked(notes, records, opt_out), table, person, accessions)
    remarks, units = (list(getattr(sources.get("table"), name, ())) for name in ("remarks", "units"))
    remarks = [replace(each, rows=each.rows[kept]) for each in remarks]
    declared = [replace(each, rows=each.rows[kept]) for each in _declared(units, mapped, query.columns)]
    persons, apart = persons.astype(np.int64), accession is not None
    return Cohort(table, persons, accessions, remarks, declared, told_apart=apart, names=names, opted_out=opted_out)


def _declared(units: Sequence[InUnit], columns: Mapping[str, Any], wanted: Sequence[str]) -> list[InUnit]:
    """Units of columns under their declared names; none of a column that the site converts to the study's unit."""
    rules = {name: columns.get(name, name) for name in dict.fromkeys(wanted)}
    own = {name: each.get("name", name) if isinstance(each, Mapping) else each for name, each in rules.items()}
    converted = {name for name, each in rules.items() if isinstance(each, Mapping) and {"factor", "offset"} & {*each}}
    return [
        replace(each, column=name)
        for name in own
        if name not in converted
        for each in units
        if each.column == own[name]
    ]


def left_out(cohort: Cohort, reasons: pd.Series) -> pd.Series:
    """The reason why each row is left out (None where it is not): those of the target, no person, and copies.

    Raises ValueError for an accession that has several rows which differ: nothing says which of them is right.
    """
    reasons = reasons.where(cohort.person >= 0, NO_PERSON)
    known = np.array([each is not None for each in cohort.accession], bool) & cohort.told_apart & reasons.isna()
    rows = cohort.table.assign(**{PERSON: cohort.person, ACCESSION: cohort.accession})[known]
    copies = rows.index[rows.astype(str).duplicated()]
    again = rows.drop(index=copies)[ACCESSION].duplicated()
    if again.any():
        raise ValueError(
            f"{counted(int(again.sum()), 'row')} with the accession of another row and other values: leave the "
            "wrong ones out, or name a column that tells them apart (dataset.records.accession, or accession of "
            "sources.table)"
        )
    return reasons.where(~reasons.index.isin(copies), COPY)


def image_opener(root: Path, sources: Mapping[str, Any], folder: str) -> Callable[[str], Any]:
    """What opens an image by accession: the site's source, its archive, or files below `folder` named after it."""
    source = sources.get("images") or (NPZ(str(root)) if _is_archive(root) else None)
    if source is not None:
        opened: Callable[[str], Any] = source.image if hasattr(source, "image") else source.open
        return opened
    files = files_below(below(root if root.is_dir() else root.parent, folder))

    def find(accession: str) -> Path:
        path = files.get(accession) or files.get(f"{accession}.0")  # see `identifier`
        if path is None:
            raise FileNotFoundError(f"no image below {folder} is named as the table says")
        return path

    return find


def _own_table(root: Path, sources: Mapping[str, Any], records: Records, opt_out: Collection[str]) -> pd.DataFrame:
    if "table" in sources:
        table = _asked(sources["table"], records, opt_out)
        if PERSON not in table:
            raise ValueError("the site's sources.table gives no column `person`; name it there")
        return table
    if not root.exists():
        raise FileNotFoundError(f"no cohort at {root}")
    if _is_archive(root):
        return NPZ(str(root)).read()
    if (files := records.files()) is not None:
        return pd.concat([read_csv(below(root, file)).assign(split=split) for split, file in files], ignore_index=True)
    return read_csv(root if root.is_file() else below(root, str(records.table)))


def _asked(source: Any, records: Records, opt_out: Collection[str]) -> pd.DataFrame:
    """What a source gives; it is told what its `read` takes of the study's query, and of who opted out."""
    taken = signature(source.read).parameters
    query = {**(records.query or {}), "opt_out": opt_out}
    table: pd.DataFrame = source.read(**{name: each for name, each in query.items() if name in taken})
    return table


def _accessions(table: pd.DataFrame, person: str | None, sources: Mapping[str, Any]) -> list[str | None]:
    """By person, the accession that the source of images has, where the table itself gives none.

    Raises ValueError for persons who have several: which one was made before the outcome only the table can say.
    """
    if person is None or not hasattr(sources.get("images"), "accessions"):
        return [None] * len(table)
    known = sources["images"].accessions()
    own = dict(zip(known[PERSON].map(identifier), known[ACCESSION].map(identifier), strict=True))
    persons = [identifier(each) for each in table[person]]
    if several := set(known[PERSON][known[PERSON].duplicated()].map(identifier)) & set(persons):
        raise ValueError(
            f"{counted(len(several), 'person')} with images of several accessions: name the column of "
            "the table that says which (dataset.records.accession, or accession of sources.table)"
        )
    return [own.get(each) for each in persons]


def _notes(
    notes: pd.DataFrame, table: pd.DataFrame, person: str | None, accessions: Sequence[str | None]
) -> list[str | None]:
    """The notes of each row, in their order, joined by a line: those of its accession, else of its person."""
    by_accession = ACCESSION in notes and any(accessions)
    if not by_accession and person is None:
        raise ValueError("notes cannot be told apart: declare dataset.records.person, or dataset.records.accession")
    joined = notes.dropna(subset=["text"]).groupby(ACCESSION if by_accession else PERSON, sort=False)["text"]
    found = {identifier(key): "\n".join(map(str, texts)) for key, texts in joined}
    keys = accessions if by_accession else [identifier(each) for each in table[person]]
    if found and found.keys().isdisjoint(keys):
        what = ACCESSION if by_accession else PERSON
        raise ValueError(
            f"none of the notes of {len(found)} is of a row of the table: `{what}` of the site's sources.notes is "
            "written otherwise than the table's own"
        )
    return [found.get(key) if key is not None else None for key in keys]


def _is_archive(root: Path) -> bool:
    return root.suffix == ".npz"
