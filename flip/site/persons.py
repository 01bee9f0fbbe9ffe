"""Whose the examples of a split are, and whose those were that a fit has drawn: what every rule of disclosure counts.

A dataset says it by `whose(split) -> int64 [n]`, a code of the person of each example of "train", "validate" or "test",
in any order, and in its batches by the key `person`, int64 [n], whose each row is. Under a policy with a minimum cell
above 1 a dataset that does not say it is refused; under any other each example counts as a person's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flip.contracts import FederatedDataModule, ListsPersons, NamesPersons
from flip.contracts.loaders import examples_in
from flip.messages import Fault
from flip.site.refusal import Refusal

if TYPE_CHECKING:
    import torch

    from flip.contracts.dataset import Loader

PERSON = "person"  # key of a batch: whose rows they are, int64 [n]
SPLITS = ("train", "validate", "test")
KEPT = 1000  # batches of which the codes are held before they are put together


@dataclass(frozen=True)
class Persons:
    """The persons of a split; `rows` int64 [persons] are their examples, the most first."""

    rows: NDArray[np.int64]

    @classmethod
    def of(cls, codes: NDArray[np.int64]) -> "Persons":
        """From the code of each example's person, int64 [n]."""
        return cls(np.sort(np.unique(codes, return_counts=True)[1])[::-1].astype(np.int64))

    @property
    def number(self) -> int:
        """Distinct persons."""
        return len(self.rows)

    @property
    def examples(self) -> int:
        """Examples of all persons."""
        return int(self.rows.sum())

    def behind(self, examples: ArrayLike) -> NDArray[np.int64]:
        """The fewest persons that so many examples of the split can be of; of any shape."""
        counts = np.asarray(examples)
        fewest: NDArray[np.int64] = np.searchsorted(self.rows.cumsum(), counts) + 1
        return np.where(counts > 0, fewest, 0).clip(max=self.number)

    def examples_of(self, persons: int) -> int:
        """The fewest examples that are of so many persons, whichever they are; 1 or more."""
        return int(self.rows[: persons - 1].sum()) + 1


def persons_of(data: FederatedDataModule, split: str, cell: int) -> Persons:
    """The persons of a split of a dataset. Raises Refusal under a minimum cell above 1 where the dataset cannot say."""
    if isinstance(data, NamesPersons):
        return Persons.of(np.asarray(data.whose(split), np.int64))
    if cell > 1:
        raise Refusal(
            Fault.REFUSED_FEW_PERSONS,
            f"{type(data).__name__} does not say whose its examples are: give it whose(split) and the batch key "
            f"{PERSON}, or allow minimum_cell: 1",
        )
    return Persons.of(np.arange(split_size(data, split)))


def persons_named(data: FederatedDataModule) -> Sequence[str]:
    """The site's own names of the persons whose rows a cohort has; none where a dataset does not know them."""
    return data.person_names() if isinstance(data, ListsPersons) else ()


def loader(data: FederatedDataModule, split: str) -> "Loader | None":
    """The loader of a split ("train", "validate" or "test"), or None where the data have no such split."""
    if split == "train":
        return data.train_dataloader() or None
    return cast("Loader", (data.val_dataloader if split == "validate" else data.test_dataloader)() or None)


def split_size(data: FederatedDataModule, split: str) -> int:
    """Number of examples in a split ("train", "validate" or "test")."""
    found = loader(data, split)
    return examples_in(found) if found is not None else 0


class Drawn:
    """The persons in the batches that a fit draws, counted as they pass."""

    def __init__(self) -> None:
        self.by_batch: list[int] = []  # distinct persons of each batch that says whose it is
        self._codes: list[torch.Tensor] = []
        self._unknown = False

    def add(self, batch: object) -> None:
        """Count whose a batch is."""
        if not (isinstance(batch, Mapping) and PERSON in batch):
            self._unknown = True
            return
        self._codes.append(batch[PERSON])
        self.by_batch.append(len({*batch[PERSON].tolist()}))
        if len(self._codes) > KEPT:
            self._codes = [self._distinct()]

    def _distinct(self) -> "torch.Tensor":
        import torch

        return torch.cat(self._codes).unique() if self._codes else torch.zeros(0)

    @property
    def number(self) -> int:
        """Distinct persons so far; 0 where a batch did not say whose it was."""
        return 0 if self._unknown else len(self._distinct())
