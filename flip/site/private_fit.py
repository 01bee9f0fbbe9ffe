"""A site's half of private training: whose the rows are, what a study may spend, and noise that is paid for first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flip.config.opt_out import ROW
from flip.contracts import Fingerprinted, NamesPersons
from flip.contracts.loaders import examples_in
from flip.errors import UserError
from flip.messages import Fault, Task
from flip.privacy import UNIT, Entry, PrivateFit, Spent, unit_of
from flip.site.admission import Loaded, Place
from flip.site.budget import Budget
from flip.site.ledger import of_run, run_id
from flip.site.refusal import Refusal
from flip.site.secret import noise_key

if TYPE_CHECKING:
    from flip.contracts.dataset import Loader
    from flip.contracts.model import TrainableModule

LARGEST_RATE = 0.5  # of a person in a batch: of a larger one sampling hides next to nothing


@dataclass
class Privacy:
    """The privacy mechanisms of a study at a site, for one of its tasks."""

    place: Place
    loaded: Loaded
    task: Task

    @property
    def budget(self) -> Budget:
        """What the site's data may spend, and have."""
        return Budget(self.place, self.loaded.policy, self.task)

    def afford(self, train: "Loader", steps: int) -> None:
        """Raises Refusal, before anything is spent, where all steps of a study do not fit into the site's budget.

        What this run has spent is part of its plan. Also where a hospital has too few persons for any noise to mean
        something: see `_floors`.
        """
        mechanisms, batches = self.loaded.mechanisms, len(train)
        if not mechanisms:
            return
        self._fit_floors(train, self.whose("train"))
        rounds = self.loaded.strategy.rounds
        try:
            plans = [mechanism.plan(batches, steps, rounds) for mechanism in mechanisms]
        except UserError as error:
            raise Refusal(Fault.REFUSED_BUDGET, str(error)) from error
        if self.loaded.policy.privacy is not None and not any(plans):
            raise Refusal(Fault.REFUSED_BUDGET, "policy.privacy: the mechanism does not say what it will spend")
        own = run_id(self.task.run)
        others = [entry for entry in self.budget.ledger.entries() if entry["run"] != own]
        self.budget.permit([*others, *(entry for plan in plans for entry in plan)])

    def _fit_floors(self, train: "Loader", codes: NDArray[np.int64] | None) -> None:
        """Raises Refusal for a hospital with so few persons to train on that noise for them would be a name alone.

        That is where a batch holds more than half of them, where it holds fewer than the policy's minimum cell, or
        where the study's delta would allow one of them to be shown whole. A mechanism that hides the whole site
        asks for nothing of this, one whose epsilon counts no sampling for no small batch.
        """
        if not self.loaded.deployed or unit_of(self.loaded.mechanisms) != UNIT:
            return
        persons, batches = examples_in(train) if codes is None else len(np.unique(codes)), len(train)
        cell = self.loaded.policy.minimum_cell
        if 1 / batches > LARGEST_RATE and all(each.sampled for each in self.loaded.mechanisms):
            why = f"a batch of {persons / batches:g} of {persons} persons: at most the part {LARGEST_RATE:g} of them"
            raise Refusal(Fault.REFUSED_RULE, f"privacy: {why}; the study needs a smaller batch_size here")
        if persons / batches < cell:
            why = f"batches of {persons / batches:.3g} persons, fewer than minimum_cell: {cell}"
            raise Refusal(Fault.REFUSED_FEW_PERSONS, f"privacy: {why}; the study needs a larger batch_size here")
        self.delta_floor(persons)

    def delta_floor(self, persons: int) -> None:
        """Raises Refusal at a hospital where the study's delta would allow one of so many persons to be shown whole.

        Of a mechanism that hides the whole site it is the mechanism's to bound.
        """
        for mechanism in self.loaded.mechanisms if self.loaded.deployed else ():
            if (spent := mechanism.spent([])) and spent.unit == UNIT and spent.delta * persons >= 1:
                raise Refusal(
                    Fault.REFUSED_RULE, f"privacy: delta {spent.delta:g} is no less than 1 / {persons} persons"
                )

    def protect(
        self, module: "TrainableModule", train: "Loader", own: Mapping[str, np.ndarray], *, steps: int, planned: int
    ) -> PrivateFit:
        """Let the mechanisms change module, optimizer and loader, once the ledger holds what they spend.

        `own` is what the site kept for this fit. Raises Refusal where the budget has less left; the same fit again,
        with the same noise, spends nothing.
        """
        mechanisms = self.loaded.mechanisms
        if not mechanisms:
            return PrivateFit(module, train, steps, planned, self.task, b"", [])
        codes = self.whose("train")
        self._fit_floors(train, codes)
        key = self.noise_key(own)
        before = of_run(self.budget.ledger.entries(), self.task.run)
        fit = PrivateFit(module, train, steps, planned, self.task, key, [*before], codes)
        for mechanism in mechanisms:
            mechanism.prepare(fit)
        fit.ledger = self.budget.reserve(fit.ledger[len(before) :], key)
        return fit

    def noise_key(self, own: Mapping[str, np.ndarray]) -> bytes:
        """The key of a task's noise, of all that its answer depends on; `own` is what the site kept for it.

        The statistics that the data are scaled by may be of an earlier task.
        """
        data = {f"agreed/{name}": array for name, array in self.loaded.agreed.items()}
        if isinstance(self.loaded.datamodule, Fingerprinted):  # of what came from elsewhere than the site's root, too
            data |= self.loaded.datamodule.fingerprint()
        return noise_key(self.place.name, self.place.site, self.place.home, self.task, {**own, **data})

    def spent(self, ledger: list[Entry]) -> dict[str, float]:
        """Epsilon and delta of what this run has spent, as metrics of a reply; the largest that a mechanism says."""
        found: list[Spent] = [spent for each in self.loaded.mechanisms if (spent := each.spent(ledger))]
        most = max(found, key=lambda each: each.epsilon, default=None)
        return {"privacy/epsilon": most.epsilon, "privacy/delta": most.delta} if most else {}

    def whose(self, split: str) -> NDArray[np.int64] | None:
        """A code of the person of each example of a split, int64 [n]; None where each is a person's own.

        Raises Refusal at a hospital whose dataset does not say it, unless its file says that each row is a person.
        """
        data = self.loaded.datamodule
        if isinstance(data, NamesPersons):
            return np.asarray(data.whose(split), np.int64)
        if self.loaded.deployed and self.place.site.person != ROW:
            why = f"{type(data).__name__} does not say whose its examples are: give it whose(split) and the batch key"
            raise Refusal(Fault.REFUSED_RULE, f"privacy hides persons: {why} person, or write person: {ROW}")
        return None
