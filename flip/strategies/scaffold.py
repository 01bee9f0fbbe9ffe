"""SCAFFOLD (Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flip.errors import UserError
from flip.messages import Payload, Reply, Task
from flip.strategies.corrections import beside, optimized
from flip.strategies.fedavg import FedAvg, Local, State

if TYPE_CHECKING:
    import torch

PREFIX = "control/"


@dataclass
class Scaffold(FedAvg):
    """Federated averaging with control variates, which take out the drift of each site towards its own optimum.

    The coordinator has a control c, each site its own c_i, all zero at first. Each gradient at the site gains c - c_i;
    after K steps from x to y the site's control becomes c_i - c + (x - y) / (K * learning rate) (the paper's option
    II). The coordinator steps x by server_lr * mean(y - x), and c by (sites asked / sites) * mean(change of c_i).

    The paper weighs sites alike. Here both means have the weights of the strategy (examples, or `site_weights`), so
    that the corrections cancel in the mean: c is the weighted mean of all c_i once every site has taken part. Equal
    `site_weights` give the paper's. Option II supposes plain SGD at the sites with a constant learning rate: another
    optimizer, for which the controls would have the wrong scale, is refused. Only parameters have controls, buffers are
    averaged.

    Args:
        server_lr: the coordinator's learning rate, above 0; 1 takes the sites' mean.
    """

    server_lr: float = 1.0
    _control: State = field(default_factory=dict, init=False, repr=False)
    _own: State = field(default_factory=dict, init=False, repr=False)
    _pairs: "list[tuple[torch.nn.Parameter, torch.Tensor]] | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.server_lr > 0:
            raise UserError(f"strategy.server_lr={self.server_lr}: must be above 0")

    def suits(self, optimizer: "torch.optim.Optimizer", *, scheduled: bool) -> None:
        """Plain SGD with one constant learning rate; raises UserError for anything else."""
        import torch

        groups = optimizer.param_groups
        if type(optimizer) is not torch.optim.SGD:
            found = type(optimizer).__name__
        elif any(group["momentum"] or group["maximize"] for group in groups):
            found = "SGD with momentum" if any(group["momentum"] for group in groups) else "SGD with maximize"
        elif scheduled or len({float(group["lr"]) for group in groups}) > 1:
            found = "a learning rate that changes" if scheduled else "several learning rates"
        else:
            return
        raise UserError(
            f"model.optimizer: strategy=scaffold takes plain SGD with one constant learning rate, not {found}, for "
            "which the sites' controls would have the wrong scale; choose that, or another strategy"
        )

    def start(self, weights: Payload) -> State:
        """Controls of zero."""
        return {f"{PREFIX}{name}": np.zeros_like(weights[name]) for name in optimized(weights)}

    def broadcast(self, state: State) -> State:
        """Every site needs the coordinator's control."""
        return state

    def returns(self, state: State) -> State:
        """Every site returns by how much its control changed."""
        return state

    def reach(self, change: float) -> float:
        """The coordinator's step, or the mean of what is averaged."""
        return max(self.server_lr, 1.0) * change

    def pulls(self, state: State) -> State:
        """The coordinator's control."""
        return {name: array for name, array in state.items() if name.startswith(PREFIX)}

    def combine(self, weights: Payload, replies: Iterator[Reply], state: State, sites: int) -> tuple[Payload, State]:
        """Step the weights and the control."""
        used = 0

        def joined() -> Iterator[Reply]:
            nonlocal used
            for reply in replies:
                used += reply.fault is None
                yield replace(reply, weights={**reply.weights, **reply.state})

        mean, _ = self.mean(joined())
        if not mean:
            return weights, state
        control = {name: old + np.asarray(used / sites, old.dtype) * mean.pop(name) for name, old in state.items()}
        for name in optimized(mean):
            rate = np.asarray(self.server_lr, mean[name].dtype)
            mean[name] = weights[name] + rate * (mean[name] - weights[name])
        return mean, control

    def before_fit(self, local: Local, task: Task) -> None:
        """Take the coordinator's control from the task and the site's own from its store."""
        self._control = {name: array for name, array in task.state.items() if name.startswith(PREFIX)}
        self._own = local.load("control") or {name: np.zeros_like(array) for name, array in self._control.items()}
        self._pairs = None

    def correct(self, parameters: "Mapping[str, torch.nn.Parameter]") -> None:
        """Add c - c_i to every gradient."""
        import torch

        if self._pairs is None:
            difference = {name.removeprefix(PREFIX): array - self._own[name] for name, array in self._control.items()}
            self._pairs = beside(parameters, difference)
        moved = [(parameter.grad, tensor) for parameter, tensor in self._pairs if parameter.grad is not None]
        if moved:
            torch._foreach_add_([gradient for gradient, _ in moved], [tensor for _, tensor in moved])

    def after_fit(self, local: Local, before: Payload, after: Payload) -> Payload:
        """Update the site's control; returns by how much it changed."""
        scale = 1 / (local.steps * local.learning_rate)
        changes = {}
        for name, control in self._control.items():
            key = name.removeprefix(PREFIX)
            changes[name] = np.asarray((before[key] - after[key]) * scale - control, dtype=control.dtype)
        self._own = {name: self._own[name] + change for name, change in changes.items()}
        local.save("control", self._own)
        return changes
