"""A cohort from an OMOP database, CDM 5.3 or 5.4: a query says who and when, features say what is known by then.

database: an export (CSV, gzip, Parquet, zip) read with DuckDB, or PostgreSQL
cohort:   SELECT person_id, index_date, ... FROM ...     one row an example
features: {creatinine: {domain: measurement, concepts: [3016723], window: [-2, 0], aggregate: last}, ...}
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlglot import exp

from datamodules.remarks import IMPOSSIBLE_AGE, NO_DESCENDANTS, NO_EVENT, NO_TABLE, Remark
from datamodules.sources import cohort_sql, one_person
from datamodules.sources.connection import database
from datamodules.sources.database import Session, number, plain
from datamodules.sources.omop_features import Feature, combine, of_person, possible
from datamodules.sources.omop_queries import (
    ancestors_query,
    cohort_parameters,
    events_query,
    person_query,
    units_query,
)
from datamodules.sources.omop_remarks import in_units, on_values
from datamodules.units import InUnit


class OMOP:
    """A table source: one row an example of the cohort, with its declared features.

    Cohort and features are the study's (`read`), or a site's own for a study that only names columns (constructor).

    Args:
        connection: path of an export (a folder or zip), or a mapping with the arguments of `postgres.PostgreSQL`.
        cohort: a SELECT over OMOP's tables, in PostgreSQL's SQL whatever the database. It gives `person_id`,
            `index_date` (a date, or a timestamp where the hour matters), `accession` where a person may have several
            rows, and whatever else the study needs, such as the label.
        features: by name, the arguments of `omop_features.Feature`.
        root: folder that relative paths are below.
        seconds: how long one query may take.
        rows: how many rows the cohort may have.
    """

    def __init__(
        self,
        connection: str | Mapping[str, Any],
        *,
        cohort: str | None = None,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        root: str = ".",
        seconds: float = 300,
        rows: int = 1_000_000,
    ) -> None:
        self.cohorts = Cohorts(connection, cohort, root, seconds=seconds, rows=rows)
        self.features = _features(features)
        self.remarks: list[Remark] = []
        self.units: list[InUnit] = []

    def read(
        self,
        *,
        cohort: str | None = None,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        opt_out: Collection[str] = (),
    ) -> pd.DataFrame:
        """`person` (text), `accession` (text) if the query gives it, its other columns, then the features.

        Of the persons of `opt_out` no row is asked for, and so none counted.

        A feature whose table the database lacks is missing in all rows; `remarks` then says so, as it does of values
        in a unit that is not declared; `units` says which rows are in which where none is declared. Raises
        FileNotFoundError, ConnectionError, TimeoutError and ValueError, each with what is wrong: also for a feature
        with the concepts below its own, without the table that names them.
        """
        if features and self.features:
            raise ValueError("the study declares features, so the site's `sources` may not: leave them out there")
        wanted = _features(features) if features else self.features
        self.remarks, self.units = [], []
        with self.cohorts.open(cohort, {each.table for each in wanted.values()} | {"concept_ancestor"}) as opened:
            table = opened.examples(opt_out)
            if clash := sorted(set(table.columns) & set(wanted)):
                raise ValueError(f"feature {clash[0]}: the cohort query has a column of that name")
            return table.assign(**{name: self._feature(opened, name, each, table) for name, each in wanted.items()})

    def _feature(self, opened: "Opened", name: str, feature: Feature, table: pd.DataFrame) -> list[Any]:
        if feature.table not in opened.columns:
            words = f"feature {name} is missing in all rows: the database has no table {feature.table}"
            self.remarks.append(Remark(NO_TABLE, words, np.ones(len(table), bool)))
            return [None] * len(table)
        if feature.domain == "person":
            return self._of_persons(opened, name, feature, table)
        self._descendants(opened, name, feature, len(table))
        parameters = cohort_parameters(feature, table)
        rows = opened.rows(events_query(feature, opened.columns), **parameters)
        found = rows
        if query := units_query(feature, opened.columns):
            found = opened.rows(query, **parameters)
            self.units += [] if feature.units else in_units(name, found, len(table))
            self.remarks += on_values(name, feature, found, len(table))
        if not found:
            words = f"feature {name}: no event of it is in the database, in the window of anybody"
            self.remarks.append(Remark(NO_EVENT, words, np.ones(len(table), bool)))
        return combine(feature, rows, len(table))

    def _of_persons(self, opened: "Opened", name: str, feature: Feature, table: pd.DataFrame) -> list[Any]:
        """A feature of the persons themselves; an age that nobody can have is missing, and remarked."""
        persons = [int(each) for each in table["person"]]
        born = {row[0]: row[1:] for row in opened.rows(person_query(opened.columns["person"]), person=persons)}
        pairs = zip(persons, table["index_date"], strict=True)
        found = [of_person(feature, born.get(person), at) for person, at in pairs]
        wrong = np.array([not possible(each) for each in found], bool)
        if wrong.any():
            self.remarks.append(Remark(IMPOSSIBLE_AGE, f"feature {name} ({IMPOSSIBLE_AGE})", wrong))
        return [None if bad else each for each, bad in zip(found, wrong, strict=True)]

    def _descendants(self, opened: "Opened", name: str, feature: Feature, examples: int) -> None:
        """Whether the database knows the concepts below the feature's own. Raises ValueError where it knows none."""
        if not (feature.concepts and feature.descendants):
            return
        known = opened.ancestors(feature.concepts) if "concept_ancestor" in opened.columns else set()
        if not known:
            found = "has none of them in its" if "concept_ancestor" in opened.columns else "has no"
            raise ValueError(
                f"feature {name} counts its concepts with those below them, and the database {found} table "
                "concept_ancestor: add what is missing to it, or declare `descendants: false` for the concepts alone"
            )
        if unknown := sorted({*feature.concepts} - known):
            words = f"feature {name} uses {unknown} alone: concept_ancestor knows nothing below it"
            self.remarks.append(Remark(NO_DESCENDANTS, words, np.ones(examples, bool)))


def _features(declared: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Feature]:
    return {name: Feature.declared(name, **each) for name, each in (declared or {}).items()}


class Cohorts:
    """Cohort queries on a site's database, checked before anything is opened."""

    def __init__(
        self, connection: str | Mapping[str, Any], query: str | None, root: str, *, seconds: float, rows: int
    ) -> None:
        self.query = cohort_sql.parse(query) if query else None
        self.database = database(connection, Path(root))
        self.seconds, self.limit = number("seconds", seconds, 0.001), int(number("rows", rows, 1))

    def open(self, query: str | None, tables: set[str]) -> "Opened":
        """Connect, for the study's query or else the site's own, and for further tables. Raises ValueError for both."""
        if query and self.query:
            raise ValueError("the study gives the cohort query, so the site's `sources` may not: leave it out there")
        parsed = cohort_sql.parse(query) if query else self.query
        if parsed is None:
            raise ValueError("there is no cohort query: give `cohort` in the site's `sources`, or dataset.omop.cohort")
        return Opened(self, parsed, tables)


class Opened:
    """A connection to a cohort's database, as a context. `columns`: by table, both in lower case."""

    def __init__(self, cohorts: Cohorts, query: exp.Query, tables: set[str]) -> None:
        self.cohorts, self.query, self._tables = cohorts, query, tables
        self._stack = ExitStack()

    def __enter__(self) -> "Opened":
        reads = one_person.reads(cohort_sql.tables_of(self.query))
        self._session: Session = self._stack.enter_context(self.cohorts.database.open(reads | self._tables))
        self._names = cohort_sql.spelling(self._session.columns)
        self.columns = {
            table.lower(): {name.lower() for name in columns} for table, columns in self._session.columns.items()
        }
        if absent := sorted(reads - self.columns.keys()):
            self._stack.close()
            raise FileNotFoundError(f"the cohort query reads {', '.join(absent)}, which this database does not have")
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def ancestors(self, concepts: Sequence[int]) -> set[int]:
        """Which of these concepts `concept_ancestor` knows what is below of."""
        return {row[0] for row in self.rows(ancestors_query(), concepts=list(concepts))}

    def rows(self, query: exp.Expr, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query written with the common data model's names."""
        return self._session.rows(cohort_sql.spell(query, self._names), parameters, self.cohorts.seconds)[1]

    def examples(self, opt_out: Collection[str] = ()) -> pd.DataFrame:
        """The cohort's rows, in the order of person, index and accession, with `person` for `person_id`.

        Those of persons of `opt_out` are not asked for.

        The only place where a study's query is run: for each person alone (`one_person`).
        """
        limit = self.cohorts.limit
        query = one_person.alone(self.query, self.columns, leaves_out=bool(opt_out)).limit(limit + 1)
        asked, gone = cohort_sql.spell(query, self._names), one_person.gone(opt_out)
        names, rows = self._session.rows(asked, gone, self.cohorts.seconds)
        if len(rows) > limit:
            raise ValueError(
                f"the cohort has more than {limit} rows: narrow the query, or raise `rows` in the site's `sources`"
            )
        return _examples([name.lower() for name in names[1:]], rows)


def _examples(names: list[str], rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """A table of rows that begin with whose they are; `names` are those of the query's own columns after it."""
    for name in ("person_id", "index_date"):
        if names.count(name) != 1:
            raise ValueError(f"the cohort query must give one column {name} (it gives: {', '.join(names)})")
    if not rows:
        raise ValueError("the cohort query finds nobody")
    columns = {name: [plain(row[at]) for row in rows] for at, name in enumerate(names, start=1)}
    columns.pop("person_id")  # what the query says; the site's own is the first of each row
    persons, index = [row[0] for row in rows], columns.pop("index_date")
    if not all(isinstance(each, int) for each in persons):
        raise ValueError("the table person has a person_id that is no whole number")
    if not all(isinstance(each, date) for each in index):
        raise ValueError("the cohort query gives a row without a date in index_date")
    accession = [None if each is None else str(each) for each in columns.pop("accession", [])]
    told_apart = set(zip(persons, accession, strict=True)) if accession else set(persons)
    if len(told_apart) < len(rows) or None in accession:
        raise ValueError(
            "the cohort query gives a person several rows that nothing tells apart: give one row a person, or a column "
            "`accession` (such as visit_occurrence_id) that differs"
        )
    order = sorted(range(len(rows)), key=lambda at: (persons[at], _moment(index[at]), accession[at : at + 1]))
    table: dict[str, list[Any]] = {
        "person": [str(each) for each in persons],
        **({"accession": accession} if accession else {}),
    }
    table |= {"index_date": index, **columns}
    return pd.DataFrame(
        {name: pd.Series([values[at] for at in order], dtype=_dtype(values)) for name, values in table.items()}
    )


def _moment(index: date | datetime) -> datetime:
    return index if isinstance(index, datetime) else datetime(index.year, index.month, index.day)


def _dtype(values: list[Any]) -> type | None:
    """Text and dates stay Python's objects: pandas' own dates end in the year 2262, and shifted ones do not."""
    return None if all(isinstance(each, int | float | None) for each in values) else object
