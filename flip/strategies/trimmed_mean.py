"""Coordinate-wise trimmed mean (Yin et al., "Byzantine-robust distributed learning", ICML 2018)."""

from dataclasses import dataclass

import numpy as np

from flip.strategies.robust import Coordinatewise, refuse_hostile


@dataclass
class TrimmedMean(Coordinatewise):
    """Each number of the model is the mean over the sites without the largest and the smallest `hostile` of them.

    Numbers of examples are ignored, so a small site counts as much as a large one.

    Args:
        hostile: sites that may be hostile, at least 1: so many numbers are cut from each end.
    """

    hostile: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_hostile(self.hostile)

    @property
    def least_sites(self) -> int:
        """2 * hostile + 1: one number must be left."""
        return 2 * self.hostile + 1

    @property
    def largest_part(self) -> float:
        """Of the fewest sites with which a round goes on, those that are not cut share each number alike."""
        return 1 / max(1, (self.min_sites or 0) - 2 * self.hostile)

    def numbers(self, block: np.ndarray) -> np.ndarray:
        """The mean of what is left of each sorted column."""
        kept = np.sort(block.astype(np.float64), axis=0)[self.hostile : len(block) - self.hostile]
        mean: np.ndarray = kept.mean(axis=0)
        return mean
