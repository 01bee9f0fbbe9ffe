"""What the engine asks of a dataset that knows by name whose its rows are."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class ListsPersons(Protocol):
    """A dataset that lists the persons whose rows it has, for its own site alone; none where no column names them.

    It leaves out those of its argument `opt_out`, a collection of names, before it counts or computes anything, as if
    their rows had never been there. A site that has such a list takes no other dataset.
    """

    opted_out: tuple[int, int]  # rows that it left out so, and of how many distinct persons; after `persons`

    def person_names(self) -> Sequence[str]:
        """The site's own name of each person, once; after `persons`."""


@runtime_checkable
class NamesExamples(Protocol):
    """A dataset that says by name, for its own site alone, whose each example is; a site tells cohorts apart by it."""

    def example_persons(self, split: str) -> Sequence[str]:
        """The site's own name of the person of each example of a split; of "" that of each row of the cohort, also of
        those left out. In any order; a row of nobody has any name that stays the same. After `setup`."""
