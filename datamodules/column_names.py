"""The names of a table's columns, by one rule for every file that a table comes in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def column_names(path: Path, written: Sequence[str]) -> list[str]:
    """The names as they are used: without spaces around them, one without a name by its place.

    Raises ValueError where two have one name, also as `x` and `X`, which SQL does not tell apart.
    """
    names = [name.strip() or f"column_{at}" for at, name in enumerate(written)]
    lower = [name.lower() for name in names]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise ValueError(f"{path} has two columns called {twice[0]}: rename one")
    return names
