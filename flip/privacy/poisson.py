"""Poisson batches: each person enters one by itself, all rows together, as the accountant takes it.

Imported by `dp_sgd` when used.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler, default_collate

from flip.contracts.loaders import batched_alike, examples_in
from flip.privacy.noise import Stream
from flip.privacy.whose import in_order

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader

Collate = Callable[[list[object]], object]


class PoissonBatches(Sampler[list[int]]):
    """Batches into which every person enters by itself with the same probability, drawn from a private stream.

    Args:
        examples: number of examples.
        batches: batches in one pass; each person, with all examples, is in each with the probability 1 / batches.
        key: 32 secret bytes.
        codes: a code of the person of each example, int64 [n]; None: each is a person's own.
    """

    def __init__(self, examples: int, batches: int, key: bytes, codes: NDArray[np.int64] | None = None) -> None:
        if codes is not None and len(codes) != examples:
            raise ValueError(f"{len(codes)} persons' codes of {examples} examples")
        self.batches, self.person = batches, in_order(np.arange(examples) if codes is None else codes)
        self.persons = int(self.person.max(initial=-1)) + 1
        self._stream = Stream(key, "dp_sgd/batches")

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.batches):
            drawn = self._stream.uniforms(self.persons) < 1 / self.batches
            yield [int(index) for index in drawn[self.person].nonzero()[0]]


class CollateEmpty:
    """A loader's own collate function, which for no examples gives a batch of the same structure and length 0."""

    def __init__(self, dataset: Dataset[object], collate: Collate | None) -> None:
        self.dataset, self.collate = dataset, collate or default_collate

    def __call__(self, examples: list[object]) -> object:
        """Collate examples into a batch."""
        return self.collate(examples) if examples else emptied(self.collate([self.dataset[0]]))


def emptied(batch: Any) -> Any:
    """A batch without its examples: tensors and lists keep their type and lose their length."""
    if isinstance(batch, Mapping):
        return {name: emptied(value) for name, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(emptied(value) for value in batch)
    if isinstance(batch, list) and all(isinstance(value, torch.Tensor) for value in batch):
        return [emptied(value) for value in batch]
    return batch[:0]


def is_empty(batch: Mapping[str, object] | Sequence[object]) -> bool:
    """Whether the first tensor of a batch has no examples."""
    first = next(iter(batch.values() if isinstance(batch, Mapping) else batch), None)
    return isinstance(first, torch.Tensor) and first.dim() > 0 and len(first) == 0


def poisson_loader(loader: "Loader", key: bytes, codes: NDArray[np.int64] | None = None) -> "Loader":
    """The same data in Poisson batches of persons; one pass has as many batches as the loader has."""
    batches = PoissonBatches(examples_in(loader), len(loader), key, codes)
    return batched_alike(loader, batch_sampler=batches, collate_fn=CollateEmpty(loader.dataset, loader.collate_fn))
