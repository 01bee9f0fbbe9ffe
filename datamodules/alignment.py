"""A site's own columns as the study declares them: names, units, spelling of values, and which of them it lacks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import pandas as pd

WHOLE = re.compile(r"([-+]?[0-9]{1,99})(?:\.0*)?")  # float() takes 1_0 and 1e1 as well, which are other codes
WRITTEN_AS_FLOAT = re.compile(r"[0-9]+\.0")
COMMA = re.compile(r"[-+]?[0-9]+(,[0-9]+)+(\.[0-9]+)?")
CONVERSION = ("name", "factor", "offset", "values")


def aligned(
    table: pd.DataFrame, wanted: Iterable[str], columns: Mapping[str, Any], missing: Collection[str] = ()
) -> pd.DataFrame:
    """The wanted columns of a site's table under their declared names.

    `columns` holds, by declared name, the site's own name, or a mapping of `name`, `factor` and `offset` (declared unit
    = own * factor + offset) and `values` (own value: declared value), or None for a column that the site lacks.
    `missing` are texts that mean a missing value, before any conversion. Raises ValueError for a column that is neither
    in the table nor said to be lacking, and for a mapping of what the study does not declare.
    """
    wanted = list(dict.fromkeys(wanted))
    unknown = sorted(set(columns) - set(wanted))
    if unknown:
        raise ValueError(
            f"columns.{unknown[0]}: the study declares no such column, so nothing would be mapped "
            f"(it declares {', '.join(sorted(wanted))})"
        )
    return pd.DataFrame({name: _column(table, name, columns.get(name, name), missing) for name in wanted})


def _column(table: pd.DataFrame, name: str, own: Any, missing: Collection[str]) -> pd.Series[Any]:
    if own is None:
        return pd.Series(None, index=table.index, dtype=object)
    rule = own if isinstance(own, Mapping) else {"name": own}
    if strange := set(rule) - set(CONVERSION):
        raise ValueError(f"columns.{name}.{sorted(strange)[0]}: no such key; a mapping holds {', '.join(CONVERSION)}")
    source = str(rule.get("name", name))
    if source not in table:
        raise ValueError(
            f"the table has no column {source}; map it in the site's `columns`, as in `columns: {{{name}: own_name}}`, "
            f"or `{name}: null` where the site lacks it (its columns: {', '.join(map(str, table.columns))})"
        )
    values = table[source].astype(object)
    gone = values.isna() | values.map(level).isin({"", *map(str, missing)})
    values = values.where(~gone, None)
    if "values" in rule:
        spelled = {level(key): each for key, each in rule["values"].items()}
        values = values.map(lambda value: spelled.get(level(value), value), na_action="ignore")
    if "factor" in rule or "offset" in rule:
        values = numbers(values, name) * rule.get("factor", 1.0) + rule.get("offset", 0.0)
    return values


def numbers(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    """A column as float64 with NaN where it is missing. Raises ValueError for text that is no number, and for dates.

    No decimal comma, separator of thousands, unit or sign as < is read: what is meant by 1,234 only the site knows.
    """
    plain = values.astype(object).map(_plain).astype(object)
    dates = (
        plain.map(lambda each: isinstance(each, date | time | timedelta | np.datetime64 | np.timedelta64))
        & plain.notna()
    )
    found = pd.to_numeric(plain.where(~dates.astype(bool), ""), errors="coerce").astype(np.float64)
    found = found.where(np.isfinite(found))
    wrong = found.isna() & values.notna()
    if wrong.any():
        text = "dates, which are no numbers" if dates.any() else "text that is not a number"
        commas = plain[wrong & ~dates].map(lambda each: COMMA.fullmatch(str(each).strip()) is not None).any()
        raise ValueError(
            f"column {name} holds {text}, {int(wrong.sum())} times"
            + (" (some with a comma: write 12.5 and 1234 for 12,5 and 1,234)" if commas else "")
            + "; name it in the dataset's `missing`, or translate it by `values` in the site's `columns`"
        )
    return found


def levels(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column as the texts of its levels, None where it is missing."""
    return values.map(level, na_action="ignore").astype(object).where(values.notna(), None)


def level(value: Any) -> str:
    """The text of a category: `1`, `1.0` and "1" are one level, and so are `true` and "True"."""
    text = str(_plain(value)).strip()
    found = WHOLE.fullmatch(text)
    return text if found is None else str(int(found[1]))


def identifier(value: Any) -> str | None:
    """A person's or an example's identifier as text, None where it is missing; 12 and 12.0 are the same.

    Also as text: spreadsheets and pandas write whole numbers so in a column with a gap.
    """
    if value is None or value != value:
        return None
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return text.removesuffix(".0") if WRITTEN_AS_FLOAT.fullmatch(text) else text


def _plain(value: Any) -> Any:
    """Truth values as their words in tables and numpy's scalars as Python's."""
    return str(bool(value)) if isinstance(value, bool | np.bool_) else value


def numbered(names: Sequence[str | None]) -> list[str]:
    """Whose each row is, by name; all that name nobody are one person's. Where none names anybody, by its number."""
    return [name or "" for name in names] if any(names) else [f"row {number}" for number, _ in enumerate(names, 1)]
