"""FedAvgM (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flip.errors import UserError
from flip.strategies.fedopt import FedOpt


@dataclass
class FedAvgM(FedOpt):
    """Federated averaging with momentum at the coordinator: v = momentum * v + change; x += server_lr * v.

    Args:
        momentum: decay of the velocity, in [0, 1); 0 with server_lr 1 is FedAvg.
    """

    server_lr: float = 1.0
    momentum: float = 0.9
    moments: ClassVar[Sequence[str]] = ("velocity",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise UserError(f"strategy.momentum={self.momentum}: must be at least 0 and below 1")

    def longest(self, change: float) -> float:
        """The velocity after many equal changes."""
        return change / (1 - self.momentum)

    def step(self, change: np.ndarray, moments: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        """One step of momentum."""
        velocity = self.momentum * moments[0] + change
        return velocity, (velocity,)
