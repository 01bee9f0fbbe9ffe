"""A table of a site: CSV, gzipped CSV or Parquet, or one such file within a zip; read with DuckDB."""

import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from datamodules.alignment import identifier
from datamodules.column_names import column_names
from datamodules.sources.database import one_line, plain
from datamodules.sources.files import create_table, unpack

# What a number says and its text does not say otherwise: 010 and 1E5 may be codes, and a float holds 15 digits alone.
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?")


class Table:
    """A table source.

    Args:
        path: the file; within a zip `folder.zip/member.csv`.
        person: the column that says who a row is about.
        accession: the column that tells a person's several rows apart and links to images and notes.
        where: rows to keep, by column its value: one institution of a shared table.
        delimiter: what separates the columns of a CSV; None finds it in the header.
        missing: how the file writes a missing value, besides nothing at all.
        root: folder that a relative path is below.
    """

    def __init__(
        self,
        path: str,
        *,
        person: str,
        accession: str | None = None,
        where: Mapping[str, str | int | float] | None = None,
        delimiter: str | None = None,
        missing: Sequence[str] = (),
        root: str = ".",
    ) -> None:
        self.path, self.person, self.accession = Path(root) / path, person, accession
        self.where, self.delimiter, self.missing = dict(where or {}), delimiter, [str(each) for each in missing]

    def read(self) -> pd.DataFrame:
        """`person` and `accession` (text), then the file's own columns; numbers of a CSV are numbers
        where all are, but for codes such as 010.

        Raises FileNotFoundError for a missing file, ValueError for one that is no table or lacks a column.
        """
        with tempfile.TemporaryDirectory(prefix="table-") as temporary:
            file = self._file(Path(temporary))
            try:
                with duckdb.connect(config={"threads": "1"}) as connection:
                    create_table(connection, "rows", file, delimiter=self.delimiter, missing=self.missing)
                    result = connection.execute('SELECT * FROM "rows"')
                    names, rows = [name for name, *_ in result.description], result.fetchall()
            except (duckdb.Error, OSError) as error:
                raise ValueError(f"{self.path} is not a table that can be read: {one_line(error)}") from error
        return self._frame(column_names(self.path, names), rows, text=file.suffix.lower() != ".parquet")

    def _file(self, temporary: Path) -> Path:
        if self.path.is_file():
            return self.path
        archive = next((parent for parent in self.path.parents if parent.is_file()), None)
        if archive is None or not zipfile.is_zipfile(archive):
            raise FileNotFoundError(f"no table at {self.path}: set `path` in the site's `sources`")
        return unpack(archive, {"rows": self.path.relative_to(archive).as_posix()}, temporary)["rows"]

    def _frame(self, names: list[str], rows: list[tuple[Any, ...]], *, text: bool) -> pd.DataFrame:
        wanted = [self.person, *([self.accession] if self.accession else []), *self.where]
        if absent := [name for name in wanted if name not in names]:
            raise ValueError(f"{self.path} has no column {', '.join(absent)} (its columns: {', '.join(names)})")
        columns = {name: [plain(row[at]) for row in rows] for at, name in enumerate(names)}
        keep = [all(_equal(columns[name][at], value) for name, value in self.where.items()) for at in range(len(rows))]
        kept = {
            name: [value for value, keeps in zip(values, keep, strict=True) if keeps]
            for name, values in columns.items()
        }
        if not any(keep):
            raise ValueError(f"{self.path} has no row" + (f" with {self.where} (`where`)" if self.where else ""))
        links = {"person": self.person} | ({"accession": self.accession} if self.accession else {})
        linked = {
            name: [identifier(each) for each in (kept.pop(own) if own == name else kept[own])]
            for name, own in links.items()
        }
        if clash := sorted(set(linked) & set(kept)):
            raise ValueError(f"{self.path} has a column {clash[0]} which is not its `{clash[0]}`: rename it")
        return pd.DataFrame({**linked, **{name: _column(values, text) for name, values in kept.items()}})


def _equal(value: Any, wanted: str | int | float) -> bool:
    """Whether a cell holds a wanted value; a number also where it is written otherwise (3, 3.0)."""
    if isinstance(wanted, str) or value is None:
        return value is not None and str(value).strip() == wanted
    try:
        return float(value) == wanted
    except ValueError:
        return False


def _column(values: Sequence[Any], text: bool) -> pd.Series:
    """A column of a CSV as numbers where all of its values are `NUMBER`; else, and from Parquet, as it is."""
    series = pd.Series(values, dtype=object)
    if text:
        return pd.to_numeric(series) if all(each is None or NUMBER.fullmatch(each) for each in values) else series
    return series.infer_objects()
