"""What the engine asks of a dataset about sums that sites agree on, to hold them against a site's own rows."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from flip.contracts.dataset import Arrays


@runtime_checkable
class BinsShares(Protocol):
    """A dataset among whose agreed sums are shares by bin: none is below 0, and a site holds them against its own."""

    binned: Sequence[str]  # the names of these sums, [bins] each


@runtime_checkable
class Adjusts(Protocol):
    """A dataset that changes columns by agreed sums before it scales them, as a harmonisation over sites does."""

    def adjusted(self, agreed: Arrays) -> Arrays:
        """Moments [3] of this site's training rows once they are so changed, by the name of those that scale them.

        Nothing of the dataset changes. Raises ValueError as `agree` does.
        """
