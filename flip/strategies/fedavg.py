"""Federated averaging (McMahan et al., AISTATS 2017), and the base that every other strategy overrides in part."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from flip.errors import UserError, nearest
from flip.messages import Ask, Payload, Reply, Task
from flip.messages.weights import BLOCK
from flip.strategies.stop import Stop

if TYPE_CHECKING:
    import torch

State = Mapping[str, np.ndarray]


class Local(Protocol):
    """What the site lends to the strategy's half during one fit."""

    steps: int
    """Optimizer steps that this fit takes (known before) or took (after)."""

    learning_rate: float
    """Learning rate of the first parameter group at the start of the fit."""

    def load(self, name: str) -> State | None:
        """Arrays saved under `name` in the latest earlier round of this run at this site; None before the first."""

    def save(self, name: str, arrays: State) -> None:
        """Keep arrays at the site for its next rounds. They never travel."""


@dataclass
class FedAvg:
    """Weighted mean of the sites' weights.

    Args:
        rounds: federated rounds, at least 1.
        fraction: part of the training sites that is asked each round, in (0, 1]; rounded up, at least one site.
        min_sites: the run fails when fewer sites than this give a usable answer in a round; None: when one of those
            that it asks gives none, or one that trains cannot take part. A live study declares a number.
        site_weights: weight by site name; None weighs by number of training examples.
        share: patterns (fnmatch) of the parameter names that travel; the others stay at each site.
        stop: when the study ends before its last round, the arguments of `Stop`; None never.
        most_change: largest root mean square by which a round's training at a site moves the numbers that travel. Sites
            refuse weights that moved by more than the strategy makes of it; None: each by its policy alone.
    """

    rounds: int
    fraction: float = 1.0
    min_sites: int | None = None
    site_weights: Mapping[str, float] | None = None
    share: Sequence[str] = ("*",)
    stop: Mapping[str, Any] | None = None
    most_change: float | None = None
    relays: ClassVar[bool] = False  # whether a site is sent what another one trained in the same round
    needs: str = field(default="sum", init=False)  # "sum": only weighted sums of replies are used; "each": each apart

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"strategy.rounds={self.rounds}: must be 1 or more")
        if not 0 < self.fraction <= 1:
            raise UserError(f"strategy.fraction={self.fraction}: must be above 0 and at most 1")
        if self.min_sites is not None and self.min_sites < 1:
            raise UserError(f"strategy.min_sites={self.min_sites}: must be 1 or more, or null for every site")
        for site, weight in (self.site_weights or {}).items():
            if not 0 <= weight < math.inf:
                raise UserError(f"strategy.site_weights.{site}={weight}: must be 0 or more")
        if self.most_change is not None and not 0 < self.most_change < math.inf:
            raise UserError(f"strategy.most_change={self.most_change}: must be above 0, or null")
        _ = self.early  # raises for its mistakes

    @property
    def early(self) -> Stop | None:
        """When the study ends before its last round. Raises UserError with every mistake in `stop`."""
        return Stop.read(self.stop) if self.stop is not None else None

    @property
    def least_sites(self) -> int:
        """Usable replies without which a round cannot be what the strategy says."""
        return 1

    @property
    def largest_part(self) -> float | None:
        """Largest part of the new weights that can be one site's; None where weights or examples decide it."""
        return 1.0 if self.relays else None  # the next site is sent what this one trained

    def suits(self, optimizer: "torch.optim.Optimizer", *, scheduled: bool) -> None:
        """Raises UserError for an optimizer of the sites with which the strategy would not do what it says.

        `scheduled` says that its learning rate changes in a fit.
        """

    # What a site may be sent: the coordinator could send anything.

    @property
    def stops(self) -> int:
        """Fits, one after the other, of which a round's weights come."""
        return 1

    def reach(self, change: float) -> float:
        """Root mean square by which a round moves the weights, where each site's training moves them by `change`."""
        return change  # a mean lies within the farthest of its parts

    def pulls(self, state: State) -> State:
        """Those of the coordinator's arrays that every step at a site adds to the gradient."""
        return {}

    # The coordinator's half.

    def start(self, weights: Payload) -> State:
        """The strategy's own arrays before round 0 (server moments, controls); saved after every round."""
        return {}

    def select(self, sites: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Sample the sites of one round by name, without replacement, in the order of the names."""
        number = max(1, self.in_round(len(sites)))
        return sorted(rng.choice(sorted(sites), size=number, replace=False).tolist())

    def in_round(self, sites: int) -> int:
        """How many of so many sites that train the fraction is; 1e-9 is what float64 may add to it."""
        return math.ceil(self.fraction * sites - 1e-9)

    def round(
        self, ask: Ask, task: Task, sites: Sequence[str], state: State, rng: np.random.Generator
    ) -> tuple[Payload, State]:
        """One round: select sites, ask each to fit from `task.weights`, combine. Returns the new weights and state."""
        chosen = self.select(sites, rng)
        replies = ask(replace(task, step="fit", state={**task.state, **self.broadcast(state)}), chosen)
        return self.combine(task.weights, replies, state, len(sites))

    def broadcast(self, state: State) -> State:
        """The arrays that every site needs for its half of the strategy."""
        return {}

    def returns(self, state: State) -> State:
        """Arrays like those that each site's half must return besides the weights: names, shapes and types."""
        return {}

    def combine(self, weights: Payload, replies: Iterator[Reply], state: State, sites: int) -> tuple[Payload, State]:
        """Fold the replies, one by one and in site order, into the next weights; `sites` is how many train in all."""
        mean, _ = self.mean(replies)
        return (mean or weights), state

    def weight(self, reply: Reply) -> float:
        """A site's weight in the mean."""
        if self.site_weights is None:
            return float(reply.examples)
        if reply.site not in self.site_weights:
            raise UserError(f"strategy.site_weights: no weight for site '{reply.site}'; add it, or set it to null")
        return float(self.site_weights[reply.site])

    def mean(self, replies: Iterator[Reply]) -> tuple[dict[str, np.ndarray], float]:
        """Weighted mean of the replies' weights, in one pass; integer arrays are the first site's.

        A reply with a fault or of weight 0 does not count; the mean is empty if none counts.
        Returns the mean and the total weight.
        """
        total = 0.0
        mean: dict[str, np.ndarray] = {}
        for reply in replies:
            weight = self.weight(reply) if reply.fault is None else 0.0
            if weight == 0:
                continue
            total += weight
            for name, array in reply.weights.items():
                if name not in mean:
                    mean[name] = np.array(array, order="C")
                elif np.issubdtype(array.dtype, np.floating):
                    move(mean[name], array, weight / total)
        return mean, total

    # The site's half. Its attributes do not outlast the site's process: what a later round needs, `local.save` keeps.

    def shared(self, module: "torch.nn.Module") -> list[str]:
        """Names of the module's state that travel, sorted.

        Raises UserError for a pattern that no name matches, and where nothing that is trained would travel.
        """
        from flip.messages.weights import plain_name

        names = sorted(plain_name(name) for name in module.state_dict())
        for pattern in self.share:
            if not any(fnmatch(name, pattern) for name in names):
                raise UserError(
                    f"strategy.share: '{pattern}' matches no parameter of the model; {nearest(pattern, names)}"
                )
        travels = [name for name in names if any(fnmatch(name, pattern) for pattern in self.share)]
        return trained_among(module, travels)

    @property
    def own(self) -> "FedAvg | None":
        """This site's half of the fit of a whole model that it keeps for itself and is scored on; None: it has none."""
        return None

    def before_fit(self, local: Local, task: Task) -> None:
        """Prepare this site's half; `task.weights` and `task.state` are what the coordinator sent."""

    def correct(self, parameters: "Mapping[str, torch.nn.Parameter]") -> None:
        """Change the gradients in place, just before each step of the innermost optimizer."""

    def after_fit(self, local: Local, before: Payload, after: Payload) -> Payload:
        """What this site's half returns to the coordinator besides the weights."""
        return {}


def trained_among(module: "torch.nn.Module", travels: list[str]) -> list[str]:
    """The same names. Raises UserError where none is of a parameter that is trained: no round would change anything."""
    from flip.messages.weights import plain_name

    named = module.named_parameters(remove_duplicate=False)
    trained = {plain_name(name) for name, parameter in named if parameter.requires_grad}
    if not trained & {*travels}:
        raise UserError(
            "strategy.share: no parameter that is trained travels, so the rounds would change nothing; "
            f"{nearest('', trained)}"
        )
    return travels


def move(mean: np.ndarray, array: np.ndarray, part: float) -> None:
    """Move a running mean towards an array in place, a block at a time: all that is computed beside them is small.

    As a running mean equal arrays stay equal to the bit, and large weights do not overflow float16.
    """
    into, new = mean.reshape(-1), array.reshape(-1)  # views: `mean` is our own copy
    for start in range(0, into.size, BLOCK):
        block = slice(start, start + BLOCK)
        into[block] += (new[block] - into[block]) * array.dtype.type(part)
