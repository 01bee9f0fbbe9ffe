"""A CSV table as a site has it on its disk: every cell as its text."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datamodules.column_names import column_names


def read_csv(path: Path, header: Sequence[str] | None = None) -> pd.DataFrame:
    """The table, every cell as text without spaces around it; `header` names the columns where no first line does.

    Raises FileNotFoundError where there is no such file, ValueError for one that is no table in UTF-8, for one that is
    not separated by commas or has two columns of one name, and for a row that has another number of cells than the
    header, since its cells would stand in the wrong columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table in UTF-8: {error}") from error
    if header is None and not lines:
        raise ValueError(f"{path} is not a CSV table in UTF-8: it is empty")
    first = lines[0][1] if lines else []
    if (header is None or len(first) != len(header)) and (other := _separator(first)):
        raise ValueError(
            f"{path} is separated by {other!r} and not by commas: save it with commas, or read it by the site's "
            "`sources`, as in `table: {_target_: datamodules.sources.table.Table, path: ..., person: ...}`"
        )
    names = column_names(path, list(header) if header is not None else lines.pop(0)[1])
    for number, line in lines:
        if len(line) != len(names):
            raise ValueError(f"{path}, line {number}: {len(line)} cells, where the header has {len(names)}")
    return pd.DataFrame([line for _, line in lines], columns=names, dtype=object)


def _separator(cells: Sequence[str]) -> str:
    """What separates the columns of a line instead of its commas; empty where they do."""
    line = ",".join(cells)
    other = max(";\t|", key=line.count)
    return other if line.count(other) > line.count(",") else ""
