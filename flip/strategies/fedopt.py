"""Server optimizers (Reddi et al., "Adaptive Federated Optimization", ICLR 2021): what they have in common."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flip.errors import UserError
from flip.messages import Payload, Reply
from flip.strategies.corrections import optimized
from flip.strategies.fedavg import FedAvg, State


@dataclass
class FedOpt(FedAvg):
    """The mean change of the sites is taken for a gradient, and an optimizer at the coordinator follows it.

    Only floating-point parameters are optimized. Integer buffers and the running statistics of normalization layers are
    averaged as in FedAvg: an adaptive step could make a variance negative.

    Args:
        server_lr: learning rate of the coordinator's optimizer, above 0.
    """

    server_lr: float = 0.1
    moments: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.server_lr > 0:
            raise UserError(f"strategy.server_lr={self.server_lr}: must be above 0")

    def reach(self, change: float) -> float:
        """The coordinator's step, or the mean of what is averaged."""
        return max(self.server_lr * self.longest(change), change)

    def longest(self, change: float) -> float:
        """The longest direction that `step` can give after any number of rounds of changes of at most `change`."""
        return change

    def start(self, weights: Payload) -> State:
        """Moments of zero, named `moment/parameter`."""
        return {
            f"{moment}/{name}": np.zeros_like(weights[name]) for name in optimized(weights) for moment in self.moments
        }

    def combine(self, weights: Payload, replies: Iterator[Reply], state: State, sites: int) -> tuple[Payload, State]:
        """Average, then step from the old weights along the mean change."""
        after, _ = self.mean(replies)
        if not after:
            return weights, state
        moments = dict(state)
        for name in optimized(after):
            change = after[name] - weights[name]
            step, new = self.step(change, [state[f"{moment}/{name}"] for moment in self.moments])
            after[name] = np.asarray(weights[name] + self.server_lr * step, dtype=weights[name].dtype)
            kept = zip(self.moments, new, strict=True)
            moments |= {f"{moment}/{name}": np.asarray(array, dtype=change.dtype) for moment, array in kept}
        return after, moments

    def step(self, change: np.ndarray, moments: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        """The direction to move in (it is multiplied by `server_lr`) and the new moments, for one parameter."""
        return change, moments


@dataclass
class Adaptive(FedOpt):
    """An adaptive optimizer: x += server_lr * m / (sqrt(v) + tau), with m the running mean of the change.

    Moments start at zero and are not corrected for it, as in the paper.

    Args:
        beta_1: decay of the first moment, in [0, 1).
        tau: adaptivity, above 0: the smaller, the more alike the steps of all parameters.
    """

    beta_1: float = 0.9
    tau: float = 1e-3
    moments: ClassVar[Sequence[str]] = ("m", "v")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta_1 < 1:
            raise UserError(f"strategy.beta_1={self.beta_1}: must be at least 0 and below 1")
        if not self.tau > 0:
            raise UserError(f"strategy.tau={self.tau}: must be above 0")

    def step(self, change: np.ndarray, moments: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        """One adaptive step."""
        first = self.beta_1 * moments[0] + (1 - self.beta_1) * change
        second = self.second(change * change, moments[1])
        return first / (np.sqrt(second) + self.tau), (first, second)

    def longest(self, change: float) -> float:
        """The largest |m| / (sqrt(v) + tau): below |m| / tau, and below `steepest`, by Cauchy and Schwarz."""
        return min(change / self.tau, self.steepest)

    @property
    def steepest(self) -> float:
        """The largest |m| / sqrt(v)."""
        raise NotImplementedError

    def second(self, square: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """The new second moment from the squared change and the old one."""
        raise NotImplementedError


def steepest(beta_1: float, decay: float, part: float) -> float:
    """The largest |m| / sqrt(v) of any series of changes, where v is at least the sum of part * decay^k * change_k^2.

    m is the sum of (1 - beta_1) * beta_1^k * change_k; infinite where beta_1^2 is not below the decay.
    """
    ratio = beta_1**2 / decay if decay > 0 else math.inf
    return (1 - beta_1) / math.sqrt(part * (1 - ratio)) if ratio < 1 else math.inf
