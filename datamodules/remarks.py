"""What a site's sources lack of the rows that are kept: values that are missing, or cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_TABLE = "values that a feature needs a table for which the site's database does not have"
OTHER_UNIT = "values left out since their unit is none of those that the study declares for the feature"
MIXED_UNITS = "values of a feature without declared units, in another unit than most of the site's have"
NO_DESCENDANTS = "values of a feature with a concept that the site's concept_ancestor does not know"
LACKING = (NO_TABLE, OTHER_UNIT, MIXED_UNITS, NO_DESCENDANTS)


@dataclass(frozen=True)
class Remark:
    """One thing that a source lacks.

    Attributes:
        reason: one of `LACKING`, which may leave the site.
        words: what it is, for the site's own log.
        rows: the rows that it is about, bool [n].
    """

    reason: str
    words: str
    rows: np.ndarray

    def told(self, person: np.ndarray) -> tuple[str, str, int, int]:
        """Reason, words, rows and distinct persons; `person` int64 [n] is whose each row is."""
        return self.reason, self.words, int(self.rows.sum()), len(np.unique(person[self.rows]))
