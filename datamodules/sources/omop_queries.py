"""What is asked of OMOP's tables for a feature: SQL of the events in each example's window, and of persons."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import sqlglot
from sqlglot import exp

from datamodules.sources.omop_features import DOMAINS, Domain, Feature, bounds
from datamodules.units import NO_UNIT

NUMBERLESS, BOUND = -1, -2  # no concepts
EQUAL = (0, 4172703)  # operators of a value that is what was measured: none, and =; of others, as <, it is a bound

# In PostgreSQL's SQL; `{...}` are names and expressions of this file, never of a study, whose values are parameters.
_COHORT = """(SELECT unnest(CAST(:place AS BIGINT[])) AS place, unnest(CAST(:person AS BIGINT[])) AS person_id,
  unnest(CAST(:low AS TIMESTAMP[])) AS low, unnest(CAST(:high AS TIMESTAMP[])) AS high) AS cohort"""

_AT = """CASE WHEN {datetime} IS NULL OR {datetime} = CAST(CAST({datetime} AS DATE) AS TIMESTAMP)
    OR CAST({datetime} AS DATE) < {date}
  THEN CAST(GREATEST({date}, CAST({datetime} AS DATE)) AS TIMESTAMP) + INTERVAL '1 day' - INTERVAL '1 microsecond'
  ELSE {datetime} END"""

_DECLARED = "SELECT unnest(CAST(:concepts AS BIGINT[]))"
_BELOW = (
    f"{_DECLARED} UNION SELECT descendant_concept_id FROM concept_ancestor WHERE ancestor_concept_id IN ({_DECLARED})"
)

_EVENTS = """(SELECT person_id, {key} AS event, {value} AS value, {text} AS text, {at} AS moment
  FROM {table} {where}) AS events
  ON events.person_id = cohort.person_id AND events.moment >= cohort.low AND events.moment <= cohort.high"""

_UNIT = f"COALESCE(unit_concept_id, {NO_UNIT})"

_RESULTS = {
    "count": "SELECT place, CAST(COUNT(*) AS DOUBLE PRECISION) FROM {joined} GROUP BY place",
    "any": "SELECT DISTINCT place, CAST(1 AS DOUBLE PRECISION) FROM {joined}",
    "min": "SELECT place, MIN(value) FROM {joined} WHERE value IS NOT NULL GROUP BY place",
    "max": "SELECT place, MAX(value) FROM {joined} WHERE value IS NOT NULL GROUP BY place",
    "mean": "SELECT place, value FROM {joined} WHERE value IS NOT NULL",
    "last": "SELECT place, value FROM (SELECT place, value, ROW_NUMBER() OVER (PARTITION BY place "
    "ORDER BY moment DESC, event DESC) AS nth FROM {joined} WHERE value IS NOT NULL) AS numbered WHERE nth = 1",
}


def moment(domain: Domain, columns: set[str]) -> str:
    """SQL for when an event took place, for a table with these columns (lower case)."""
    exact = f"CAST({domain.datetime} AS TIMESTAMP)" if domain.datetime in columns else "CAST(NULL AS TIMESTAMP)"
    return _AT.format(datetime=exact, date=f"CAST({domain.date} AS DATE)")


def events_of(feature: Feature, columns: Mapping[str, set[str]], *, text: str = "NULL", value: str = "") -> str:
    """SQL of the events in each example's window, with place, event, moment, value and text; see `events_query`."""
    domain = DOMAINS[feature.domain]
    concepts = _BELOW if feature.descendants else _DECLARED
    events = _EVENTS.format(
        key=domain.key,
        value=value or (_value(feature, columns[domain.table]) if domain.has_value else "NULL"),
        text=text,
        at=moment(domain, columns[domain.table]),
        table=domain.table,
        where=f"WHERE {domain.concept} IN ({concepts})" if feature.concepts else "",
    )
    return f"{_COHORT} JOIN {events}"


def events_query(feature: Feature, columns: Mapping[str, set[str]]) -> exp.Expr:
    """Rows of (place, value) for a feature of events; `columns` by table, all in lower case."""
    joined = events_of(feature, columns)
    return sqlglot.parse_one(_RESULTS[feature.aggregate].format(joined=joined), dialect="postgres")


def units_query(feature: Feature, columns: Mapping[str, set[str]]) -> exp.Expr | None:
    """Rows of (place, concept of the unit, number of values) for a feature of values; None where nothing has a unit.

    A value without a unit has the unit 0, which is OMOP's "no matching concept", and so have all of a table without
    units. An event without a number has the unit `NUMBERLESS`, one whose number is a bound the unit `BOUND`.
    """
    if feature.aggregate in ("any", "count"):
        return None
    there = columns[DOMAINS[feature.domain].table]
    unit = (
        f"CASE WHEN value_as_number IS NULL THEN {NUMBERLESS} WHEN NOT ({_measured(there)}) THEN {BOUND} "
        f"ELSE {_UNIT if 'unit_concept_id' in there else NO_UNIT} END"
    )
    joined = events_of(feature, columns, value=unit)
    query = f"SELECT place, value, COUNT(*) FROM {joined} GROUP BY place, value"
    return sqlglot.parse_one(query, dialect="postgres")


def ancestors_query() -> exp.Expr:
    """Rows of the concepts in the parameter `concepts` below which `concept_ancestor` names some, or themselves."""
    query = f"SELECT DISTINCT ancestor_concept_id FROM concept_ancestor WHERE ancestor_concept_id IN ({_DECLARED})"
    return sqlglot.parse_one(query, dialect="postgres")


def cohort_parameters(feature: Feature, examples: pd.DataFrame) -> dict[str, list[Any]]:
    """What the query of a feature's events takes: the examples with the bounds of their windows, and the concepts."""
    windows = [bounds(feature, index) for index in examples["index_date"]]
    parameters: dict[str, list[Any]] = {
        "place": list(range(len(examples))),
        "person": [int(each) for each in examples["person"]],
        "low": [low for low, _ in windows],
        "high": [high for _, high in windows],
    }
    return {**parameters, "concepts": list(feature.concepts)} if feature.concepts else parameters


def _measured(columns: set[str]) -> str:
    """SQL for whether a row's number is what was measured, and not a bound of it."""
    known = "operator_concept_id" in columns
    return f"COALESCE(operator_concept_id, 0) IN ({', '.join(map(str, EQUAL))})" if known else "TRUE"


def _value(feature: Feature, columns: set[str]) -> str:
    """SQL for a row's value in the feature's unit; NULL for a row in a unit that is not declared, and for a bound."""
    value = f"CASE WHEN {_measured(columns)} THEN CAST(value_as_number AS DOUBLE PRECISION) END"
    if not feature.units:
        return value
    cases = " ".join(f"WHEN {int(unit)} THEN {value} * {float(factor)!r}" for unit, factor in feature.units.items())
    return f"CASE {_UNIT} {cases} END"


def person_query(columns: set[str]) -> exp.Expr:
    """Rows of (person, year, month, day of birth, gender concept) of the persons in the parameter `person`."""
    names = ("person_id", "year_of_birth", "month_of_birth", "day_of_birth", "gender_concept_id")
    parts = [name if name in columns else "NULL" for name in names]
    query = f"SELECT {', '.join(parts)} FROM person WHERE person_id IN (SELECT unnest(CAST(:person AS BIGINT[])))"
    return sqlglot.parse_one(query, dialect="postgres")
