"""Sites under noise without any training: what each would send is written down, and paid for as a fit is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from flip.messages import Reply, Task
from flip.privacy import Entry, PrivateFit
from flip.privacy.distributed_dp import DistributedDP
from flip.privacy.local_dp import LocalDP
from tests.privacy.secure.parties import Parties

ROUNDS = 8


class Net(torch.nn.Module):
    """Numbers that are trained, and a counter that is not."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = torch.nn.Parameter(torch.zeros(size))
        self.register_buffer("count", torch.tensor(3))


@dataclass
class Noised(Parties):
    """Five sites that weigh the same; `moves` is by how much each moves the numbers that it is sent.

    Attributes:
        moves: by site, float64 [size]; none is 0.
        spent: what the ledgers hold, in the order of the fits.
        states: the strategy's arrays that a site sends.
        count: the counter that a site sends.
    """

    moves: Mapping[str, np.ndarray] = field(default_factory=dict)
    spent: list[Entry] = field(default_factory=list)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    count: int = 3

    def trained(self, task: Task, site: str) -> Reply:
        """What a site would send, once it is paid for."""
        self.prepare(task, site)
        net = task.weights["net"] + self.moves.get(site, np.zeros(self.size)).astype(np.float32)
        return Reply(site, task.digest, 1, {}, {"net": net, "count": np.asarray(self.count)}, self.states)

    def prepare(self, task: Task, site: str) -> None:
        """As the site does before a fit."""
        key = hashlib.sha256(f"{site} {task.digest}".encode()).digest()
        fit = PrivateFit(Net(self.size), (), 5, 5 * ROUNDS, task, key, [])  # type: ignore[arg-type]
        self.mechanism.prepare(fit)
        self.spent += fit.ledger

    def released(self, number: int = 0) -> np.ndarray:
        """By how much the numbers move that the coordinator can open of a round: the mean, or one site's."""
        task = self.task(number)
        if isinstance(self.mechanism, LocalDP):
            weights = replace(self.answer(task, "a")).weights
        else:
            found = self.summed(task)
            assert not any(reply.fault for reply in found.values()), self.whys()
            weights = found["a"].weights
        return weights["net"].astype(np.float64) - task.weights["net"]


def in_sum(**changes: object) -> DistributedDP:
    """Noise inside a sum."""
    return DistributedDP(**{"clip": 1.0, "delta": 1e-5, "noise_multiplier": 1.0, **changes})  # type: ignore[arg-type]


def local(**changes: object) -> LocalDP:
    """Noise outside a sum."""
    return LocalDP(**{"clip": 1.0, "delta": 1e-5, "noise_multiplier": 1.0, **changes})  # type: ignore[arg-type]


def along(size: int, place: int, by: float) -> np.ndarray:
    """A move of one number."""
    found = np.zeros(size)
    found[place] = by
    return found
