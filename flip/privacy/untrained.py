"""What of a private model is not trained, and so must not change: it leaves the site without noise.

Imported by `opacus_training`.
"""

from collections.abc import Callable

import torch

from flip.errors import UserError


def untrained(module: torch.nn.Module) -> Callable[[], None]:
    """Remember the buffers and frozen parameters of a module's state; the function raises UserError once one differs.

    A layer that keeps statistics of what it sees (a running mean, a codebook) writes sums of examples there.
    """
    trained = {id(each) for each in module.parameters() if each.requires_grad}
    state = module.state_dict(keep_vars=True)
    kept = {name: each.detach().clone() for name, each in state.items() if id(each) not in trained}

    def check() -> None:
        now = module.state_dict() if kept else {}
        for name, before in kept.items():
            same = (now[name] == before) | ((now[name] != now[name]) & (before != before))  # NaN is NaN
            if not bool(same.all()):
                raise UserError(
                    f"privacy=dp_sgd cannot protect a model that changes '{name}' by itself while it trains, since "
                    "that leaves without noise; take a layer that keeps no statistics"
                )

    return check
