"""A table that an installed package ships, as lifelines and scikit-learn do: published cohorts without a download."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import pandas as pd

from datamodules.alignment import levels


class InstalledTable:
    """A CSV file within an installed package; each row is a person.

    Args:
        package: the package, such as lifelines; it is found, not imported.
        file: the file below the package's folder.
        where: rows to keep, by column its value: one institution of a shared table.
    """

    def __init__(self, package: str, file: str, where: Mapping[str, str | float] | None = None) -> None:
        self.package, self.file, self.where = package, file, dict(where or {})

    def read(self) -> pd.DataFrame:
        """`person` and the file's own columns. Raises FileNotFoundError; ValueError for a column that is not there."""
        spec = PathFinder.find_spec(self.package)
        path = Path((spec.submodule_search_locations or [""])[0]) / self.file if spec else None
        if path is None or not path.is_file():
            raise FileNotFoundError(f"no file {self.file} in an installed package {self.package}")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.insert(0, "person", [f"{row}" for row in range(len(table))])
        if absent := sorted(set(self.where) - set(table)):
            raise ValueError(f"{self.file} has no column {absent[0]} (its columns: {', '.join(table)})")
        for column, value in self.where.items():
            wanted = levels(pd.Series([value], dtype=object))[0]
            table = table[levels(table[column]) == wanted]
        if not len(table):
            raise ValueError(f"{self.file} has no row with {self.where} (`where`)")
        return table.reset_index(drop=True)
