"""FedAdam (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2)."""

from dataclasses import dataclass

import numpy as np

from flip.errors import UserError
from flip.strategies.fedopt import Adaptive, steepest


@dataclass
class FedAdam(Adaptive):
    """Adam at the coordinator: v = beta_2 * v + (1 - beta_2) * change^2.

    No bias correction, as in the paper. Flower (1.41) multiplies the learning rate of round t, counted from 1, by
    sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)); torch.optim.Adam corrects with t.

    Args:
        beta_2: decay of the second moment, in [0, 1).
    """

    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta_2 < 1:
            raise UserError(f"strategy.beta_2={self.beta_2}: must be at least 0 and below 1")

    @property
    def steepest(self) -> float:
        """Of v as the sum of (1 - beta_2) * beta_2^k * change_k^2."""
        return steepest(self.beta_1, self.beta_2, 1 - self.beta_2)

    def second(self, square: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """Exponential mean of the squares."""
        mean: np.ndarray = self.beta_2 * moment + (1 - self.beta_2) * square
        return mean
