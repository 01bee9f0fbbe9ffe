"""Cyclic weight transfer (Chang et al., "Distributed deep learning networks among institutions", JAMIA 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from flip.errors import UserError
from flip.messages import Ask, Payload, Task
from flip.strategies.fedavg import FedAvg, State


@dataclass
class Cyclic(FedAvg):
    """The weights travel from site to site; each trains on what the one before it returned, and nothing is averaged.

    Every site is visited once in a cycle. A round is one cycle, or with `visits` so many stops of it. A site with a
    fault is passed over: the next one continues from the weights before it. `fraction` and `site_weights` have no
    meaning here.

    Args:
        visits: sites visited in one round, at least 1; None visits all. 1 is the published benchmark's round (FLamby).
        shuffle: draw a new order for each cycle; otherwise by name.
    """

    visits: int | None = None
    shuffle: bool = True
    relays: ClassVar[bool] = True
    needs: str = field(default="each", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visits is not None and self.visits < 1:
            raise UserError(f"strategy.visits={self.visits}: must be 1 or more, or null for every site")
        if self.fraction != 1 or self.site_weights is not None:
            raise UserError(
                "strategy=cyclic visits sites one by one: leave fraction at 1.0 and site_weights at null; use visits"
            )

    @property
    def stops(self) -> int:
        """As many as are visited; with `visits` null a site cannot know it, and takes one."""
        return self.visits or 1

    def start(self, weights: Payload) -> State:
        """An empty queue: the first round draws the first cycle."""
        return {"queue": np.zeros(0, dtype=np.int64)}

    def round(
        self, ask: Ask, task: Task, sites: Sequence[str], state: State, rng: np.random.Generator
    ) -> tuple[Payload, State]:
        """Visit the next sites of the cycle. The state's queue holds the stops still to come, as places in the sorted
        names."""
        names = sorted(sites)
        queue = [int(place) for place in state["queue"] if place < len(names)]
        weights = task.weights
        for _ in range(self.visits or len(names)):
            if not queue:
                queue = (rng.permutation(len(names)) if self.shuffle else np.arange(len(names))).tolist()
            stop = names[queue.pop(0)]
            for reply in ask(replace(task, step="fit", weights=weights), [stop]):
                weights = weights if reply.fault is not None else dict(reply.weights)
        return weights, {"queue": np.array(queue, dtype=np.int64)}
