"""What OMOP sources ask of a database: the tables that it has, and rows for a query, within a time."""

import re
from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from sqlglot import exp

Records = list[tuple[Any, ...]]


class Session(Protocol):
    """A read-only connection."""

    @property
    def columns(self) -> Mapping[str, Set[str]]:
        """The columns of each of OMOP's tables that is there, as the database spells them."""
        ...

    def rows(self, query: exp.Expr, parameters: Mapping[str, Any], seconds: float) -> tuple[list[str], Records]:
        """Names and rows of a query whose names are spelled already (`cohort_sql.spell`), parameters as `:name`.

        Raises TimeoutError after so many seconds, ValueError for what the database refuses.
        """
        ...


class Database(Protocol):
    """Where an OMOP database lies."""

    def open(self, tables: Set[str]) -> AbstractContextManager[Session]:
        """Connect for reading these tables (lower case). One that the site does not have is left out."""
        ...


def late(seconds: float) -> TimeoutError:
    """The error of a query that ran too long."""
    return TimeoutError(
        f"a query ran longer than {seconds:g} s and was stopped: narrow the cohort query, or raise `seconds` in the "
        "site's `sources`"
    )


def number(name: str, value: Any, low: float) -> float:
    """A limit given in a site's file. Raises ValueError unless it is a number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < low:
        raise ValueError(f"`{name}` must be a number of at least {low:g}, not {value!r}")
    return value


def plain(value: Any) -> Any:
    """A database's value as Python's: decimals as floats, moments in UTC without saying so."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def one_line(error: object) -> str:
    """A database's message as one line."""
    return re.sub(r"\s+", " ", str(error)).strip()
