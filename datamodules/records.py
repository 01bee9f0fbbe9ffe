"""Which rows a study reads of a site: its table, who and what a row is about, and what a database is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Records:
    """The rows of a cohort.

    Attributes:
        table: file of the table below a root that is a folder; or by split its file or files, then the column `split`.
        person: column that identifies a person; None where each row is one.
        accession: column that identifies an example, and names its image and its note; None for none.
        missing: texts that mean a missing value, besides an empty cell.
        query: what the study asks of a site's database (datamodules.sources.omop): `cohort` and `features`, which are
            then columns; a site whose source is a table gives them by itself. None asks nothing.
    """

    table: str | Mapping[str, str | Sequence[str]] = "cohort.csv"
    person: str | None = None
    accession: str | None = None
    missing: Collection[str] = ()
    query: Mapping[str, Any] | None = None

    def files(self) -> list[tuple[str, str]] | None:
        """Split and file of a table that lies in a file or files a split; None where it is one file."""
        if isinstance(self.table, str):
            return None
        named = {split: [each] if isinstance(each, str) else each for split, each in self.table.items()}
        return [(split, file) for split, files in named.items() for file in files]


def owned(records: Records, person: str | None) -> Records:
    """The same rows by the site's own column of persons; None where each row is one, "" as they are."""
    return records if person == "" else replace(records, person=person)
