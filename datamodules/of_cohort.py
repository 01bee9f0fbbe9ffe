"""What every dataset over an aligned cohort says of its persons."""

from __future__ import annotations

import numpy as np

from datamodules.alignment import numbered
from datamodules.cohort import Cohort
from datamodules.opt_out import Gone
from datamodules.unlabeled import NamedRows


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

    def person_names(self) -> list[str]:
        """The site's own name of each person, once; none where no column names them."""
        return [name for name in dict.fromkeys(self._read().names) if name]

    def example_persons(self, split: str) -> list[str]:
        """The site's own name of the person of each example of a split, or of each row: see `flip.contracts`."""
        if isinstance(self, NamedRows):  # which knows those too who are left out
            return NamedRows.example_persons(self, split)
        cohort = self._read()
        rows = numbered(cohort.names or [None] * len(cohort.person))
        known = dict(zip(cohort.person.tolist(), rows, strict=True))
        return [known[code] for code in self.whose(split).tolist()] if split else rows

    @property
    def opted_out(self) -> Gone:
        """Rows that are not read since their persons opted out, and how many of the site's list these are."""
        return self._read().opted_out
