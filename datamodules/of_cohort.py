"""What every dataset over an aligned cohort says of its persons."""

from __future__ import annotations

from itertools import compress

import numpy as np

from datamodules.cohort import Cohort
from datamodules.opt_out import Gone


class OfCohort:
    """A class of datasets gives `_read`."""

    opt_out: frozenset[str]

    def _read(self) -> Cohort:
        """The cohort, read once."""
        raise NotImplementedError

    def whose(self, split: str) -> np.ndarray:
        """A code of the person of each example of a split, int64 [n], of those of the cohort."""
        raise NotImplementedError

    def persons(self) -> int:
        """Number of distinct persons in the cohort. Raises FileNotFoundError or ValueError for an unusable one."""
        return self._read().persons

    def person_names(self, split: str = "") -> list[str]:
        """The site's own name of each person, of a split or of all, once; none where no column names them."""
        cohort = self._read()
        chosen = np.isin(cohort.person, self.whose(split)) if split else np.ones(len(cohort.names), bool)
        return [name for name in dict.fromkeys(compress(cohort.names, chosen)) if name]

    @property
    def opted_out(self) -> Gone:
        """Rows that are not read since their persons opted out, and how many of the site's list these are."""
        return self._read().opted_out
