"""The coordinator's side of a study: the one round loop, scoring, and the site-alone baseline.

It knows no backend: it asks sites through an `Ask`, checks and writes down what they answer, and hands it to the
strategy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from flip.errors import StudyFailed
from flip.federation import Ask, Fault, Payload, Reply, Summary, Task
from flip.strategies.fedavg import FedAvg, State
from flip.weights import stable_seed

COUNTS = ("persons", "train", "validate", "test")
ENGINE_METRICS = {"loss", "privacy/epsilon", "privacy/delta", *COUNTS}


class Recorder(Protocol):
    """Where the loop writes down what happens (`flip.run.RunFolder`)."""

    def line(self, record: Mapping[str, Any]) -> None:
        """One line per round, site and phase."""

    def cohort(self, cohort: Mapping[str, Any]) -> None:
        """Persons, examples and what was skipped, by site."""

    def complete(self, round: int, weights: Payload, state: State) -> None:
        """All that a resume needs after a round."""

    def best(self, weights: Payload) -> None:
        """Weights with the best validation score so far."""

    def outcomes(self, outcomes: Mapping[str, Mapping[str, Summary]]) -> None:
        """What the study adds to the report, by site."""


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
        alone: also train each site by itself, for comparison.
    """

    run: str
    manifest: str
    seed: int
    module: Any
    strategy: FedAvg
    trains: Mapping[str, bool]
    recorder: Recorder
    outcomes: Any = None
    alone: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    privacy: dict[str, dict[str, float]] = field(default_factory=dict)
    rounds_done: int = 0
    validates: bool = False
    _agreed: State = field(default_factory=dict)
    _out: set[str] = field(default_factory=set)
    _best: float | None = None

    def __call__(self, ask: Ask) -> Payload:
        """Run the federated study to its end; returns the final shared weights. Raises StudyFailed."""
        from flip.weights import to_arrays

        self.statistics(ask)
        initial = to_arrays(self.module, self.strategy.shared(self.module))
        weights: Payload = initial
        state = self.strategy.start(initial)
        for number in range(self.strategy.rounds):
            weights, state = self._round(ask, number, weights, state)
        self.test(ask, "test", weights, "test")
        if self.alone:
            self._alone(ask, to_arrays(self.module))
        return weights

    def task(self, step: str, round: int, weights: Payload, stage: str = "study", **params: Any) -> Task:
        """A task of this study."""
        return Task(self.run, stage, round, step, weights, self._agreed, params, self.manifest)

    def sites(self, *, training: bool) -> list[str]:
        """The sites that take part, in the order of their names."""
        return sorted(
            site for site, trains in self.trains.items() if site not in self._out and (trains or not training)
        )

    def _ask(
        self, ask: Ask, task: Task, sites: Sequence[str], phase: str, wanted: Payload | None = None
    ) -> Iterator[Reply]:
        """Ask, check each reply, and write it down before anyone uses it."""
        for reply in ask(task, sites):
            reply = check_reply(reply, task, wanted, ENGINE_METRICS | set(self.module.metrics))
            self._record(task, reply, phase)
            yield reply

    def _record(self, task: Task, reply: Reply, phase: str) -> None:
        metrics = {
            name: value
            for name, value in reply.metrics.items()
            if not name.startswith("privacy/") and math.isfinite(value)
        }
        spent = None
        if "privacy/epsilon" in reply.metrics:
            spent = {"epsilon": reply.metrics["privacy/epsilon"], "delta": reply.metrics["privacy/delta"]}
            self.privacy[reply.site] = spent
        self.recorder.line(
            {
                "round": task.round,
                "site": reply.site,
                "phase": phase,
                "examples": reply.examples,
                "metrics": metrics,
                "bytes_down": size(task.weights) + size(task.state),
                "bytes_up": size(reply.weights)
                + size(reply.state)
                + sum(s.values.nbytes for s in reply.summaries.values()),
                "seconds": round(reply.seconds, 6),
                "fault": reply.fault.name if reply.fault else None,
                "privacy": spent and {**spent, "unit": "record"},
            }
        )

    def statistics(self, ask: Ask) -> None:
        """Before round 0: cohorts, what was skipped, refusals, and the agreed statistics of the dataset."""
        cohort: dict[str, Any] = {}
        merged: dict[str, Summary] = {}
        faults: dict[str, Fault] = {}
        for reply in self._ask(ask, self.task("statistics", 0, {}), sorted(self.trains), "statistics"):
            counts = {name: int(reply.metrics.get(name, 0)) for name in COUNTS}
            skipped = {
                name.removeprefix("skipped/"): int(s.values[0])
                for name, s in reply.summaries.items()
                if name.startswith("skipped/")
            }
            fault = reply.fault.name if reply.fault else None
            cohort[reply.site] = {**counts, "trains": self.trains[reply.site], "skipped": skipped, "fault": fault}
            if reply.fault is not None:
                faults[reply.site] = reply.fault
                continue
            self.validates |= counts["validate"] > 0
            if self.trains[reply.site]:
                merge_into(merged, {name: s for name, s in reply.summaries.items() if name.startswith("statistics/")})
        self.recorder.cohort(cohort)
        self._agreed = {name: summary.values for name, summary in merged.items()}
        self._out = {site for site, fault in faults.items() if fault.refused or fault is Fault.DATA}
        self._enough(len(self.sites(training=True)), faults, "before the first round")

    def _round(self, ask: Ask, number: int, weights: Payload, state: State) -> tuple[Payload, State]:
        """One round: the strategy's, enough sites, validation, and everything on disk."""
        used, faults = 0, {}

        def asked(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
            nonlocal used
            for reply in self._ask(ask, task, sites, "fit", wanted=weights):
                used += reply.fault is None
                if reply.fault is not None:
                    faults[reply.site] = reply.fault
                yield reply

        rng = np.random.default_rng(stable_seed(self.seed, "select", number))
        after, state = self.strategy.round(
            asked, self.task("fit", number, weights), self.sites(training=True), state, rng
        )
        self._enough(used, faults, f"in round {number + 1}")
        if self.validates:
            self._validate(ask, number, after)
        self.recorder.complete(number, after, state)
        self.rounds_done = number + 1
        return after, state

    def _enough(self, used: int, faults: Mapping[str, Fault], when: str) -> None:
        if used < self.strategy.min_sites:
            why = "; ".join(f"{site}: {fault.value}" for site, fault in sorted(faults.items()))
            raise StudyFailed(
                f"{used} usable sites {when}, strategy.min_sites={self.strategy.min_sites}. {why}", faults.values()
            )

    def _validate(self, ask: Ask, number: int, weights: Payload) -> None:
        pooled = self._score(ask, self.task("evaluate", number, weights, split="validate"), "validate")[1]
        score = pooled.get(self.module.monitor)
        if score is None:
            return
        better = self._best is None or (score > self._best if self.module.higher_is_better else score < self._best)
        if better:
            self._best = score
            self.recorder.best(weights)

    def _score(self, ask: Ask, task: Task, phase: str) -> tuple[dict[str, Reply], dict[str, float]]:
        """Ask every site to evaluate; returns the replies by site and the pooled metrics, merged from states."""
        from flip.training import values_from_states

        replies: dict[str, Reply] = {}
        merged: dict[str, Summary] = {}
        for reply in self._ask(ask, task, self.sites(training=False), phase):
            if reply.fault is None and reply.examples:
                replies[reply.site] = reply
                if self.trains[reply.site]:
                    merge_into(merged, {name: s for name, s in reply.summaries.items() if name.startswith("metric/")})
        states = {name.removeprefix("metric/"): summary.values for name, summary in merged.items()}
        pooled = values_from_states(self.module.metrics, states)
        examples = sum(reply.examples for site, reply in replies.items() if self.trains[site])
        self.recorder.line(
            {**POOLED_LINE, "round": task.round, "phase": phase, "examples": examples, "metrics": pooled}
        )
        return replies, pooled

    def test(self, ask: Ask, stage: str, weights: Payload, prefix: str) -> None:
        """Read the test split, once for these weights; `prefix` starts the names of the metrics."""
        final = stage == "test"
        task = self.task("evaluate", self.strategy.rounds - 1, weights, stage, split="test", outcomes=final)
        replies, pooled = self._score(ask, task, stage.split(":")[0])
        for site, reply in replies.items():
            self.metrics |= {f"{prefix}/site/{site}/{name}": value for name, value in reply.metrics.items()}
        self.metrics |= {f"{prefix}/pooled/{name}": value for name, value in pooled.items()}
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
            for reply in self._ask(ask, task, [site], "alone", wanted=initial):
                if reply.fault is None:
                    self.test(ask, f"alone:{site}", reply.weights, f"baseline/alone/{site}/test")


POOLED_LINE: dict[str, Any] = {
    "site": "pooled", "bytes_down": 0, "bytes_up": 0, "seconds": 0.0, "fault": None, "privacy": None,
}  # fmt: skip


def merge_into(merged: dict[str, Summary], summaries: Mapping[str, Summary]) -> None:
    """Add one site's summaries to the sums so far."""
    for name, summary in summaries.items():
        merged[name] = merged[name].merge(summary) if name in merged else summary


def size(arrays: Payload) -> int:
    """Bytes of the arrays."""
    return sum(array.nbytes for array in arrays.values())


def check_reply(reply: Reply, task: Task, wanted: Payload | None, metrics: set[str]) -> Reply:
    """Turn a reply that does not fit its task into a fault; `wanted` has the names and shapes that it must return."""
    if reply.fault is not None:
        return Reply(reply.site, task.digest, fault=reply.fault, seconds=reply.seconds)
    problem = None
    if reply.task_digest != task.digest or not set(reply.metrics) <= metrics:
        problem = Fault.INVALID
    elif wanted is not None:
        same = set(reply.weights) == set(wanted) and all(
            reply.weights[name].shape == array.shape and reply.weights[name].dtype == array.dtype
            for name, array in wanted.items()
        )
        arrays = [*reply.weights.values(), *reply.state.values()]
        if not same or reply.examples < 1:
            problem = Fault.INVALID
        elif not all(np.isfinite(array).all() for array in arrays if np.issubdtype(array.dtype, np.inexact)):
            problem = Fault.NOT_FINITE
    return replace(Reply(reply.site, task.digest, seconds=reply.seconds), fault=problem) if problem else reply
