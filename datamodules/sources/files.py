"""Files of tables: CSV, gzipped CSV, Parquet, alone or within a zip, copied into DuckDB."""

import gzip
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

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

    An empty field and those of `missing` become NULL. Without a delimiter, the header tells it. Raises duckdb.Error.
    """
    if ending(file.name) == ".parquet":
        relation = connection.read_parquet(str(file))
    else:
        relation = connection.read_csv(
            str(file), header=True, all_varchar=True, delimiter=delimiter or _delimiter(file), quotechar='"',
            escapechar='"', na_values=["", *missing], strict_mode=False,
        )  # fmt: skip
    relation.create(name)


def _delimiter(file: Path) -> str:
    """The character that separates the columns, from the header: names of columns hold none of them."""
    with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as opened:
        header = opened.readline(MAX_HEADER).decode("utf-8", "replace")
    return max(DELIMITERS, key=header.count)
