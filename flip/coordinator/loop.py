"""The coordinator's side of a study: the one round loop, scoring, and the site-alone baseline.

It knows no backend: it asks sites through an `Ask`, checks and writes down what they answer, and hands it to the
strategy.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flip.coordinator.check_replies import Wanted, addable, checked
from flip.coordinator.pooled_metrics import (
    Scored,
    merge_into,
    merge_scores,
    site_values,
    threshold_from,
    wanted_scores,
)
from flip.determinism import stable_seed
from flip.errors import StudyFailed
from flip.messages import Ask, Fault, Payload, Reply, Task
from flip.messages.summary import Summary
from flip.privacy import Mechanism
from flip.runs.recorder import Progress, Recorder, line_of
from flip.strategies.fedavg import FedAvg, State

COUNTS = ("persons", "train", "validate", "test")
FIT_METRICS = frozenset({"loss", "privacy/epsilon", "privacy/delta"})
OTHER_REASON = "another reason, which the site's own log names"


class NoThreshold(StudyFailed):
    """The validation data do not tell where to decide."""


@dataclass
class Coordinator:
    """One study at the coordinator; calling it with an `Ask` runs the federated study.

    Args:
        run: identifier of the run, new on a rerun.
        manifest: the study as canonical JSON.
        seed: the study's seed.
        module: the study's module at the coordinator (initial weights, metrics to merge).
        strategy: the study's strategy.
        trains: by site, whether it trains or is only tested on.
        recorder: where everything is written down.
        outcomes: the study's own class of outcomes, or None.
        mechanisms: the study's privacy mechanisms, outermost first.
        reasons: the reasons for which the dataset can skip an example; any other text is not passed on.
        alone: also train each site by itself, for comparison.
        progress: the last complete round of the same run, to go on from; None starts at the first.
    """

    run: str
    manifest: str
    seed: int
    module: Any
    strategy: FedAvg
    trains: Mapping[str, bool]
    recorder: Recorder
    outcomes: Any = None
    mechanisms: Sequence[Mechanism] = ()
    reasons: frozenset[str] = frozenset()
    alone: bool = False
    progress: Progress | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    privacy: dict[str, dict[str, float]] = field(default_factory=dict)
    rounds_done: int = 0
    validates: bool = False
    _agreed: Payload = field(default_factory=dict)
    _out: set[str] = field(default_factory=set)
    _trained_on: dict[str, int] = field(default_factory=dict)
    _best: float | None = None

    def __call__(self, ask: Ask) -> Payload:
        """Run the federated study to its end; returns the final shared weights. Raises StudyFailed."""
        from flip.messages.weights import release, to_arrays

        for mechanism in reversed(self.mechanisms):
            ask = mechanism.wrap_ask(ask)
        self.statistics(ask)
        weights: Payload = to_arrays(self.module, self.strategy.shared(self.module))
        if not self.alone:
            release(self.module)  # its weights have no use any more, only its metrics
        state = self.strategy.start(weights)
        if self.progress is not None:
            weights, state = self._go_on(self.progress)
        for number in range(self.rounds_done, self.strategy.rounds):
            weights, state = self._round(ask, number, weights, state)
        self.test(ask, "test", weights, "test")
        if self.alone:
            self._alone(ask, to_arrays(self.module))
        return weights

    def _go_on(self, progress: Progress) -> tuple[Payload, State]:
        """Take up the run after its last complete round, with the statistics that were agreed then."""
        self.rounds_done, self._best, self._agreed = progress.round + 1, progress.best, progress.agreed
        self.privacy = {site: dict(spent) for site, spent in progress.privacy.items()}
        self.progress = None  # its arrays would be held to the end
        return progress.weights, progress.state

    def task(self, step: str, round: int, weights: Payload, stage: str = "study", **params: Any) -> Task:
        """A task of this study."""
        return Task(self.run, stage, round, step, weights, self._agreed, params, self.manifest)

    def sites(self, *, training: bool) -> list[str]:
        """The sites that take part, in the order of their names."""
        return sorted(
            site for site, trains in self.trains.items() if site not in self._out and (trains or not training)
        )

    def asked(self, ask: Ask, task: Task, sites: Sequence[str], phase: str, wanted: Wanted) -> Iterator[Reply]:
        """Ask, check each reply, and write it down before anyone uses it."""
        for reply in ask(task, sites):
            reply = checked(reply, task, wanted)
            self._record(task, reply, phase)
            yield reply

    def _record(self, task: Task, reply: Reply, phase: str) -> None:
        line = line_of(task, reply, phase)
        if line["privacy"]:
            self.privacy[reply.site] = {name: line["privacy"][name] for name in ("epsilon", "delta")}
        self.recorder.line(line)

    def statistics(self, ask: Ask) -> None:
        """Before round 0, what `cohorts` learns. Raises StudyFailed if too few sites can train."""
        faults = self.cohorts(ask)
        self.enough(len(self.sites(training=True)), faults, "before the first round")

    def cohorts(self, ask: Ask) -> dict[str, Fault]:
        """Cohorts, what was skipped, and the agreed statistics of the dataset; returns the faults by site."""
        cohort: dict[str, Any] = {}
        merged: dict[str, Summary] = {}
        faults: dict[str, Fault] = {}
        wanted = Wanted({}, {}, frozenset(COUNTS), {}, {})
        for reply in self.asked(ask, self.task("statistics", 0, {}), sorted(self.trains), "statistics", wanted):
            counts = {name: int(reply.metrics.get(name, 0)) for name in COUNTS}
            agreed = {name: s for name, s in reply.summaries.items() if name.startswith("statistics/")}
            fault = reply.fault or (None if addable(agreed, merged) else Fault.INVALID)
            cohort[reply.site] = {
                **counts,
                "trains": self.trains[reply.site],
                "skipped": self._skipped(reply),
                "fault": fault.name if fault else None,
            }
            if fault is not None:
                faults[reply.site] = fault
                continue
            self.validates |= counts["validate"] > 0
            self._trained_on[reply.site] = counts["train"]
            if self.trains[reply.site]:
                merge_into(merged, agreed)
        self.recorder.cohort(cohort)
        self._agreed = {name: summary.values for name, summary in merged.items()}
        self._out = {site for site, fault in faults.items() if fault.refused or fault in (Fault.DATA, Fault.INVALID)}
        return faults

    def _skipped(self, reply: Reply) -> dict[str, int]:
        """How much a site skipped by reason: only reasons that the dataset declares are passed on, no other text."""
        found: dict[str, int] = {}
        for name, summary in reply.summaries.items():
            if name.startswith("skipped/"):
                reason = name.removeprefix("skipped/")
                reason = reason if reason in self.reasons else OTHER_REASON
                found[reason] = found.get(reason, 0) + int(summary.values[0])
        return found

    def _round(self, ask: Ask, number: int, weights: Payload, state: State) -> tuple[Payload, State]:
        """One round: the strategy's, enough sites, validation, and everything on disk."""
        used, faults = 0, {}
        wanted = Wanted(weights, self.strategy.returns(state), FIT_METRICS, {}, self._trained_on)

        def asked(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
            nonlocal used
            for reply in self.asked(ask, task, sites, "fit", wanted):
                used += reply.fault is None
                if reply.fault is not None:
                    faults[reply.site] = reply.fault
                yield reply

        rng = np.random.default_rng(stable_seed(self.seed, "select", number))
        after, state = self.strategy.round(
            asked, self.task("fit", number, weights), self.sites(training=True), state, rng
        )
        self.enough(used, faults, f"in round {number + 1}")
        if self.validates:
            self._validate(ask, number, after)
        self.recorder.complete(Progress(number, after, state, self._agreed, self._best, self.privacy))
        self.rounds_done = number + 1
        return after, state

    def enough(self, used: int, faults: Mapping[str, Fault], when: str) -> None:
        """Raise StudyFailed, with the faults, if fewer sites can be used than the strategy needs."""
        if used < self.strategy.min_sites:
            why = "; ".join(f"{site}: {fault.value}" for site, fault in sorted(faults.items()))
            raise StudyFailed(
                f"{used} usable sites {when}, strategy.min_sites={self.strategy.min_sites}. {why}", faults.values()
            )

    def _validate(self, ask: Ask, number: int, weights: Payload) -> None:
        scored = self._score(ask, self.task("evaluate", number, weights, split="validate"), "validate")
        self.keep_best(scored.pooled, lambda: weights)

    def keep_best(self, metrics: Mapping[str, float], weights: Callable[[], Payload]) -> None:
        """Keep the weights if the main validation metric is the best so far."""
        score = metrics.get(self.module.monitor, math.nan)
        if math.isnan(score):
            return
        better = self._best is None or (score > self._best if self.module.higher_is_better else score < self._best)
        if better:
            self._best = score
            self.recorder.best(weights())

    def _score(self, ask: Ask, task: Task, phase: str, sites: Sequence[str] | None = None) -> Scored:
        """Ask every site (or those named) to evaluate, and merge what they send."""
        split = str(task.params["split"])
        asked = sites if sites is not None else self.sites(training=False)
        replies = self.asked(ask, task, asked, phase, wanted_scores(self.module, split))
        scored = merge_scores(replies, self.module, split, self.trains)
        self.recorder.line(scored.line(task, phase, self.trains))
        return scored

    def _threshold(self, ask: Ask, stage: str, weights: Payload) -> dict[str, float]:
        """The decision threshold for these weights, from validation data (its own, of a site alone)."""
        if not getattr(self.module, "chooses_threshold", False):
            return {}
        site = stage.partition(":")[2]
        sites = [site] if site else self.sites(training=True)
        task = self.task("evaluate", self.strategy.rounds - 1, weights, stage, split="validate")
        chosen = threshold_from(self.module, self._score(ask, task, "threshold", sites).states)
        if chosen is None:
            raise NoThreshold(
                "no decision threshold could be chosen: the sites have no validation data of both classes, or their "
                "policies withhold the counts; declare a validation split, or a number as the threshold"
            )
        return {"threshold": chosen}

    def test(self, ask: Ask, stage: str, weights: Payload, prefix: str) -> None:
        """Read the test split, once for these weights; `prefix` starts the names of the metrics.

        A site that trained alone and whose validation data give no threshold is not compared.
        """
        final = stage == "test"
        try:
            decided = self._threshold(ask, stage, weights)
        except NoThreshold:
            if stage.startswith("alone:"):
                return
            raise
        task = self.task("evaluate", self.strategy.rounds - 1, weights, stage, split="test", outcomes=final, **decided)
        scored = self._score(ask, task, stage.split(":")[0])
        replies = scored.replies
        if final and not replies:
            raise StudyFailed(
                "no site could score its test split: all failed, or their policies withhold so few examples"
            )
        for site, reply in replies.items():
            values = site_values(reply, self.module)
            self.metrics |= {f"{prefix}/site/{site}/{name}": value for name, value in values.items()}
        self.metrics |= {f"{prefix}/pooled/{name}": value for name, value in {**scored.pooled, **decided}.items()}
        if final and self.outcomes is not None:
            found = {
                site: {n.removeprefix("outcomes/"): s for n, s in reply.summaries.items() if n.startswith("outcomes/")}
                for site, reply in replies.items()
            }
            self.recorder.outcomes(found)
            arrays = {
                site: {name: summary.values for name, summary in by_name.items()} for site, by_name in found.items()
            }
            self.metrics |= self.outcomes.metrics(arrays)

    def _alone(self, ask: Ask, initial: Payload) -> None:
        """Train each site by itself, and test each of these models at every site."""
        for site in self.sites(training=True):
            task = self.task("fit", 0, initial, f"alone:{site}", alone=True)
            for reply in self.asked(ask, task, [site], "alone", Wanted(initial, {}, FIT_METRICS, {}, self._trained_on)):
                if reply.fault is None:
                    self.test(ask, f"alone:{site}", reply.weights, f"baseline/alone/{site}/test")
