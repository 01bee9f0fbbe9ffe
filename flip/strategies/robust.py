"""What the rules have in common that hold when some sites are hostile or broken: they look at each reply apart."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from flip.errors import UserError
from flip.messages import Payload, Reply
from flip.messages.weights import BLOCK
from flip.strategies.fedavg import FedAvg, State


@dataclass
class Robust(FedAvg):
    """A rule over all replies of a round, in which every site counts the same, whatever its number of examples.

    A site says itself how many examples it has, so a hostile one would choose its weight: `site_weights` has no meaning
    here either. A reply with a fault or without examples does not count; with fewer usable ones than `least_sites`
    the weights stay, and the round fails by `min_sites`. Replies are mapped from disk and read a block at a time.
    """

    needs: str = field(default="each", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site_weights is not None:
            raise UserError("strategy.site_weights: every site counts the same in this strategy; leave it at null")

    def weight(self, reply: Reply) -> float:
        """The same for every site that has examples."""
        return float(reply.examples > 0)

    def combine(self, weights: Payload, replies: Iterator[Reply], state: State, sites: int) -> tuple[Payload, State]:
        """The rule over the usable replies; integer arrays are the first site's, as in federated averaging."""
        usable = [reply.weights for reply in replies if reply.fault is None and self.weight(reply) > 0]
        return (self.rule(usable) if len(usable) >= self.least_sites else weights), state

    def rule(self, replies: Sequence[Payload]) -> Payload:
        """The new weights from those of at least `least_sites` sites, in site order."""
        raise NotImplementedError


@dataclass
class Coordinatewise(Robust):
    """A rule that takes each number of the model by itself, over the sites."""

    def reach(self, change: float) -> float:
        """Below sqrt(2) times a site's change.

        Where m of n sorted numbers are cut from each end, n - m of them are at least as far from 0 as the mean of the
        rest, or as their median; so its square is at most n / (n - m) < 2 times their mean square.
        """
        return math.sqrt(2) * change

    def rule(self, replies: Sequence[Payload]) -> Payload:
        """The rule for each number; of integer arrays the first site's."""
        first = replies[0]
        return {name: self.array([each[name] for each in replies]) for name in first}

    def array(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """One array, in blocks of which those of all sites together are small."""
        made = np.array(arrays[0], order="C")
        if not np.issubdtype(made.dtype, np.floating):
            return made
        into, flat = made.reshape(-1), [each.reshape(-1) for each in arrays]
        size = max(1, BLOCK // len(flat))
        for start in range(0, into.size, size):
            block = slice(start, start + size)
            into[block] = self.numbers(np.stack([each[block] for each in flat]))
        return made

    def numbers(self, block: np.ndarray) -> np.ndarray:
        """The rule down the first axis (sites) of an array of sites x numbers."""
        raise NotImplementedError


def refuse_hostile(hostile: int) -> None:
    """Raise UserError for a number of hostile sites that cannot be."""
    if hostile < 1:
        raise UserError(f"strategy.hostile={hostile}: must be 1 or more; for none choose strategy=fedavg")
