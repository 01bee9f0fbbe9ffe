"""What the engine asks of a dataset that knows by name whose its rows are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class ListsPersons(Protocol):
    """A dataset that lists the persons whose rows it has, for the site's own journal; none where no column names them.

    It leaves out those of its argument `opt_out`, a collection of names, before it counts or computes anything.
    """

    def person_names(self) -> Sequence[str]:
        """The site's own name of each person, once; after `persons`."""
