"""Files of tables: CSV, gzipped CSV, Parquet, alone or within a zip, copied into DuckDB."""

import codecs
import csv
import gzip
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from datamodules.column_names import column_names

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".data", ".parquet")
DELIMITERS = ",\t;|"
MAX_HEADER = 65_536  # bytes of the first line


def ending(name: str) -> str:
    """The ending of a table's file, in lower case; empty for other files."""
    return max((each for each in ENDINGS if name.lower().endswith(each)), key=len, default="")


def unpack(archive: Path, members: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Unpack members of a zip into a folder, each under the name that it is given, whatever path it has within.

    Raises FileNotFoundError for an absent member, ValueError for a zip that is damaged or needs a password.
    """
    files = {name: folder / f"{name}{ending(member)}" for name, member in members.items()}
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, file in files.items():
                with opened.open(members[name]) as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target)
    except KeyError as error:
        raise FileNotFoundError(f"{archive}: {error.args[0]}") from error
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
    return files


def create_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    file: Path,
    *,
    delimiter: str | None = None,
    missing: Sequence[str] = (),
) -> None:
    """Copy a file into a table: Parquet with its types, a CSV as text.

    An empty field and those of `missing` become NULL. Without a delimiter, the header tells it. Raises duckdb.Error,
    also for a row of more or fewer cells than the header: its cells would stand in the wrong columns; and ValueError
    as `column_names`.
    """
    if ending(file.name) == ".parquet":
        relation = connection.read_parquet(str(file))
    else:
        header = _header(file)
        delimiter = delimiter or max(DELIMITERS, key=header.count)
        columns = dict.fromkeys(column_names(file, next(csv.reader([header], delimiter=delimiter), [])), "VARCHAR")
        # What DuckDB is not told it guesses from the first rows: of few ones it may take the first for a header.
        relation = connection.read_csv(
            str(file), header=True, auto_detect=False, columns=columns, delimiter=delimiter,
            quotechar='"', escapechar='"', na_values=["", *missing], strict_mode=True,
        )  # fmt: skip
    try:
        relation.create(name)
    except duckdb.InvalidInputException as error:
        raise duckdb.InvalidInputException(_without_row(str(error))) from None


def _without_row(error: str) -> str:
    """What is wrong with which line, by DuckDB's message, which quotes the line itself: a patient's row."""
    line, wrong = (
        re.search(r"Line: (\d+)", error),
        re.search(r"Expected Number.*|Value with.*|Invalid unicode.*", error),
    )
    return f"line {line[1]}: {wrong[0] if wrong else 'it is damaged'}" if line else error


def _header(file: Path) -> str:
    """The first line, by which names of columns and what separates them are known."""
    with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as opened:
        line = opened.readline(MAX_HEADER).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    return line.splitlines()[0] if line.splitlines() else ""
