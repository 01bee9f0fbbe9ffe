"""Differentially private SGD (Abadi et al., CCS 2016), by Opacus inside Lightning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flip.contracts import ComparesExamples
from flip.contracts.loaders import examples_in
from flip.errors import UserError
from flip.privacy import Entry, Mechanism, PrivateFit, Spent
from flip.privacy.accounting import ERROR, epsilon, noise_for

if TYPE_CHECKING:
    import torch


@dataclass
class DPSGD(Mechanism):
    """Each person's gradient is clipped, Gaussian noise is added to their sum, and batches are Poisson samples.

    The guarantee is (epsilon, delta)-differential privacy of a site's persons (unit: person, added or left out with all
    of their rows) for the weights and the strategy's arrays that the site sends, over all its fits of the run. Epsilon
    is counted as in `flip.privacy.accounting`. A person enters a batch with all rows, at the rate 1 / batches of the
    loader; the gradients of a person's rows are added up, this sum is clipped, and the noised sum over persons is
    divided by the rows that a batch is expected to hold: without clipping and noise that is the mean over rows, in
    which a person counts by their rows. Of all else no number leaves a site, but the counts behind test metrics with
    noise of their own (`metrics_epsilon`, `flip.privacy.noised`), in the same ledger. Not covered: whether a site takes
    part, and how long it takes. A study whose rows are prepared by what is computed from rows is refused.

    Args:
        max_grad_norm: L2 norm to which each person's gradient, the sum over their rows, is clipped, above 0.
        delta: probability with which epsilon may not hold, in (0, 1); well below 1 / persons of a site.
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`, above 0.
        target_epsilon: epsilon to reach after all rounds of the study, above .01, to which epsilon is known: the noise
            is computed from it. A study that `strategy.stop` ends before spends less. Give one of the two.
        metrics_epsilon: epsilon of the test metrics of one model, above 0, beside that of training; None: none leaves.
    """

    max_grad_norm: float
    delta: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    metrics_epsilon: float | None = None

    private = True

    def __post_init__(self) -> None:
        problems = []
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            problems.append(
                "privacy.dp_sgd: give exactly one of noise_multiplier and target_epsilon, and null for the other"
            )
        for name in ("max_grad_norm", "noise_multiplier", "target_epsilon", "metrics_epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problems.append(f"privacy.dp_sgd.{name}={value}: must be above 0")
            if value is not None and name.endswith("_epsilon") and 0 < value <= ERROR:
                problems.append(
                    f"privacy.dp_sgd.{name}={value:g}: no noise gives it, since epsilon is known to {ERROR:g}; give a "
                    "larger one"
                )
        if not 0 < self.delta < 1:
            problems.append(f"privacy.dp_sgd.delta={self.delta}: must be above 0 and below 1")
        if problems:
            raise UserError(problems)

    def check(self, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
        """Raise UserError as `check_examples`."""
        check_examples("dp_sgd", module, trainer)

    def prepare(self, fit: PrivateFit) -> None:
        """Attach Opacus to the module, sample batches of persons by Poisson, and add the fit to the ledger."""
        from flip.privacy.opacus_training import Protection, protect
        from flip.privacy.poisson import poisson_loader
        from flip.privacy.whose import Whose

        batches, examples = len(fit.loader), examples_in(fit.loader)
        entry = self._fits(batches, fit.planned_steps)
        protection = Protection(
            float(entry["noise_multiplier"]),
            self.max_grad_norm,
            examples / batches,
            fit.noise_key,
            whose=None if fit.whose is None else Whose(fit.whose),
            steps=fit.steps,
        )
        protect(fit.module, protection)
        fit.loader = poisson_loader(fit.loader, fit.noise_key, fit.whose)
        fit.ledger.append({**entry, "steps": float(fit.steps)})

    def stated(self) -> Spent | None:
        """The target, where there is one, and what the metrics spend."""
        if self.target_epsilon is None:
            return None
        return Spent(self.target_epsilon + (self.metrics_epsilon or 0.0), self.delta)

    def plan(self, batches: int, steps: int, rounds: int) -> list[Entry]:
        """All steps as one entry, and the metrics of one model. Raises UserError for a target that cannot be kept."""
        metrics = self.metrics_noise()
        return [self._fits(batches, steps), *([metrics] if metrics else [])]

    def metrics_noise(self) -> Entry | None:
        """The Gaussian mechanism once over all persons, of a deviation that spends `metrics_epsilon`."""
        if self.metrics_epsilon is None:
            return None
        noise = noise_for(self.metrics_epsilon, self.delta, 1.0, 1)
        return {"noise_multiplier": noise, "sample_rate": 1.0, "steps": 1.0}

    def _fits(self, batches: int, steps: int) -> Entry:
        rate = 1 / batches
        noise = self.noise_multiplier or noise_for(self.target_epsilon or 0.0, self.delta, rate, steps)
        return {"noise_multiplier": noise, "sample_rate": rate, "steps": float(steps)}

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Epsilon of the entries together."""
        return Spent(epsilon(ledger, self.delta), self.delta)


def check_examples(name: str, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
    """Raise UserError for a model with a layer that mixes the examples of a batch, or keeps their statistics.

    Also for a loss that compares them: each gradient is clipped by itself, but one example moves all of them.
    Also for settings that would change the gradients: accumulation, clipping and 16-bit precision.
    """
    refused = sorted({"accumulate_grad_batches", "gradient_clip_val", "precision"} & set(trainer))
    if refused:
        raise UserError(f"trainer.lightning.{refused[0]}: cannot be combined with privacy={name}; leave it out")
    if isinstance(module, ComparesExamples) and module.compares_examples:
        raise UserError(
            f"privacy={name} cannot protect a model whose loss compares the examples of a batch, since one moves "
            "the gradients of all; choose another loss"
        )
    from flip.privacy.opacus_training import unfit_layers

    unfit = unfit_layers(module)
    if unfit:
        layers = ", ".join(f"{kind} '{own}'" for own, kind in unfit.items())
        raise UserError(
            f"privacy={name} cannot protect a model with {layers}: each layer must treat every example by itself "
            "and keep no statistics; use group norm or instance norm, and opacus.layers for LSTM and attention"
        )
