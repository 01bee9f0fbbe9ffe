"""What the coordinator writes down of a study, and the form of a line of `rounds.jsonl`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flip.files import POOLED
from flip.messages import Payload, Reply, Task
from flip.messages.model_file import ModelFile
from flip.messages.summary import Summaries, Summary
from flip.privacy import UNIT
from flip.strategies.fedavg import State


@dataclass(frozen=True)
class Progress:
    """Where a study stands after a complete round: all that a resume needs at the coordinator.

    Random state is not among it: what is drawn in a round is a function of the study's seed and the round.

    Attributes:
        round: the last complete round, from 0.
        weights: shared weights after it.
        state: the strategy's arrays after it.
        agreed: what all sites agreed on before the first round (`statistics/...`).
        best: the best validation score so far, or None.
        privacy: by site, epsilon and delta spent so far.
        best_watched: the best value so far of the metric that `strategy.stop` watches, or None.
        waited: rounds since then.
    """

    round: int
    weights: Payload
    state: State
    agreed: Payload
    best: float | None
    privacy: Mapping[str, Mapping[str, float]]
    best_watched: float | None = None
    waited: int = 0


class Recorder(Protocol):
    """Where the loop writes down what happens (`flip.runs.folder.RunFolder`)."""

    def line(self, record: Mapping[str, object]) -> None:
        """One line per round, site and phase."""

    def cohort(self, cohort: Mapping[str, Mapping[str, Any]]) -> None:
        """Persons, examples and what was skipped, by site."""

    def description(self, job: str, edges: Payload, found: Mapping[str, Summaries]) -> None:
        """What the sites tell of their cohorts, by site, and the edges of the histograms' bins, by column."""

    def plan(self, settings: str) -> None:
        """Settings that `job=plan` proposes, as YAML."""

    def complete(self, progress: Progress) -> None:
        """All that a resume needs after a round."""

    def best(self, model: ModelFile) -> None:
        """The model with the best validation score so far."""

    def panels(self, panels: Sequence[Mapping[str, object]]) -> None:
        """What the model shows of its test metrics in the report."""

    def outcomes(self, outcomes: Mapping[str, Mapping[str, Summary]]) -> None:
        """What the study adds to the report, by site."""


POOLED_LINE: dict[str, Any] = {
    "site": POOLED, "bytes_down": 0, "bytes_up": 0, "seconds": 0.0, "fault": None, "privacy": None,
    "journal": None,
}  # fmt: skip


def line_of(task: Task, reply: Reply, phase: str, unit: str = UNIT) -> dict[str, Any]:
    """The line of one reply: what it says, its size and its seconds; `unit` is of whom its epsilon is."""
    named = reply.metrics.items()
    metrics = {name: value for name, value in named if not name.startswith("privacy/") and math.isfinite(value)}
    spent = {name.removeprefix("privacy/"): value for name, value in named if name.startswith("privacy/")}
    own = size(reply.weights) + size(reply.state) if reply.sent is None else reply.sent
    aggregates = [each.values.nbytes for told in reply.summaries.values() for each in told.values()]
    return {
        "round": task.round,
        "site": reply.site,
        "phase": phase,
        "examples": reply.examples,
        "metrics": metrics,
        "bytes_down": size(task.weights) + size(task.state),
        "bytes_up": own + sum(aggregates),
        "seconds": round(reply.seconds, 6),
        "fault": reply.fault.name if reply.fault else None,
        "privacy": {**spent, "unit": unit} if set(spent) == {"epsilon", "delta"} else None,
        "journal": reply.journal or None,
    }


def size(arrays: Payload) -> int:
    """Bytes of the arrays."""
    return sum(array.nbytes for array in arrays.values())
