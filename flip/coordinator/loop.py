"""The one round loop of a federated study, and the baselines of sites: trained alone, or further after the rounds.

It knows no backend: it asks sites through an `Ask` and hands what they answer to the strategy.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flip.config.checks.callbacks import NO_VALIDATION, watching_validation
from flip.coordinator.check_replies import Wanted
from flip.coordinator.cohorts import agree
from flip.coordinator.early_stop import EarlyStop
from flip.coordinator.evaluation import TEST, Evaluation
from flip.coordinator.roster import Roster, noting
from flip.determinism import stable_seed
from flip.errors import StudyUnfit
from flip.files import ALONE, FINE_TUNED
from flip.messages import Ask, Fault, Payload, Reply, Task
from flip.messages.applied import Applied
from flip.messages.model_file import ModelFile
from flip.privacy import NOISE_ROOM, Mechanism
from flip.runs.recorder import Progress
from flip.strategies.fedavg import FedAvg, State

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule


@dataclass
class Coordinator:
    """One study at the coordinator; calling it with an `Ask` runs the federated study.

    Args:
        roster: the sites.
        evaluation: what the weights are worth there; its module gives the initial weights.
        seed: the study's seed.
        strategy: the study's strategy.
        mechanisms: the study's privacy mechanisms, outermost first; at the sites they are mirrored.
        reasons: the reasons for which the dataset can skip an example.
        alone: also train each site by itself, for comparison.
        fine_tuned: for how many rounds more each site trains the final weights, for comparison; None: not at all.
        progress: the last complete round of the same run, to go on from; None starts at the first.
        rounds_done: rounds that are complete.
        given: models that were trained elsewhere, for a job that applies them.
        start: given weights that the rounds begin from, as their file has them; None for the seeded ones.
        given_stays: both are not sent: each site has them on its own disk.
        applied: what goes with the first of them.

    Attributes:
        early: whether the study ends before its last round.
    """

    roster: Roster
    evaluation: Evaluation
    seed: int
    strategy: FedAvg
    mechanisms: Sequence[Mechanism] = ()
    reasons: frozenset[str] = frozenset()
    alone: bool = False
    fine_tuned: int | None = None
    progress: Progress | None = None
    rounds_done: int = 0
    given: Sequence[ModelFile] = ()
    start: Payload | None = None
    given_stays: bool = False
    applied: Applied = field(default_factory=Applied)

    def __post_init__(self) -> None:
        self.early = EarlyStop(self.strategy.early, self.module)
        self.begun = set[str]()  # sites that have the given weights that the rounds begin from

    @property
    def stopped(self) -> str:
        """Why the study ended before its last round; empty where it did not."""
        return self.early.words(self.rounds_done, self.strategy.rounds)

    @property
    def module(self) -> "TrainableModule":
        """The study's module at the coordinator."""
        return self.evaluation.module

    def models(self) -> list[dict[str, object]]:
        """What the models are that were applied and not trained, in their order."""
        return [
            {"name": each.manifest.get("name"), "digest": each.digest, "model": each.whole_digest}
            for each in self.given
        ]

    def through_mechanisms(self, ask: Ask) -> Ask:
        """The `Ask` as the privacy mechanisms let it be used."""
        for mechanism in reversed(self.mechanisms):
            mechanism.lend(self.strategy.weight)
            ask = mechanism.wrap_ask(ask)
        return ask

    def __call__(self, ask: Ask) -> Payload:
        """Run the federated study to its end; returns the final shared weights. Raises StudyFailed."""
        from flip.messages.weights import release, to_arrays

        ask = self.through_mechanisms(ask)
        agree(self.roster, ask, self.reasons)
        self._watched()
        weights: Payload = to_arrays(self.module, self.strategy.shared(self.module))
        if not self.alone:
            release(self.module)  # its weights have no use any more, only its metrics
        state = self.strategy.start(weights)
        if self.progress is not None:
            weights, state = self._go_on(self.progress)
        while self.rounds_done < self.strategy.rounds and not self.early.over:
            weights, state = self._round(ask, self.rounds_done, weights, state)
        self.evaluation.rounds = self.rounds_done
        self.evaluation.test(ask, TEST, weights, TEST, main=True)
        if self.fine_tuned is not None:
            self._fine_tuned(ask, weights, self.fine_tuned)
        if self.alone:
            self._alone(ask, to_arrays(self.module))
        return weights

    def _begin(self, ask: Ask) -> None:
        """Send the given weights, or which they are, to the sites that do not have them yet, before all else."""
        if self.start is None or not (
            late := [each for each in self.roster.sites(training=False) if each not in self.begun]
        ):
            return
        from flip.messages.weights import digest

        named = {"model": digest(self.start)} if self.given_stays else {}
        task = self.roster.task("begin", 0, {} if named else self.start, **named)
        for reply in self.roster.asked(ask, task, late, "begin", Wanted({}, {}, frozenset(), {}, {})):
            self.begun |= {reply.site} if reply.fault is None else set()

    def _watched(self) -> None:
        """Raise StudyUnfit where something watches validation data and no site has any that it may count."""
        trainer = json.loads(self.roster.manifest).get("trainer") or {}
        keys = watching_validation(trainer.get("callbacks") or {}, stops=self.strategy.early is not None)
        if keys and not self.roster.validates:
            raise StudyUnfit(f"{keys[0]} {NO_VALIDATION}, or set {keys[0]}=null")

    def _go_on(self, progress: Progress) -> tuple[Payload, State]:
        """Take up the run after its last complete round, with the statistics that were agreed then."""
        self.rounds_done, self.evaluation.best = progress.round + 1, progress.best
        self.early.best, self.early.waited = progress.best_watched, progress.waited
        self.roster.agreed = progress.agreed
        self.roster.privacy = {site: dict(spent) for site, spent in progress.privacy.items()}
        self.progress = None  # its arrays would be held to the end
        return progress.weights, progress.state

    def _round(self, ask: Ask, number: int, weights: Payload, state: State) -> tuple[Payload, State]:
        """One round: the strategy's, enough sites, validation, and everything on disk."""
        self._begin(ask)
        roster, used = self.roster, 0
        faults: dict[str, Fault] = {}
        wanted = roster.fits(weights, self.strategy.returns(state), self._moves())

        def asked(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
            nonlocal used
            for reply in noting(roster.asked(ask, task, sites, "fit", wanted), faults):
                used += reply.fault is None and self.strategy.weight(reply) > 0
                yield reply

        rng = np.random.default_rng(stable_seed(self.seed, "select", number))
        task, sites = roster.task("fit", number, weights), roster.sites(training=True)
        after, state = self.strategy.round(asked, task, sites, state, rng)
        roster.enough(used, faults, f"in round {number + 1}")
        if roster.validates:
            self.early.take(self.evaluation.validate(ask, number, after))
        best, early = self.evaluation.best, self.early
        so_far = Progress(number, after, state, roster.agreed, best, roster.privacy, early.best, early.waited)
        roster.recorder.complete(so_far)
        self.rounds_done = number + 1
        return after, state

    def _moves(self) -> float | None:
        """How far what a site sends of a round may lie from what it was sent: as the study states, beside its noise.

        The study's bound is held against the noise of a mean; one site's own is larger.
        """
        if (most := self.strategy.most_change) is None:
            return None
        noise = [each.moves(self.strategy.rounds, 1) or 0.0 for each in self.mechanisms]
        return most + NOISE_ROOM * max(noise, default=0.0)

    def _fine_tuned(self, ask: Ask, weights: Payload, rounds: int) -> None:
        """Have each site train the final weights further, which stay there, and test what it has on its own data."""
        roster = self.roster
        task = roster.task("fit", self.rounds_done - 1, weights, FINE_TUNED, rounds=rounds)
        replies = roster.asked(ask, task, roster.sites(training=True), FINE_TUNED, roster.fits({}, {}))
        if tuned := sorted(reply.site for reply in replies if reply.fault is None):
            self.evaluation.test(ask, FINE_TUNED, weights, f"baseline/{FINE_TUNED}/test", sites=tuned)

    def _alone(self, ask: Ask, initial: Payload) -> None:
        """Train each site by itself, and test each of these models at every site."""
        roster = self.roster
        for site in roster.sites(training=True):
            task = roster.task("fit", 0, initial, ALONE, alone=site)
            for reply in roster.asked(ask, task, [site], "alone", roster.fits(initial, {})):
                if reply.fault is None:
                    prefix = f"baseline/alone/{site}/test"
                    self.evaluation.test(ask, ALONE, reply.weights, prefix, alone=site)
