"""Differentially private SGD (Abadi et al., CCS 2016), by Opacus inside Lightning."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from flip.contracts import ComparesExamples
from flip.contracts.dataset import examples_in
from flip.errors import UserError
from flip.privacy import Entry, Mechanism, PrivateFit, Spent

if TYPE_CHECKING:
    import torch


@dataclass
class DPSGD(Mechanism):
    """Each example's gradient is clipped, Gaussian noise is added to their sum, and batches are Poisson samples.

    The guarantee is (epsilon, delta)-differential privacy of a site's examples (unit: record, add or remove one) for
    the weights and the strategy's arrays that the site sends, over all its fits of the run, by the RDP accountant of
    Opacus. A person with several examples is protected less. Not covered: the number of examples, losses, metrics, and
    statistics agreed before training. Batches come from the loader's data at the rate 1 / number of batches, as in
    Opacus.

    Args:
        max_grad_norm: L2 norm to which each example's gradient is clipped, above 0.
        delta: probability with which epsilon may not hold, in (0, 1); well below 1 / examples of a site.
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`, above 0.
        target_epsilon: epsilon to reach after all rounds of the study, above 0: the noise is computed from it. A study
            that `strategy.stop` ends before spends less. Give one of the two.
    """

    max_grad_norm: float
    delta: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            problems.append(
                "privacy.dp_sgd: give exactly one of noise_multiplier and target_epsilon, and null for the other"
            )
        for name in ("max_grad_norm", "noise_multiplier", "target_epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problems.append(f"privacy.dp_sgd.{name}={value}: must be above 0")
        if not 0 < self.delta < 1:
            problems.append(f"privacy.dp_sgd.delta={self.delta}: must be above 0 and below 1")
        if problems:
            raise UserError(problems)

    def check(self, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
        """Raise UserError for a model with a layer that mixes the examples of a batch, or keeps their statistics.

        Also for a loss that compares them: each gradient is clipped by itself, but one example moves all of them.
        Also for settings that would change the gradients: accumulation, clipping and 16-bit precision.
        """
        refused = sorted({"accumulate_grad_batches", "gradient_clip_val", "precision"} & set(trainer))
        if refused:
            raise UserError(f"trainer.lightning.{refused[0]}: cannot be combined with privacy=dp_sgd; leave it out")
        if isinstance(module, ComparesExamples) and module.compares_examples:
            raise UserError(
                "privacy=dp_sgd cannot protect a model whose loss compares the examples of a batch, since one moves "
                "the gradients of all; choose another loss"
            )
        from flip.privacy.opacus_training import unfit_layers

        unfit = unfit_layers(module)
        if unfit:
            layers = ", ".join(f"{kind} '{name}'" for name, kind in unfit.items())
            raise UserError(
                f"privacy=dp_sgd cannot protect a model with {layers}: each layer must treat every example by itself "
                "and keep no statistics; use group norm or instance norm, and opacus.layers for LSTM and attention"
            )

    def prepare(self, fit: PrivateFit) -> None:
        """Attach Opacus to the module, sample batches by Poisson, and write the fit into the ledger."""
        from flip.privacy.opacus_training import Protection, poisson_loader, protect

        batches, examples = len(fit.loader), examples_in(fit.loader)
        rate = 1 / batches
        multiplier = self.noise_multiplier or noise_for(self.target_epsilon or 0.0, self.delta, rate, fit.planned_steps)
        protection = Protection(multiplier, self.max_grad_norm, examples / batches, fit.noise_key)
        protect(fit.module, protection)
        fit.loader = poisson_loader(fit.loader, fit.noise_key)
        fit.ledger.append({"noise_multiplier": multiplier, "sample_rate": rate, "steps": float(fit.steps)})

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Epsilon of all fits in the ledger together."""
        from opacus.accountants import RDPAccountant

        fits = [entry for entry in ledger if "noise_multiplier" in entry]
        accountant = RDPAccountant()
        accountant.history = [
            (multiplier, rate, sum(int(entry["steps"]) for entry in entries))
            for (multiplier, rate), entries in groupby(
                fits, key=lambda entry: (entry["noise_multiplier"], entry["sample_rate"])
            )
        ]
        return Spent(epsilon=float(accountant.get_epsilon(delta=self.delta)), delta=self.delta)


@lru_cache(maxsize=64)
def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise multiplier with which so many steps at this sampling rate spend at most epsilon."""
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order")  # of the search's first guesses, which are far off
        multiplier: float = get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps
        )
    return multiplier
