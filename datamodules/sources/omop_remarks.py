"""What is to know of the values of a feature: their units, and events without a number, or with a bound of one.

`found` are rows of (example, unit, number of values), as `omop_queries.units_query` has them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.remarks import BEYOND, MIXED_UNITS, NO_NUMBER, OTHER_UNIT, Remark
from datamodules.sources.omop_features import Feature
from datamodules.sources.omop_queries import BOUND, NUMBERLESS
from datamodules.units import InUnit

Found = Sequence[tuple[Any, ...]]


def in_units(name: str, found: Found, examples: int) -> list[InUnit]:
    """Which examples have values in which unit."""
    return [InUnit(name, unit, _rows(found, {unit}, examples)) for unit in _numbers(found)]


def on_values(name: str, feature: Feature, found: Found, examples: int) -> list[Remark]:
    """Remarks on events without a number or with a bound, undeclared units, several units where none is declared."""
    remarks, number = [], _numbers(found)
    for unit, reason in ((NUMBERLESS, NO_NUMBER), (BOUND, BEYOND)):
        if (bare := _rows(found, {unit}, examples)).any():
            remarks.append(Remark(reason, f"feature {name} ({reason})", bare))
    declared = set(feature.units or number.most_common(1)[0][:1] if number else ())
    other = {unit: values for unit, values in number.items() if unit not in declared}
    if other:
        reason = OTHER_UNIT if feature.units else MIXED_UNITS
        units = ", ".join(f"{values} of unit {unit}" for unit, values in other.items())
        remarks.append(Remark(reason, f"feature {name}: {units} ({reason})", _rows(found, set(other), examples)))
    return remarks


def _numbers(found: Found) -> Counter[Any]:
    """How many values are in which unit."""
    number: Counter[Any] = Counter()
    for _, unit, values in found:
        if unit not in (NUMBERLESS, BOUND):
            number[unit] += values
    return number


def _rows(found: Found, units: set[Any], examples: int) -> np.ndarray:
    """The examples with values of these units, bool."""
    return np.isin(np.arange(examples), [place for place, unit, _ in found if unit in units])
