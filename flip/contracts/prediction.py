"""What the engine asks of a dataset of which a model predicts rows without labels (`job=predict`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from flip.contracts.dataset import Batch, FederatedDataModule


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


@runtime_checkable
class NamesInputs(Protocol):
    """A dataset of several inputs, as images and a table, of which a row may lack some and have a prediction."""

    def row_inputs(self, split: str) -> Sequence[str]:
        """The inputs that each row of a split has, as words between spaces; no row where the study has only one."""


@runtime_checkable
class GivesStudies(Protocol):
    """A dataset of images that takes `labeled=False`, to give its studies one by one to a model that marks them."""

    def studies(self) -> Iterable[object]:
        """Each study, or why it was not read, as the model knows it."""


@runtime_checkable
class WritesPredictions(Protocol):
    """A model whose predictions are files of their own, as masks."""

    def write_predictions(
        self, data: "FederatedDataModule", folder: Path, apply: "Callable[[Batch], torch.Tensor]", digest: str
    ) -> Mapping[str, int]:
        """Write what is predicted of a dataset's `studies` into `folder`, for the site alone, with `predictions.csv`.

        `apply`: what `predict_step` gives of a batch; `digest`: of the weights. Returns how many studies are not
        predicted, by the reason.
        """
