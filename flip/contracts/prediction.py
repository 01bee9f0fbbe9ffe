"""What the engine asks of a dataset of which a model predicts rows without labels (`job=predict`)."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class NamesRows(Protocol):
    """A dataset that takes `labeled=False`: all rows are then test rows, and no column of what is predicted is read."""

    predicted_names: Sequence[str]  # of the numbers that a model predicts for a row as one array: classes, or labels

    def row_names(self, split: str) -> Mapping[str, Sequence[str]]:
        """By column (`person`, `accession`, or `row`, counted from 1) the site's own name of each row of a split."""

    def unfounded_rows(self, split: str) -> Sequence[str]:
        """Why each row of a split has nothing to predict from, so that no prediction is written; empty where it has."""

    def skipped_rows(self) -> Mapping[str, Sequence[str]]:
        """The same of the rows that were left out, and the `reason`."""
