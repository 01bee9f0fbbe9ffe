"""The rows of a split as batches: arrays of the whole cohort, and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from datamodules.splits import SPLITS

if TYPE_CHECKING:
    from datamodules.pixels import Pixels

EVALUATED = 256  # rows of a validation or test batch: enough to be fast, few enough for images


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of one split; `arrays` are of the whole cohort, `rows` int64 which of them belong here."""

    def __init__(
        self, arrays: Mapping[str, Tensor], pixels: Pixels | None, rows: np.ndarray, *, augmented: bool
    ) -> None:
        self.arrays, self.pixels, self.rows, self.augmented = arrays, pixels, rows, augmented

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch at once: several times faster than row by row."""
        rows = self.rows[np.asarray(indices, np.int64)]
        images = self.pixels.take(rows, augmented=self.augmented) if self.pixels else {}
        taken = torch.from_numpy(rows)
        return {**images, **{name: value[taken] for name, value in self.arrays.items()}}


def split_rows(arrays: Mapping[str, np.ndarray], pixels: Pixels | None, splits: np.ndarray) -> dict[str, Rows]:
    """The rows of each split; `splits` are those of the cohort's rows, as text."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return {name: Rows(tensors, pixels, np.flatnonzero(splits == name), augmented=name == "train") for name in SPLITS}


def collate(batch: Any) -> dict[str, Tensor]:
    """A batch that `Rows.__getitems__` made is whole already; single rows (of pooled sites) are stacked."""
    if isinstance(batch, dict):
        return batch
    stacked: dict[str, Tensor] = default_collate(batch)
    return stacked


class SplitLoaders:
    """The loaders of a dataset whose rows are in `_datasets` by split, once its statistics are agreed on."""

    batch_size: int
    _datasets: dict[str, Rows]

    def statistics(self, minimum_cell: int = 1) -> dict[str, np.ndarray]:
        """The sums that sites agree on."""
        raise NotImplementedError

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take those of all sites, and make the rows."""
        raise NotImplementedError

    def _loader(self, split: str) -> DataLoader[Any]:
        if not self._datasets:
            self.agree(self.statistics())
        rows, training = self._datasets[split], split == "train"
        size = self.batch_size if training else EVALUATED
        return DataLoader(rows, batch_size=size, shuffle=training and len(rows) > 0, collate_fn=collate)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training rows in random order."""
        return self._loader("train")

    def val_dataloader(self) -> list[DataLoader[Any]] | DataLoader[Any]:
        """Validation rows; no loader without any."""
        found = self._loader("validate")
        return found if len(found.dataset) else []  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Any]:
        """Test rows."""
        return self._loader("test")
