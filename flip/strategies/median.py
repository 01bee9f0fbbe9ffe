"""Coordinate-wise median (Yin et al., "Byzantine-robust distributed learning", ICML 2018)."""

from dataclasses import dataclass

import numpy as np

from flip.strategies.robust import Coordinatewise


@dataclass
class Median(Coordinatewise):
    """Each number of the model is the median over the sites: fewer than half of them cannot move it beyond the others'.

    Numbers of examples are ignored, so a small site counts as much as a large one.
    """

    @property
    def least_sites(self) -> int:
        """3: the median of two is their mean, which either can move anywhere."""
        return 3

    @property
    def largest_part(self) -> float:
        """1: with an odd number of sites each number is one site's own."""
        return 1.0

    def numbers(self, block: np.ndarray) -> np.ndarray:
        """The median over the sites; of an even number the mean of the middle two."""
        median: np.ndarray = np.median(block.astype(np.float64), axis=0)
        return median
