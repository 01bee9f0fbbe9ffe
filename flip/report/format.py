"""Numbers, sizes and durations as text."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

LETTER = 7.5  # px, of a column's name
ACROSS, NAMES, LEAST, MOST = 1030, 240, 64, 120  # px: the page, names of rows at most, and a column (style.css.j2)


def number(value: float | str | None) -> str:
    """A number for reading: three decimals below 100, a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\u2013"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (float(value).is_integer() and 100 <= abs(value) < 1e9):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    if abs(value) >= 1e9:
        return f"{value:.1e}".replace("e+", "e").replace("-", "\u2212")
    text = f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    if value and abs(value) < 0.0005:
        mantissa, power = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(power)}"
    return text.replace("-", "\u2212")


def whole(value: float | None) -> str:
    """A count for reading, a dash where it is not known."""
    return "\u2013" if value is None else f"{int(value):,}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"+{number(value)}" if value > 0 and math.isfinite(value) else number(value)


def size(value: float) -> str:
    """Bytes for reading, in powers of 1000."""
    if value < 1000:
        return f"{value:.0f} B"
    power = min(int(math.log(value, 1000)), 4)
    return f"{value / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def seconds(value: float) -> str:
    """A duration for reading."""
    if value < 60:
        return f"{value:.1f} s" if value >= 1 or not value else f"{value:.2f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def breakable(name: str) -> "Markup":
    """A name that may go on in the next line after each underscore, so that a long one is not cut within a word."""
    from markupsafe import Markup, escape

    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def crowded(columns: Sequence[str | None], rows: Sequence[Sequence[object]]) -> bool:
    """Whether the names above a table's columns are upright, since level ones would take it beyond the page.

    `rows` begin with their names.
    """
    names = max((len(str(row[0])) * LETTER for row in rows), default=0)
    level = sum(min(MOST, max(LEAST, len(name or "pooled") * LETTER + 20)) for name in columns)
    return min(NAMES, names) + level > ACROSS
