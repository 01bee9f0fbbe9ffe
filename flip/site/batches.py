"""Batches that a module can train on."""

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, IterableDataset

from flip.contracts.loaders import batched_alike

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader


def without_single(module: torch.nn.Module, loader: "Loader") -> "Loader":
    """The loader; without its last batch where that has one row, and the module computes the statistics of a batch.

    One row has no deviation: batch norm raises for it, or takes the row for the mean of the data. Of shuffled data it
    is another row in each pass.
    """
    norms = (each for each in module.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm))
    batches = loader.batch_sampler
    if not any(each.training for each in norms) or isinstance(loader.dataset, IterableDataset):
        return loader
    if type(batches) is not BatchSampler or batches.drop_last or batches.batch_size == 1:
        return loader
    rows: Any = batches.sampler
    if len(rows) % batches.batch_size != 1 or len(rows) == 1:
        return loader
    return batched_alike(loader, batch_sampler=BatchSampler(rows, batches.batch_size, drop_last=True))
