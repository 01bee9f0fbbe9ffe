"""Noise at each site on all that it sends of a round: nobody need be trusted with a sum."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flip.errors import UserError
from flip.messages import Answer, Fault, Reply, Task
from flip.privacy import AtSite, Broken, Entry, Mechanism, PrivateFit, Spent

if TYPE_CHECKING:
    import torch

    from flip.privacy.released import Paid, Settings

STEPS = 20  # bits: a number is sent in steps of about 2^-20 of its noise's deviation


@dataclass
class LocalDP(Mechanism):
    """Each site clips its update of a round, together, and adds the whole noise itself.

    The guarantee is (epsilon, delta)-differential privacy of a whole site (unit: site) in the local model: its data
    replaced by any others, for all weights and the strategy's arrays that it sends over the run, to whoever reads them,
    the coordinator and all other sites together; so of each person of it, too. The theorem and its constants stand in
    `flip.privacy.released`; the change is 2 clip in what one site sends, and the deviation `noise_multiplier` times it.
    Nothing else leaves a site: no example count, loss or metric. Not covered: whether a site takes part, how long it
    takes. Without the lower trust of a sum the noise of n sites is the root of n larger in their mean than it would be
    inside one (`distributed_dp`).

    Args:
        clip: L2 norm to which the update of a site in a round is clipped, above 0.
        delta: probability with which epsilon may not hold, above 0 and below .001.
        noise_multiplier: deviation of the noise in units of what a site changes, 2 clip, above 0.
        target_epsilon: epsilon to reach after all rounds of the study, above .01. Give one of the two.
    """

    clip: float
    delta: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    _paid: "Paid | None" = field(default=None, init=False, repr=False)

    private = True

    def __post_init__(self) -> None:
        if problems := self._settings.problems(clip=self.clip):
            raise UserError(problems)

    @property
    def _settings(self) -> "Settings":
        from flip.privacy.released import SITE, Settings

        return Settings("local_dp", SITE, self.delta, self.noise_multiplier, self.target_epsilon)

    def check(self, module: "torch.nn.Module", trainer: Mapping[str, object]) -> None:
        """Raise UserError for a model that keeps statistics of rows."""
        from flip.privacy.released import refuse_statistics

        refuse_statistics(module, "local_dp")

    def prepare(self, fit: PrivateFit) -> None:
        """Add this round's release to the ledger."""
        from flip.privacy.released import pay

        self._paid = pay(fit, self._settings)

    def wrap_answer(self, answer: Answer, site: AtSite) -> Answer:
        """Clip what was trained, and add its noise. Raises Broken for a training that is no round's."""

        def answered(task: Task) -> Reply:
            if task.step == "fit" and task.stage != "study":
                raise Broken(f"privacy=local_dp: a training {task.stage} is in no round", Fault.REFUSED_RULE)
            self._paid = None
            reply = answer(task)
            return self._noised(task, reply, site) if task.step == "fit" and reply.fault is None else reply

        return answered

    def _noised(self, task: Task, reply: Reply, site: AtSite) -> Reply:
        from flip.privacy.released import Update, change_of, deviation_of, noise_on, only_once, stream_of

        paid = self._paid
        if paid is None or paid.task != task.digest:
            raise Broken("privacy=local_dp: nothing in the ledger is for this fit", Fault.REFUSED_BUDGET)
        update = Update.of(task, reply, paid.trained)
        moved, size = update.clipped(self.clip), int(update.noised.sum())
        scale = 2.0 ** (STEPS - math.ceil(math.log2(paid.multiplier * 2 * self.clip)))
        deviation = deviation_of(paid.multiplier, change_of(self.clip, scale, size, sides=2), 1)
        only_once(site, paid, moved)
        noise = noise_on(update.noised, stream_of(site, paid.noise, "local_dp/noise", moved), deviation)
        return update.with_numbers(reply, update.base + ((moved * scale).round() + noise) / scale)

    def stated(self) -> Spent | None:
        """The target, where there is one."""
        return self._settings.stated()

    def plan(self, batches: int, steps: int, rounds: int) -> list[Entry]:
        """One release a round."""
        return [self._settings.entry(rounds, rounds)]

    def moves(self, rounds: int, sites: int) -> float | None:
        """That of one site, of which the mean has so many."""
        multiplier = float(self._settings.entry(rounds, 1)["noise_multiplier"])
        return multiplier * 2 * self.clip / math.sqrt(sites)

    def spent(self, ledger: list[Entry]) -> Spent | None:
        """Epsilon of the entries together."""
        return self._settings.spent(ledger)
