"""In which unit a site's values are, where the study declares none: sites that differ cannot learn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PREFIX = "count/units/"
NO_UNIT = 0  # OMOP's "no matching concept", as of a value without a unit

Told = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class InUnit:
    """The rows, bool [n], with values of a column in a unit, by its OMOP concept."""

    column: str
    unit: int
    rows: np.ndarray


def persons_by_unit(units: Sequence[InUnit], person: np.ndarray) -> dict[str, np.ndarray]:
    """Distinct persons [1] with values of a column in a unit: `count/units/<column>/<concept>`."""
    return {
        f"{PREFIX}{each.column}/{each.unit}": np.array([float(len(np.unique(person[each.rows])))]) for each in units
    }


def differing(told: Told, columns: Sequence[str]) -> list[str]:
    """By site what `persons_by_unit` tells: a sentence for each column of which sites have most values in another unit.

    Names of other columns, and units that are no concepts, are not read: a site wrote them.
    """
    sentences = []
    for column in columns:
        usual = {site: unit for site, counts in told.items() if (unit := _usual(counts, f"{PREFIX}{column}/"))}
        units = {unit: [site for site in usual if usual[site] == unit] for unit in sorted(set(usual.values()), key=int)}
        if len(units) > 1:
            where = ", ".join(f"{_words(unit)} at {' and '.join(sites)}" for unit, sites in units.items())
            sentences.append(
                f"feature {column} is in {where}, and the study declares none: declare the unit of each with its "
                f"factor, as in `units: {{{', '.join(f'{unit}: 1.0' for unit in units)}}}`"
            )
    return sentences


def _usual(counts: Mapping[str, np.ndarray], prefix: str) -> str:
    """The unit that most persons of a site have; empty where the site tells none."""
    found = {name.removeprefix(prefix): float(each[0]) for name, each in counts.items() if name.startswith(prefix)}
    found = {unit: number for unit, number in found.items() if unit.isdecimal()}
    return max(sorted(found, key=int), key=found.__getitem__, default="")


def _words(unit: str) -> str:
    return "no unit" if int(unit) == NO_UNIT else f"unit {unit}"
