"""What the engine asks of a dataset about sums that sites agree on, to hold them against a site's own rows."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from flip.contracts.dataset import Arrays


@runtime_checkable
class BinsShares(Protocol):
    """A dataset among whose agreed sums are shares by bin: none is below 0, and a site holds them against its own."""

    binned: Sequence[str]  # the names of these sums, [bins] each


@runtime_checkable
class Weighs(Protocol):
    """A dataset that weighs rows in the loss by agreed sums, as those of a class by the persons of all sites."""

    def weighed(self, agreed: Arrays) -> np.ndarray:
        """By class of this site's training rows, float64 [classes, 2]: its persons, and what its rows weigh together.

        Of no class where rows are not weighed. Nothing of the dataset changes.
        """


@runtime_checkable
class Adjusts(Protocol):
    """A dataset that changes columns by agreed sums before it scales them, as a harmonisation over sites does."""

    def adjusted(self, agreed: Arrays) -> Arrays:
        """Moments [3] of this site's training rows once they are so changed, by the name of those that scale them.

        Nothing of the dataset changes. Raises ValueError as `agree` does.
        """
