"""FedAdagrad (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2)."""

from dataclasses import dataclass

import numpy as np

from flip.strategies.fedopt import Adaptive, steepest


@dataclass
class FedAdagrad(Adaptive):
    """Adagrad at the coordinator: v = v + change^2, so steps shrink as rounds go by.

    `beta_1` is 0 by default, as in the paper's experiments and in Flower.
    """

    beta_1: float = 0.0

    @property
    def steepest(self) -> float:
        """Of v as the sum of change_k^2."""
        return steepest(self.beta_1, 1.0, 1.0)

    def second(self, square: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """Sum of the squares."""
        total: np.ndarray = moment + square
        return total
