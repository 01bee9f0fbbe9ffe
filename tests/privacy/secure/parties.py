"""Sites and a coordinator of a secure sum without any training: what each site trained is written down."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flip.config.policy import Policy
from flip.messages import Fault, Reply, Task
from flip.privacy import AtSite, Broken
from flip.privacy.secure_aggregation import SecureAggregation
from flip.site.counters import Counter
from flip.site.state import LocalState
from flip.strategies.fedavg import FedAvg

NAMES = ("a", "b", "c", "d", "e")
EXAMPLES = {"a": 10, "b": 30, "c": 25, "d": 5, "e": 40}


def weights_of(size: int) -> dict[str, np.ndarray]:
    """Weights that are sent: numbers, and a counter as batch norm has."""
    return {"net": np.linspace(-1, 1, size, dtype=np.float32), "count": np.array(3, np.int64)}


@dataclass
class Parties:
    """Five sites, each of which adds noise of its own to what it is sent.

    Attributes:
        folder: under which each site has its store.
        strategy: whose weights the mean has.
        lost: (step, site) that never answers.
        change: what happens to a task on its way to a site.
        tap: every task with its site and its reply, in order.
    """

    folder: Path
    strategy: FedAvg = field(default_factory=lambda: FedAvg(rounds=2))
    names: Sequence[str] = NAMES
    mechanism: SecureAggregation = field(default_factory=SecureAggregation)
    size: int = 200
    scale: float = 1.0
    policy: Policy = field(default_factory=lambda: Policy(1, 1))
    deployed: bool = False
    peers: dict = field(default_factory=dict)
    lost: set = field(default_factory=set)
    change: Callable[[Task, str], Task] = lambda task, site: task
    tap: list = field(default_factory=list)

    def task(self, number: int = 0, run: str = "run", **state) -> Task:
        return Task(run, "study", number, "fit", weights_of(self.size), state, {}, "{}")

    def trained(self, task: Task, site: str) -> Reply:
        """What a site trained, in the clear."""
        rng = np.random.default_rng([self.names.index(site), task.round])
        moved = rng.normal(size=self.size).astype(np.float32) * np.float32(self.scale)
        net, count = task.weights["net"] + moved, task.weights["count"] + 5
        state = {name: (array + moved[: array.size]).astype(array.dtype) for name, array in task.state.items()}
        return Reply(site, task.digest, EXAMPLES[site], {"loss": 0.5}, {"net": net, "count": np.asarray(count)}, state)

    def lent(self, site: str, task: Task) -> AtSite:
        store = LocalState(self.folder / site, task.run)
        key = site.encode() * 32
        once = Counter(self.folder / site / "once.jsonl")
        return AtSite(
            site, key[:32], store, None, self.policy, self.strategy.weight,
            lambda thing, question: once.take(thing, question, 1), self.deployed, self.peers,
        )  # fmt: skip

    def answer(self, task: Task, site: str) -> Reply:
        """As a site answers behind its gate. Raises Broken."""
        wrapped = self.mechanism.wrap_answer(lambda each: self.trained(each, site), self.lent(site, task))
        return wrapped(task)

    def ask(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        for site in names:
            if (task.step, site) in self.lost:
                yield Reply(site, task.digest, fault=Fault.LOST)
                continue
            try:
                reply = self.answer(self.change(task, site), site)
            except Broken as error:
                reply = Reply(site, task.digest, fault=error.fault)
                self.tap.append((task, site, str(error)))
            self.tap.append((task, site, reply))
            yield replace(reply, task_digest=task.digest)

    def plain(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        """The same sites without the mechanism."""
        for site in names:
            yield self.trained(task, site)

    def summed(self, task: Task | None = None, names: Sequence[str] | None = None) -> dict[str, Reply]:
        """One round's replies as the strategy sees them, by site."""
        self.mechanism.lend(self.strategy.weight)
        asked = self.mechanism.wrap_ask(self.ask)
        return {reply.site: reply for reply in asked(task or self.task(), names or self.names)}

    def whys(self) -> list[str]:
        """Why sites refused."""
        return [each for *_, each in self.tap if isinstance(each, str)]


def mean_of(parties: Parties, task: Task, names: Sequence[str]) -> np.ndarray:
    """The weighted mean over sites in the clear, exact to float64."""
    parts = [parties.trained(task, site).weights["net"].astype(np.float64) * EXAMPLES[site] for site in names]
    return np.sum(parts, axis=0) / sum(EXAMPLES[site] for site in names)
