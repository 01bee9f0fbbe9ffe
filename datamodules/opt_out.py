"""Persons who opted out or withdrew: every reader takes their rows out here, before anything is counted or computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

from datamodules.alignment import aligned, identifier

Row = TypeVar("Row")
Gone = tuple[int, int]  # rows that were taken out, and of how many distinct persons of the list
NO_COLUMN = (
    "opt_out: the site has a list of persons who opted out, and no column of this cohort says whose a row is; name it "
    "by `person` in the site's file"
)


def stays(names: Sequence[str | None], opt_out: Collection[str]) -> list[bool]:
    """Whether each row stays, by whose it is: of somebody who is not on the list, and known. Without a list all do."""
    return [not opt_out or (bool(name) and name not in opt_out) for name in names]


def gone(names: Sequence[str | None], opt_out: Collection[str]) -> Gone:
    """How many rows do not stay, and of how many persons of the list."""
    return stays(names, opt_out).count(False), len({name for name in names if name and name in opt_out})


def without(
    table: pd.DataFrame, person: str | None, columns: Mapping[str, Any], *, opt_out: Collection[str], missing: Any = ()
) -> tuple[pd.DataFrame, list[bool], Gone]:
    """A site's table without these persons, as if they had never been in it; which rows stay, and who is gone.

    `person` is the declared name of the column that says whose a row is, `columns` and `missing` as of `aligned`.
    Raises ValueError where there is none, and somebody is on the list.
    """
    if not opt_out:
        return table, [True] * len(table), (0, 0)
    if person is None:
        raise ValueError(NO_COLUMN)
    own = aligned(table, [person], {name: each for name, each in columns.items() if name == person}, missing)
    names = [identifier(each) for each in own[person]]
    kept = stays(names, opt_out)
    return table[kept].reset_index(drop=True), kept, gone(names, opt_out)
