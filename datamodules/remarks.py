"""What is to know of the rows that are kept: values that a site's sources lack, images that were not read or chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_TABLE = "values that a feature needs a table for which the site's database does not have"
OTHER_UNIT = "values left out since their unit is none of those that the study declares for the feature"
MIXED_UNITS = "values of a feature without declared units, in another unit than most of the site's have"
NO_DESCENDANTS = "values of a feature with a concept that the site's concept_ancestor does not know"
NO_NUMBER = "values of a feature left out since they hold no number (value_as_number)"
BEYOND = "values of a feature left out since they are a bound, as <0.01 is (operator_concept_id)"
NO_EVENT = "values of a feature of which the site's database has no event in the window of anybody"
IMPOSSIBLE_AGE = "ages below 0 or above 130 years, which count as missing"
NOTHING = "rows of which there is nothing to predict from"
GARBLED = "notes with letters lost by a wrong encoding"
OTHER_LEVEL = "values of a category that the study does not declare, which count as missing"
LACKING = (
    OTHER_LEVEL, NO_TABLE, OTHER_UNIT, MIXED_UNITS, NO_DESCENDANTS, NO_NUMBER, BEYOND, NO_EVENT,
    IMPOSSIBLE_AGE, NOTHING, GARBLED,
)  # fmt: skip


@dataclass(frozen=True)
class Remark:
    """One thing to know.

    Attributes:
        reason: one of `LACKING` or another declared one, which may leave the site.
        words: what it is, for the site's own log.
        rows: the rows that it is about, bool [n]; or how often it is to be said of each, int [n].
    """

    reason: str
    words: str
    rows: np.ndarray


def counted(remarks: Sequence[Remark], person: np.ndarray) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """By reason how many values are lacking, or how often it is to be said, and of how many distinct persons; and what
    the site's own log says.

    `person` int64 [n] is whose each row is.
    """
    made = [each for each in remarks if each.rows.any()]
    values, rows = Counter[str](), dict[str, np.ndarray]()
    for each in made:
        values[each.reason] += int(each.rows.sum())
        rows[each.reason] = rows.get(each.reason, False) | (each.rows > 0)
    persons = {reason: len(np.unique(person[which])) for reason, which in rows.items()}
    return dict(values), persons, [f"{each.words}: {int(each.rows.sum())} examples" for each in made]
