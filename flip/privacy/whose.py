"""Whose the examples of a private fit are: a person's enter a batch together, and count as one gradient.

Imported by `opacus_training`, and so when a mechanism is used.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

PERSON = "person"  # key of a batch: whose its rows are


class Whose:
    """Whose the examples of a fit are, and whose those of the batch at hand.

    Args:
        codes: a code of the person of each example, int64 [n], in the order of the dataset.
    """

    def __init__(self, codes: NDArray[np.int64]) -> None:
        self.codes, self.rows = (torch.from_numpy(each) for each in np.unique(codes, return_counts=True))
        self.batch = torch.zeros(0, dtype=torch.int64)

    def take(self, batch: object) -> None:
        """Note whose a batch is. Raises RuntimeError for one that does not say, or holds a part of a person's rows."""
        if not (isinstance(batch, Mapping) and isinstance(batch.get(PERSON), torch.Tensor)):
            raise RuntimeError(f"privacy=dp_sgd: a batch does not say whose its rows are, by the key {PERSON!r}")
        self.batch = batch[PERSON].cpu()
        found, rows = self.batch.unique(return_counts=True)
        place = torch.searchsorted(self.codes, found).clamp(max=max(len(self.codes) - 1, 0))
        if not (torch.equal(self.codes[place], found) and torch.equal(self.rows[place], rows)):
            raise RuntimeError(
                "privacy=dp_sgd: a batch holds a part of a person's rows alone: whose(split) of the dataset must be in "
                "the order of its examples"
            )

    def summed(self, gradients: torch.Tensor) -> torch.Tensor:
        """Gradients of the batch's examples [n, ...], added up by person [persons, ...]."""
        if len(gradients) != len(self.batch):
            raise RuntimeError(f"privacy=dp_sgd: {len(gradients)} gradients of {len(self.batch)} examples")
        persons, place = self.batch.unique(return_inverse=True)
        if len(persons) == len(gradients):
            return gradients
        together = gradients.new_zeros((len(persons), *gradients.shape[1:]))
        return together.index_add_(0, place.to(gradients.device), gradients)


def in_order(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes of persons as numbers from 0, in the order in which they first occur."""
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[first.argsort()] = np.arange(len(first))
    return number[place]
