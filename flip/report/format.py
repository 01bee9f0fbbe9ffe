"""Numbers, sizes and durations as text."""

import math


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
