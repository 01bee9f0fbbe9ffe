"""Features of a cohort from OMOP's tables: concept sets in windows of time that end at or before the index date.

When an event took place is its datetime. Where that is missing or is exactly midnight, which is how many databases
write a day without a time, the event counts as the last moment of its day: a row that cannot be shown to precede the
index is left out. An index that is a date without a time stands for the end of that day.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

AGGREGATES = ("any", "count", "last", "mean", "min", "max")
PERSON_AGGREGATES = ("age", "sex")
SEXES = {8507: "male", 8532: "female"}  # OMOP's standard concepts
YEAR = 365.25  # days
OLDEST = 130  # years
LONGEST = 100_000  # days of a window: more than a life


@dataclass(frozen=True)
class Domain:
    """Where the common data model keeps events of a kind."""

    table: str
    key: str
    concept: str
    date: str
    datetime: str
    has_value: bool = False


DOMAINS = {
    "condition": Domain(
        "condition_occurrence", "condition_occurrence_id", "condition_concept_id", "condition_start_date",
        "condition_start_datetime",
    ),
    "drug": Domain(
        "drug_exposure", "drug_exposure_id", "drug_concept_id", "drug_exposure_start_date",
        "drug_exposure_start_datetime",
    ),
    "measurement": Domain(
        "measurement", "measurement_id", "measurement_concept_id", "measurement_date", "measurement_datetime", True
    ),
    "observation": Domain(
        "observation", "observation_id", "observation_concept_id", "observation_date", "observation_datetime", True
    ),
    "visit": Domain(
        "visit_occurrence", "visit_occurrence_id", "visit_concept_id", "visit_start_date", "visit_start_datetime"
    ),
    "note": Domain("note", "note_id", "note_class_concept_id", "note_date", "note_datetime"),
    "death": Domain("death", "person_id", "cause_concept_id", "death_date", "death_datetime"),
}  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One declared feature.

    Attributes:
        domain: one of `DOMAINS`, or "person".
        aggregate: one of `AGGREGATES`; of a person "age" (years) or "sex" ("female", "male", or missing).
        concepts: identifiers of the concepts; empty for all of the domain.
        descendants: whether the concepts below these in `concept_ancestor` count too.
        window: first and last day relative to the index, the last at most 0; a first one of None has no bound.
        units: by concept of a unit, the factor to the feature's unit; rows in other units are left out. Empty takes
            values as they are.
    """

    domain: str
    aggregate: str
    concepts: Sequence[int] = ()
    descendants: bool = True
    window: Sequence[float | None] = (None, 0)
    units: Mapping[int, float] | None = None

    @classmethod
    def declared(cls, name: str, **given: Any) -> "Feature":
        """A feature with a name. Raises ValueError naming it, the key and what that may be."""
        units = given.get("units")
        if isinstance(units, Mapping):  # of a study that came as JSON, whose keys are text
            given["units"] = {int(unit) if str(unit).isdecimal() else unit: each for unit, each in units.items()}
        try:
            made = cls(**given)
        except TypeError as error:
            keys = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"feature {name}: has domain, aggregate and further keys of {keys}; {error}") from error
        if problem := _problem(made):
            raise ValueError(f"feature {name}: {problem}")
        return made

    @property
    def table(self) -> str:
        """The table that it is read from."""
        return "person" if self.domain == "person" else DOMAINS[self.domain].table


def _problem(feature: Feature) -> str:
    if feature.domain not in (*DOMAINS, "person"):
        return f"domain {feature.domain!r} is none of person, {', '.join(DOMAINS)}"
    allowed = PERSON_AGGREGATES if feature.domain == "person" else AGGREGATES
    if feature.aggregate not in allowed:
        return f"aggregate {feature.aggregate!r} is none of {', '.join(allowed)}"
    if (
        feature.domain != "person"
        and feature.aggregate not in ("any", "count")
        and not DOMAINS[feature.domain].has_value
    ):
        return f"aggregate {feature.aggregate} needs values, which {feature.domain} has none of: take any or count"
    if not all(
        isinstance(each, int) and not isinstance(each, bool) for each in (*feature.concepts, *(feature.units or ()))
    ):
        return "concepts and units are OMOP's concept identifiers, whole numbers"
    window = list(feature.window)
    if len(window) != 2 or not isinstance(window[1], int | float) or not isinstance(window[0], int | float | None):
        return "window is [first day, last day], such as [-365, 0]; the first may be null"
    if any(each is not None and not abs(each) <= LONGEST for each in window):
        return f"window is in days, {LONGEST} at most; null as the first has no bound"
    if window[1] > 0:
        return f"window ends {window[1]:g} days after the index: what happens later may not be a feature"
    if window[0] is not None and window[0] > window[1]:
        return "window ends before it begins"
    return ""


def bounds(feature: Feature, index: date | datetime) -> tuple[datetime, datetime]:
    """The first and last moment whose events count for an index. A date stands for the end of its day."""
    first, last = feature.window
    if isinstance(index, datetime):
        start = end = index
    else:
        start, end = datetime.combine(index, time.min), datetime.combine(index, time.max)
    assert last is not None
    try:
        low = datetime.min if first is None else start + timedelta(days=first)
    except OverflowError:
        low = datetime.min
    return low, end + timedelta(days=last)


def combine(feature: Feature, rows: Sequence[tuple[int, float | None]], places: int) -> list[float]:
    """The feature of each place. Without an event 0 for any and count, else NaN.

    A mean is summed exactly (`math.fsum`), so it does not depend on the order in which a database gives its rows.
    """
    values: dict[int, list[float]] = {}
    for place, value in rows:
        if value is not None:
            values.setdefault(place, []).append(float(value))
    empty = 0.0 if feature.aggregate in ("any", "count") else math.nan
    return [math.fsum(values[at]) / len(values[at]) if at in values else empty for at in range(places)]


def of_person(feature: Feature, born: Sequence[int | None] | None, index: date) -> float | str | None:
    """Sex, or the age in years at the index: (year, month, day of birth, gender concept) of one person.

    Without a month or day of birth the middle of the year or month is taken, so the age is within half a year; of the
    newborn, who may seem to be born later by that, it is 0.
    """
    if feature.aggregate == "sex":
        return SEXES.get(born[3] or 0) if born else None
    if not born or born[0] is None:
        return math.nan
    middle = (7, 2) if born[1] is None else (born[1], 15)
    try:
        birth = date(born[0], middle[0], middle[1] if born[1] is None or born[2] is None else born[2])
    except ValueError:
        return math.nan
    day = index.date() if isinstance(index, datetime) else index
    age = (day - birth).days / YEAR
    return 0.0 if -0.5 <= age < 0 else age


def possible(age: float | str | None) -> bool:
    """Whether it is no age, or one that a person can have."""
    return not isinstance(age, float) or math.isnan(age) or 0 <= age <= OLDEST
