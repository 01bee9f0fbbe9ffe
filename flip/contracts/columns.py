"""What the engine asks of a dataset about a site's own `columns`."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class ConvertsColumns(Protocol):
    """A dataset that takes `{name: ..., conversion: ...}` for a column in a site's file."""

    converts_columns: bool


@runtime_checkable
class TakesTerms(Protocol):
    """A dataset that takes a mapping with exactly these keys for what `columns` names, as `{code: ..., value: ...}`."""

    COLUMN_KEYS: tuple[str, ...]
