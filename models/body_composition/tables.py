"""Rows as a table on a site's disk."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ("accession_id",)) -> str:
    """Rows as CSV, with the columns of the first of them, or `names` where there is none; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else list(names), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: tidy(value) for name, value in row.items()})
    return text.getvalue()


def tidy(value: Any) -> Any:
    """A number to five significant digits, as text without an exponent; empty for NaN."""
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else np.format_float_positional(value, precision=5, fractional=False, trim="-")
