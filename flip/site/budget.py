"""What a site's noise may spend in all: the budget of its own file over every study, held against its ledger."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from flip.config.policy import Policy
from flip.messages import Fault, Task
from flip.privacy import Entry
from flip.site.admission import Place
from flip.site.ledger import Ledger, ledger_of, of_run
from flip.site.refusal import Refusal


@dataclass(frozen=True)
class Budget:
    """The budget of a site's data, as a task of a run meets it.

    Args:
        place: the site.
        policy: what it permits; its `privacy` is the most that all studies together may spend.
        task: what is asked.
    """

    place: Place
    policy: Policy
    task: Task

    @property
    def ledger(self) -> Ledger:
        """What was spent."""
        return ledger_of(self.place, self.task)

    def reserve(self, entries: Sequence[Entry], noise_key: bytes) -> list[Entry]:
        """Spend what entries say, on the noise of this key, before it is used; returns all that this run has spent.

        The same key again spends nothing. Raises Refusal where the budget has less left, or the ledger was touched.
        """
        noise = hashlib.sha256(noise_key).hexdigest()
        spent = self.ledger.reserve(entries, noise, run=self.task.run, permit=self.permit)
        return of_run(spent, self.task.run)

    def permit(self, entries: Sequence[Entry]) -> None:
        """Raises Refusal where entries, all that was ever spent with what is asked for, are beyond the budget."""
        demand = self.policy.privacy
        if demand is not None and (why := demand.overspent(entries)):
            raise Refusal(Fault.REFUSED_BUDGET, why)
