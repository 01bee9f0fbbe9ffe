"""Notes of a site: text columns of a table, or OMOP's table `note`, no later than the index date."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import sqlglot

from datamodules.sources.omop import Cohorts
from datamodules.sources.omop_features import Feature
from datamodules.sources.omop_queries import cohort_parameters, events_of
from datamodules.sources.table import Table

APART = "\n\n"  # between the texts of one example


class TableNotes:
    """A note source: text columns of a table, joined in the order in which they are declared.

    Args:
        path, person, accession, where, delimiter, missing, root: as those of `table.Table`.
        text: the columns that hold text.
    """

    def __init__(
        self,
        path: str,
        *,
        person: str,
        text: Sequence[str],
        accession: str | None = None,
        where: Mapping[str, str | int | float] | None = None,
        delimiter: str | None = None,
        missing: Sequence[str] = (),
        root: str = ".",
    ) -> None:
        self.table = Table(
            path, person=person, accession=accession, where=where, delimiter=delimiter, missing=missing, root=root
        )
        self.text = list(text)

    def read(self) -> pd.DataFrame:
        """`person`, `accession` if there is one, and `text`; a row without any text is left out. Raises as Table."""
        table = self.table.read()
        if absent := [name for name in self.text if name not in table]:
            raise ValueError(f"{self.table.path} has no column {', '.join(absent)} (`text` in the site's `sources`)")
        texts = [
            [str(each).strip() for each in row if isinstance(each, str)]
            for row in zip(*(table[name] for name in self.text), strict=True)
        ]
        table = table[[name for name in ("person", "accession") if name in table]].copy()
        return _joined(table.assign(text=[APART.join(filter(None, each)) for each in texts]))


class OMOPNotes:
    """A note source: what OMOP's table `note` holds of each example of a cohort.

    A note counts if it was written within the window, as an event does (see `omop_features`): a discharge summary that
    was written after the index date says how the stay ended. The cohort is the study's (`read`), or the site's own.

    Args:
        connection, cohort, root, seconds, rows: as those of `omop.OMOP`.
        classes: concepts of `note_class_concept_id` to keep; empty for all.
        window: first and last day relative to the index, the last at most 0; a first one of None has no bound.
    """

    def __init__(
        self,
        connection: str | Mapping[str, Any],
        *,
        cohort: str | None = None,
        classes: Sequence[int] = (),
        window: Sequence[float | None] = (None, 0),
        root: str = ".",
        seconds: float = 300,
        rows: int = 1_000_000,
    ) -> None:
        self.cohorts = Cohorts(connection, cohort, root, seconds=seconds, rows=rows)
        self.notes = Feature.declared(
            "notes", domain="note", aggregate="any", concepts=classes, window=window, descendants=False
        )

    def read(self, *, cohort: str | None = None, opt_out: Collection[str] = ()) -> pd.DataFrame:
        """`person`, `accession` if the cohort has it, and `text`: an example's notes, oldest first.

        Of the persons of `opt_out` no row is asked for. An example without notes has no row.

        Raises as `OMOP.read`, and FileNotFoundError without a table `note`.
        """
        with self.cohorts.open(cohort, {"note"}) as opened:
            table = opened.examples(opt_out)
            if "note" not in opened.columns:
                raise FileNotFoundError("the database has no table note: take the notes from elsewhere, or none")
            events = events_of(self.notes, opened.columns, text="note_text")
            query = sqlglot.parse_one(
                f"SELECT place, text FROM {events} ORDER BY place, moment, event", dialect="postgres"
            )
            rows = opened.rows(query, **cohort_parameters(self.notes, table))
        keys = [name for name in ("person", "accession") if name in table]
        found = table[keys].iloc[[place for place, _ in rows]]
        return _joined(found.assign(text=[(text or "").strip() for _, text in rows]))


def _joined(notes: pd.DataFrame) -> pd.DataFrame:
    """One row for each person and accession, with all of its texts, each once; without those that have none."""
    notes = notes[notes["text"] != ""].drop_duplicates()
    keys = [name for name in notes if name != "text"]
    return notes.groupby(keys, sort=False, dropna=False)["text"].agg(APART.join).reset_index()
