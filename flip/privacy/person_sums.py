"""What the clipped gradients of a site's persons add up to in one optimizer step, before there is noise on it.

Imported by `distributed_dp` when used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from flip.contracts.loaders import examples_in
from flip.errors import UserError
from flip.messages import Fault
from flip.privacy import Broken, PrivateFit
from flip.privacy.opacus_training import Protection, protect, release
from flip.privacy.poisson import poisson_loader
from flip.privacy.released import Floats, Update
from flip.privacy.whose import Whose

ROUNDED = 1 + 1e-4
"""What sums in float64 may add to a change: B gradients of length C at most are summed to within B^2 2^-53 C, twice."""
LARGEST = 600_000  # gradients for which that holds at the very worst


@dataclass(frozen=True)
class PersonSums:
    """The clipped sums of one step, by the parameter's id, with the names of the parameters.

    Args:
        names: by id.
        sums: tensors by id; empty until the step is done.
        by: what a sum is multiplied by: minus the learning rate, over the rows that each site divides by.
        norm: by how much one person changes the result.
    """

    names: Mapping[int, str]
    sums: Mapping[int, torch.Tensor]
    by: float
    norm: float

    @classmethod
    def of(cls, name: str, fit: PrivateFit, *, clip: float, batch: float) -> "PersonSums":
        """Have a fit of one step keep its clipped sums, and change no weight.

        Raises Broken for a fit of several steps, and of so many examples that float64 could add up wrongly what one of
        them changes; UserError as `plain_rate`.
        """
        if fit.steps != 1:
            why = f"privacy={name}: {fit.steps} steps between two sums; noise in the sum hides a person in one alone"
            raise Broken(why, Fault.REFUSED_RULE)
        if (most := examples_in(fit.loader)) > LARGEST:
            raise Broken(f"privacy={name}: {most} examples in one sum, at most {LARGEST}", Fault.REFUSED_RULE)
        release(fit.module)  # of the round before, whose optimizer it still makes
        rate, sums = plain_rate(name, fit.module), dict[int, torch.Tensor]()
        whose = None if fit.whose is None else Whose(fit.whose)
        protect(fit.module, Protection(0.0, clip, batch, fit.noise_key, whose=whose, steps=1, sums=sums))
        fit.loader = poisson_loader(fit.loader, fit.noise_key, fit.whose)
        names = {id(each): own for own, each in fit.module.named_parameters()}
        return cls(names, sums, -rate / batch, rate * clip / batch * ROUNDED)

    def move(self, update: Update) -> tuple[Floats, float]:
        """By how much the step moves the numbers of an update, and by how much one person changes that.

        Raises Broken for a strategy's arrays, on which this puts no bound.
        """
        found = {f"weights/{self.names[key]}": tensor for key, tensor in self.sums.items()}
        pieces = []
        for name in sorted(update.sent):
            if name.startswith("state/"):
                raise Broken("arrays of a strategy, which no clipping of gradients bounds", Fault.REFUSED_RULE)
            array, tensor = update.sent[name], found.get(name)
            piece = np.zeros(array.size) if tensor is None else tensor.cpu().double().numpy().ravel() * self.by
            pieces.append(piece)
        if not all(np.isfinite(each).all() for each in pieces):
            raise Broken("a sum of gradients that is not finite", Fault.NOT_FINITE)
        return np.concatenate(pieces), self.norm


def plain_rate(name: str, module: torch.nn.Module) -> float:
    """The learning rate of a model whose optimizer is plain SGD. Raises UserError for any other."""
    made = module.configure_optimizers()  # type: ignore[operator]  # a LightningModule's
    groups = made.param_groups if type(made) is torch.optim.SGD else []
    rates = {group["lr"] for group in groups}
    others = any(group[key] for group in groups for key in ("momentum", "dampening", "weight_decay", "maximize"))
    if len(rates) != 1 or others:
        raise UserError(
            f"privacy={name}: unit=person needs plain SGD at one rate (model.optimizer._target_=torch.optim.SGD, no "
            "momentum, weight_decay or schedule): the mean over sites of any other's step is no function of their sum"
        )
    return float(rates.pop())
