"""FedYogi (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2)."""

from dataclasses import dataclass

import numpy as np

from flip.errors import UserError
from flip.strategies.fedopt import Adaptive, steepest


@dataclass
class FedYogi(Adaptive):
    """Yogi at the coordinator: v = v - (1 - beta_2) * change^2 * sign(v - change^2).

    The second moment moves by the size of the squared change, not by its distance, so it forgets more slowly than
    Adam's.

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
        """The new v is at least beta_2^2 * v + beta_2 * (1 - beta_2) * change^2, on either side of the square."""
        return steepest(self.beta_1, self.beta_2**2, self.beta_2 * (1 - self.beta_2))

    def second(self, square: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """The old moment, moved towards the square."""
        moved: np.ndarray = moment - (1 - self.beta_2) * square * np.sign(moment - square)
        return moved
