"""Krum and Multi-Krum (Blanchard et al., "Machine learning with adversaries", NeurIPS 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flip.errors import UserError
from flip.messages import Payload
from flip.messages.weights import BLOCK
from flip.strategies.fedavg import move
from flip.strategies.robust import Robust, refuse_hostile


@dataclass
class Krum(Robust):
    """The model of the site that lies closest to its nearest others; with `keep` above 1 (Multi-Krum) the mean of many.

    A site's score is the sum of squared distances to its n - hostile - 2 nearest of n sites, over all floating-point
    numbers that travel; the lowest are kept, of equal ones the first by name. Numbers of examples are ignored.

    Args:
        hostile: sites that may be hostile, at least 1; a round needs at least 2 * hostile + 3 sites.
        keep: sites whose models are averaged, at least 1 and at most those that are not hostile; 1 is Krum.
    """

    hostile: int = 1
    keep: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_hostile(self.hostile)
        if self.keep < 1:
            raise UserError(f"strategy.keep={self.keep}: must be 1 or more")

    @property
    def least_sites(self) -> int:
        """2 * hostile + 3, as in the paper's proof, and never fewer than are kept and hostile."""
        return max(2 * self.hostile + 3, self.keep + self.hostile)

    @property
    def largest_part(self) -> float:
        """The mean is of `keep` sites; of 1 every other site is sent one site's own model."""
        return 1 / self.keep

    def rule(self, replies: Sequence[Payload]) -> Payload:
        """The mean of the sites with the lowest scores; integer arrays are the first one's of them."""
        apart = distances(replies)
        np.fill_diagonal(apart, np.inf)
        nearest = len(replies) - self.hostile - 2
        scores = np.sort(apart, axis=1)[:, :nearest].sum(axis=1)
        kept = [replies[index] for index in sorted(np.argsort(scores, kind="stable")[: self.keep])]
        return {name: mean_of([each[name] for each in kept]) for name in kept[0]}


def distances(replies: Sequence[Payload]) -> np.ndarray:
    """Squared Euclidean distances, sites x sites, summed array by array and a block at a time."""
    found = np.zeros((len(replies), len(replies)))
    for name, array in replies[0].items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        flat = [each[name].reshape(-1) for each in replies]
        size = max(1, BLOCK // len(flat))
        for start in range(0, array.size, size):
            block = np.stack([each[start : start + size] for each in flat]).astype(np.float64)
            for row in range(1, len(flat)):
                moved = block[:row] - block[row]
                found[row, :row] += np.einsum("ij,ij->i", moved, moved)
    return found + found.T


def mean_of(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of arrays alike, with each the same weight; of integer ones the first."""
    mean = np.array(arrays[0], order="C")
    if np.issubdtype(mean.dtype, np.floating):
        for number, array in enumerate(arrays[1:], start=2):
            move(mean, array, 1 / number)
    return mean
