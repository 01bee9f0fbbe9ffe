"""FedProx (Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flip.errors import UserError
from flip.messages import Payload, Task
from flip.strategies.corrections import beside
from flip.strategies.fedavg import FedAvg, Local

if TYPE_CHECKING:
    import torch


@dataclass
class FedProx(FedAvg):
    """Federated averaging in which each site is held near the weights it was sent.

    The site's objective gains (mu / 2) * |w - w0|^2, so each gradient gains mu * (w - w0). Parameters that do not
    travel have no w0 and are left alone.

    Args:
        mu: strength of the pull towards the sent weights, 0 or more; 0 is FedAvg.
    """

    mu: float = 0.01
    _sent: Payload = field(default_factory=dict, init=False, repr=False)
    _pairs: "list[tuple[torch.nn.Parameter, torch.Tensor]] | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mu < 0:
            raise UserError(f"strategy.mu={self.mu}: must be 0 or more")

    def before_fit(self, local: Local, task: Task) -> None:
        """Remember the sent weights."""
        self._sent, self._pairs = task.weights, None

    def correct(self, parameters: "Mapping[str, torch.nn.Parameter]") -> None:
        """Add mu * (w - w0) to every gradient."""
        import torch

        if self._pairs is None:
            self._pairs = beside(parameters, self._sent)
        moved = [(parameter.grad, parameter, sent) for parameter, sent in self._pairs if parameter.grad is not None]
        if moved:
            gradients, parameters_now, anchors = (list(column) for column in zip(*moved, strict=True))
            with torch.no_grad():
                torch._foreach_add_(gradients, torch._foreach_sub(parameters_now, anchors), alpha=self.mu)
