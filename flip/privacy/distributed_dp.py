"""Noise of differential privacy inside a secure sum: each site adds a share, and the sum has the whole of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flip.errors import UserError
from flip.messages import Answer, Fault, Reply, Task
from flip.privacy import AtSite, Broken, Entry, PrivateFit, Spent
from flip.privacy.secure_aggregation import SecureAggregation

if TYPE_CHECKING:
    import torch
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from flip.privacy.person_sums import PersonSums
    from flip.privacy.released import Floats, Paid, Settings, Update
    from flip.privacy.secure.at_site import SumAtSite

UNITS = ("site", "person")


@dataclass
class DistributedDP(SecureAggregation):
    """A secure sum of what each site clipped, to which each site adds its share of discrete Gaussian noise.

    It is the distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke, ICML 2021, theorem 1) in the ring of
    `SecureAggregation`, without its rotation. All sites weigh the same. Of n that began a sum, h = needed(n) -
    `colluding` bring as much noise together as the study states; needed(n), above two thirds of n and `threshold`, is
    how many the sites hold a sum to. So (epsilon, delta) holds against the coordinator together with up to `colluding`
    sites, over all rounds of the run, for what the sums tell; more sites that come to the end only add noise.

    - `unit: site`: the update of a site in a round, with the strategy's arrays, is clipped together to `clip`. Its data
      replaced by any others change the mean by 2 clip / n (and by rounding, which is counted).
    - `unit: person`: a round is one optimizer step of plain SGD (DP-FedSGD). The gradients of each person, over their
      rows, are clipped to `clip`, added up, divided by `batch` and multiplied by the learning rate; a person added or
      left out changes the mean by rate * clip / (batch n). No sampling is counted (rate 1), since no bound of sampled
      discrete noise is proven here. Several steps between sums are refused: from the second on a person has moved the
      weights under noise of one share alone, and no theorem says that the others' shares hide it. `dp_sgd` beside
      `secure_aggregation` trains so, with the whole noise at each site.

    Args:
        clip: L2 norm to which the update of a site, or the gradient of a person, is clipped, above 0.
        delta: probability with which epsilon may not hold, above 0; below .001 for a site.
        noise_multiplier: deviation of the whole noise in units of what one unit changes, above 0.
        target_epsilon: epsilon to reach after all rounds of the study, above .01. Give one of the two.
        unit: whom it hides, "site" or "person".
        batch: rows by which each site divides its sum of gradients, above 0, the same at all; None for a site.
        metrics_epsilon: epsilon of the test metrics of one model, of persons, as in `dp_sgd`; None: none leaves.
        colluding: sites that may tell their noise to the coordinator, 0 or more.
        scale: bits behind the point, from 8 to 40: the noise of a site must be 16 to 2^24 steps of 2^-scale.
        threshold: as in `SecureAggregation`.
    """

    scale: int = 20
    clip: float = field(kw_only=True)
    delta: float = field(kw_only=True)
    noise_multiplier: float | None = field(default=None, kw_only=True)
    target_epsilon: float | None = field(default=None, kw_only=True)
    unit: Literal["site", "person"] = field(default="site", kw_only=True)
    batch: float | None = field(default=None, kw_only=True)
    metrics_epsilon: float | None = field(default=None, kw_only=True)
    colluding: int = field(default=1, kw_only=True)
    _paid: "Paid | None" = field(default=None, init=False, repr=False)
    _sums: "PersonSums | None" = field(default=None, init=False, repr=False)

    private = True
    sampled = False
    name = "distributed_dp"
    keyed_as = SecureAggregation

    def __post_init__(self) -> None:
        problems = [*self._mistakes()]
        try:
            super().__post_init__()
        except UserError as error:
            problems += error.problems
        if problems:
            raise UserError(problems)

    def _mistakes(self) -> list[str]:
        key, person = f"privacy.{self.name}", self.unit == "person"
        if self.unit not in UNITS:
            return [f"{key}.unit={self.unit!r}: must be one of {', '.join(UNITS)}"]
        found = self._noise.problems(clip=self.clip, batch=self.batch, metrics_epsilon=self.metrics_epsilon)
        if person and self.batch is None:
            found.append(f"{key}.batch: has no value; give the rows by which each site divides its sum of gradients")
        for name in () if person else ("batch", "metrics_epsilon"):
            if getattr(self, name) is not None:
                found.append(f"{key}.{name}: has an effect with unit=person alone; set it to null")
        if self.colluding < 0:
            found.append(f"{key}.colluding={self.colluding}: must be 0 or more")
        return found

    @property
    def _noise(self) -> "Settings":
        from flip.privacy.released import Settings

        return Settings(self.name, self.unit, self.delta, self.noise_multiplier, self.target_epsilon)

    def check(self, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
        """Raise UserError for a model that keeps statistics of rows, or that per-person gradients do not suit."""
        from flip.privacy.dp_sgd import check_examples
        from flip.privacy.person_sums import plain_rate
        from flip.privacy.released import refuse_statistics

        if self.unit == "person":
            check_examples(self.name, module, trainer)
            plain_rate(self.name, module)
        refuse_statistics(module, self.name)

    def prepare(self, fit: PrivateFit) -> None:
        """Add this round's release to the ledger; have the gradients of persons clipped and kept, where they count."""
        from flip.privacy.person_sums import PersonSums
        from flip.privacy.released import pay

        self._paid = pay(fit, self._noise)
        self._sums = None if self.batch is None else PersonSums.of(self.name, fit, clip=self.clip, batch=self.batch)

    def wrap_answer(self, answer: Answer, site: AtSite) -> Answer:
        """As `SecureAggregation`; raises Broken for a training that is no round's."""
        wrapped = super().wrap_answer(answer, site)

        def answered(task: Task) -> Reply:
            if task.step == "fit" and task.stage != "study":
                raise Broken(f"privacy={self.name}: a training {task.stage} is in no sum", Fault.REFUSED_RULE)
            if task.step == "fit":
                self._paid = self._sums = None
            return wrapped(task)

        return answered

    def _at_site(self, site: AtSite, identity: "Ed25519PrivateKey") -> "SumAtSite":
        from flip.privacy.secure.noised_sum import NoisedSumAtSite, Share

        share = Share(self._paid, self._bounded, self._deviation, self.colluding)
        return NoisedSumAtSite(self._settings, site, identity, share=share)

    def _bounded(self, update: "Update") -> "tuple[Floats, float]":
        """The move of a site and the norm of what one unit changes of it: clipped, or by its persons' gradients."""
        return (update.clipped(self.clip), self.clip) if self._sums is None else self._sums.move(update)

    def _deviation(self, paid: "tuple[float, float]", part: float, size: int, shares: int) -> int:
        """Of a site's noise in steps, of the multiplier that is paid for and the norm of what one unit changes."""
        from flip.privacy.released import change_of, deviation_of

        change = change_of(paid[1] * part, 2.0**self.scale, size, sides=2 if self.unit == "site" else 1)
        return deviation_of(paid[0], change, shares)

    def metrics_noise(self) -> Entry | None:
        """As `dp_sgd`: the Gaussian mechanism once over all persons of a site."""
        from flip.privacy.accounting import noise_for

        if self.metrics_epsilon is None:
            return None
        noise = noise_for(self.metrics_epsilon, self.delta, 1.0, 1, mechanism=self.name)
        return {"noise_multiplier": noise, "sample_rate": 1.0, "steps": 1.0}

    def stated(self) -> Spent | None:
        """The target, where there is one, and what the metrics spend."""
        found = self._noise.stated()
        return found and Spent(found.epsilon + (self.metrics_epsilon or 0.0), found.delta, found.unit)

    def plan(self, batches: int, steps: int, rounds: int) -> list[Entry]:
        """One release a round, and the metrics of one model."""
        metrics = self.metrics_noise()
        return [self._noise.entry(rounds, rounds), *([metrics] if metrics else [])]

    def moves(self, rounds: int, sites: int) -> float | None:
        """That of all shares; None for persons, whose change is the learning rate's too."""
        from flip.privacy.secure.session import Rules

        if self.unit == "person":
            return None
        honest = Rules(threshold=self.threshold).needed(sites) - self.colluding
        multiplier = float(self._noise.entry(rounds, 1)["noise_multiplier"])
        return multiplier * 2 * self.clip / sites * math.sqrt(sites / max(honest, 1))

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Epsilon of the entries together."""
        return self._noise.spent(ledger)
