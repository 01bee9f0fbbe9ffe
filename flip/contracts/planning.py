"""What the engine asks of a dataset that proposes a study's settings."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from flip.contracts.dataset import Arrays


@runtime_checkable
class Plans(Protocol):
    """A dataset that can propose a study's settings by what its sites hold (`job=plan`)."""

    def surveyed(self, minimum_cell: int = 1) -> tuple[Arrays, Mapping[str, int]]:
        """Of this site, histograms and sums as a plan needs them, by name (`histogram/...`), and the persons behind."""

    def planned(self, sums: Arrays) -> str:
        """Settings as YAML by such sums over the sites, each with a comment. Raises ValueError where there are none.

        Asked of the study as declared, over no site's data.
        """
