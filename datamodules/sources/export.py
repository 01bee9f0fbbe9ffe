"""An OMOP export as files: CSV, gzipped CSV or Parquet, one file a table, in a folder or a zip; queried with DuckDB.

The files that a query needs are copied into a database in a private temporary folder, which is then opened read-only
and with no access to files, network or settings. Columns get the types of the common data model when they are read.
"""

import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
from sqlglot import exp

from datamodules.sources.cohort_sql import CDM_TABLES
from datamodules.sources.database import Records, late, one_line
from datamodules.sources.files import create_table, ending, unpack

MEMORY = "2GB"  # of a query; beyond it DuckDB refuses, and the site's other processes go on
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": MEMORY,
    "threads": "1",
    "lock_configuration": "true",
}
_NAMES = """
  domain_id vocabulary_id concept_class_id relationship_id reverse_relationship_id unique_device_id production_id
  specimen_source_id
"""
_TEXT_IDS = frozenset(_NAMES.split())
_NUMBERS = frozenset({"value_as_number", "quantity", "range_low", "range_high"})


@dataclass(frozen=True)
class Export:
    """A folder or a zip of an OMOP database's tables, in upper or lower case."""

    path: Path

    @contextmanager
    def open(self, tables: Set[str]) -> Iterator["ExportSession"]:
        """Copy these tables (lower case) and connect to the copy.

        Raises FileNotFoundError for a missing export, ValueError for files that are no tables.
        """
        with tempfile.TemporaryDirectory(prefix="omop-") as temporary:
            copy = Path(temporary) / "omop.duckdb"
            with duckdb.connect(str(copy)) as loading:
                for table, file in self._files(tables, Path(temporary)).items():
                    _load(loading, table, file)
            with duckdb.connect(str(copy), read_only=True, config=LOCKED) as connection:
                yield ExportSession(connection)

    def _files(self, tables: Set[str], temporary: Path) -> dict[str, Path]:
        """The file of each wanted table that the export has; those of a zip are unpacked into a temporary folder."""
        members = self._members(tables)
        if self.path.is_dir():
            return {name: self.path / member for name, member in members.items()}
        return unpack(self.path, members, temporary)

    def _members(self, tables: Set[str]) -> dict[str, str]:
        """By table in lower case, the path of its file within the export."""
        if self.path.is_dir():
            listed = [path.name for path in sorted(self.path.iterdir()) if path.is_file()]
        elif not self.path.is_file():
            raise FileNotFoundError(f"no OMOP export at {self.path}: name its folder or zip in the site's `sources`")
        elif zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                listed = archive.namelist()
        else:
            raise ValueError(f"{self.path} is neither a folder nor a zip")
        found: dict[str, str] = {}
        for member in listed:
            parts = PurePosixPath(member).parts
            if "__MACOSX" in parts or not parts or parts[-1].startswith(".") or not ending(member):
                continue  # what a Mac adds when it zips looks like tables and is none
            name = parts[-1][: -len(ending(member))].lower()
            if name in found:
                raise ValueError(f"{self.path} has two files of the table {name}: {found[name]} and {member}")
            found[name] = member
        if not found.keys() & CDM_TABLES:
            raise ValueError(f"{self.path} has no table of OMOP's common data model (person.csv, PERSON.csv.gz, ...)")
        return {name: member for name, member in found.items() if name in tables}


def _load(connection: duckdb.DuckDBPyConnection, table: str, file: Path) -> None:
    """Copy one file as it is into `<table>_file`, and make the view `<table>` that gives its columns their types."""
    try:
        create_table(connection, f"{table}_file", file, missing=("NULL", "\\N"))
    except (duckdb.Error, OSError) as error:
        raise ValueError(f"{file.name} is not a table that can be read: {one_line(error)}") from error
    columns = [name for name, *_ in connection.execute(f'DESCRIBE "{table}_file"').fetchall()]
    typed = [exp.cast(exp.column(name, quoted=True), _type(name.strip().lower())).as_(name.strip().lower(), quoted=True)
             for name in columns]  # fmt: skip
    select = exp.select(*typed).from_(exp.to_table(f"{table}_file"))
    connection.execute(f'CREATE VIEW "{table}" AS {select.sql(dialect="duckdb")}')


def _type(column: str) -> str:
    """The type that the common data model gives a column, from its name."""
    if column in _NUMBERS:
        return "DOUBLE"
    if column.endswith("_datetime"):
        return "TIMESTAMP"
    if column.endswith("_date"):
        return "DATE"
    if column in ("year_of_birth", "month_of_birth", "day_of_birth"):
        return "INT"
    if (column.endswith("_id") and column not in _TEXT_IDS) or column.startswith("concept_id_"):
        return "BIGINT"
    return "VARCHAR"


class ExportSession:
    """A read-only connection to the copy of an export."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        listed = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
        self.columns: dict[str, set[str]] = {}
        for table, column in listed:
            if table in CDM_TABLES:
                self.columns.setdefault(table, set()).add(column)

    def rows(self, query: exp.Expr, parameters: Mapping[str, Any], seconds: float) -> tuple[list[str], Records]:
        """Names and rows of a query; see `database.Session`."""
        timer = threading.Timer(seconds, self._connection.interrupt)
        timer.start()
        try:
            result = self._connection.execute(query.sql(dialect="duckdb"), dict(parameters))
            return [name for name, *_ in result.description], result.fetchall()
        except duckdb.InterruptException as error:
            raise late(seconds) from error
        except duckdb.Error as error:
            raise ValueError(f"the export cannot answer: {one_line(error)}") from error
        finally:
            timer.cancel()
