"""The contract between the round loop, a strategy, a privacy mechanism, a transport and a site. Read this first.

The coordinator sends a `Task` to the sites through an `Ask`; each site answers it with one `Reply`. A transport
(`flip.federation`) provides an `Ask` and nothing else; `flip.site` answers; `flip.coordinator` asks.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from flip.files import FINE_TUNED
from flip.messages.summary import Summaries

Payload = Mapping[str, np.ndarray]
Scalar = str | int | float | bool
Result = TypeVar("Result")
TRACKERS = "trackers"
"""A parameter that every task may have: names of the online trackers that the study's numbers go to, with commas."""
ROOM = "room"
"""A parameter of a task whose reply holds arrays that were sent with another one: the bytes of those."""


class Fault(Enum):
    """Why a site gave no usable answer. Closed: what happened in detail stays in the site's own log."""

    RAISED = "the site's training or evaluation raised an error; its own log has the details"
    LOST = "the site was lost before it answered"
    TIMEOUT = "the site did not answer within federation.timeout"
    INVALID = "the site's reply did not fit the task (wrong task, missing or misshapen arrays)"
    NOT_FINITE = "the site's reply held NaN or infinite numbers"
    UNOPENED = "the sum over sites that this one's numbers are in was not opened: too few sites came to its end"
    IMPLAUSIBLE = "the site's reply held numbers that no fit or count gives (counts below 0, weights beyond all bounds)"
    DATA = "the site could not read its cohort; its own log has the details"
    DISK = "no space is left on the site's disk"
    GONE = "the site no longer has what it kept of the round that the run goes on from; start a new run"
    ENDED = (
        "the site's process ended before it answered: the task took longer or more memory than its policy permits, or "
        "a library crashed; its own log says which"
    )
    REFUSED_COHORT = "refused by the site's policy: fewer distinct persons than its minimum cohort"
    REFUSED_FEW_PERSONS = "refused by the site's policy: this rests on fewer distinct persons than its minimum cell"
    REFUSED_TARGET = "refused by the site's policy: the study names code that the site does not allow"
    REFUSED_RULE = "refused by the site's policy: a rule of its own, which its own log names"
    REFUSED_BUDGET = (
        "refused by the site: it would spend more privacy than the site's budget for its data has left, over all "
        "studies; its own log says how much"
    )
    REFUSED_WEIGHTS = (
        "refused by the site: the weights sent are not those that the study's own rounds can give; its own log says why"
    )
    REFUSED_APPROVAL = (
        "refused by the site: nobody there has approved this study as it is, or the approval is revoked, has expired "
        "or has no run left; send its manifest.json to the site, whose own log says more"
    )
    HELD = "held at the site until a person there has seen what would leave and releases it (flip site release)"
    REFUSED_RELEASE = "refused by the site: a person there has seen what would leave, and does not release it"
    REFUSED_MODEL = (
        "refused by the site's policy: the study brings a model trained elsewhere whose digest is not among its models"
    )
    REFUSED_NO_MODEL = (
        "refused by the site: no model in its own file has the sha256 that the study names; its own log has it"
    )
    REFUSED_PROTOCOL = (
        "refused: the task is none that the study has: an unknown step, round or array, or more questions than its "
        "rounds need; the site's own log names it"
    )
    REFUSED_QUESTION = (
        "refused by the site's policy: no further question about its cohort than its maximum_questions; a cohort "
        "described as before is answered"
    )
    REFUSED_NEAR = (
        "refused by the site's policy: its cohort differs by fewer persons than its minimum_cell from one that it has "
        "answered about, and both answers together would tell of them (near_cohorts)"
    )
    REFUSED_MANIFEST = "refused: the site's own check finds a mistake in the study, which its own log names"
    REFUSED_CODE = "refused: the site has another version of the engine or of the study's code installed"
    REFUSED_NUMERICS = (
        "refused: the study asks for numerics: portable, and the site's process computes otherwise; its log says why"
    )
    REFUSED_JOURNAL = (
        "refused: the site cannot write down in its journal what it is asked and what leaves it; its own log says why"
    )
    REFUSED_POLICY = "refused: the site's file does not hold a policy that permits this study"

    @property
    def refused(self) -> bool:
        """Whether the site chose not to take part."""
        return self.name.startswith("REFUSED")


class Withheld(Enum):
    """By which rule a metric stays at a site. Closed, like the faults: no number of a site's is in it."""

    SPLIT = "the split holds fewer distinct persons than the minimum cell of the site; pooled numbers are without it"
    CELL = "a count behind it holds fewer distinct persons than the minimum cell of the site"
    LEVEL = "a subgroup holds fewer distinct persons than the minimum cell of the site, or would tell of one that does"
    CURVE = "a class holds fewer than five minimum cells of the site, which leaves no unbiased curve"
    PARTNER = "it keeps the rows of a site, and no metric that sums says how many persons stand behind it"
    RELEASES = "the site's policy does not let metrics leave; pooled numbers are without it"
    PRIVACY = "the study's privacy mechanism lets no number leave a site without noise, and this one has none"
    THRESHOLD = "no decision threshold could be chosen: validation data have one class alone, or are withheld"


@dataclass(frozen=True)
class Task:
    """What the coordinator asks of a site.

    `round` counts from 0. `step` is "statistics", "describe", "plan", "begin", "fit", "evaluate", "measure", "predict",
    or a privacy mechanism's own. `state` holds the arrays of the strategy and the agreed statistics (`statistics/...`);
    `params` are flat scalars; `manifest` is the study as canonical JSON. The parameter `TRACKERS` is no part of the
    question: it changes neither the answer nor the digest.
    """

    run: str
    stage: str
    round: int
    step: str
    weights: Payload
    state: Payload
    params: Mapping[str, Scalar]
    manifest: str

    @cached_property
    def digest(self) -> str:
        """Sha256 over every field but `TRACKERS`; the same task always has the same digest."""
        from flip.messages.weights import digest

        params = {name: value for name, value in sorted(self.params.items()) if name != TRACKERS}
        head = [self.run, self.stage, self.round, self.step, params, self.manifest]
        text = json.dumps([head, digest(self.weights), digest(self.state)], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def rounds_behind(self) -> int:
        """How many rounds its weights have behind them: those before it, and its own where it comes after that."""
        return self.round + (self.step == "evaluate" or self.stage == FINE_TUNED)


@dataclass(frozen=True)
class Reply:
    """What a site answers: weights and strategy state as arrays, its number of examples, metrics, and aggregates.

    `withheld` names the metrics that stay at the site, and by which rule; `seconds` and `fingerprint` (of its data and
    its own file, under its secret) are for the record, and so is `journal`: number and seal of the site's own entry of
    this reply, `7:<64 hexadecimal digits>`, by which a journal that was cut is known; empty where there is none; and so
    are the bytes `sent`, which the coordinator notes where the arrays are a mean over sites.
    """

    site: str
    task_digest: str
    examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: Payload = field(default_factory=dict)
    state: Payload = field(default_factory=dict)
    summaries: Summaries = field(default_factory=dict)
    withheld: Mapping[str, Withheld] = field(default_factory=dict)
    fault: Fault | None = None
    seconds: float = 0.0
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    journal: str = ""
    sent: int | None = None


Ask = Callable[[Task, Sequence[str]], Iterator[Reply]]
"""Send a task to the named sites: exactly one reply per site, in the order of the names, a lost one with a fault."""

Answer = Callable[[Task], Reply]
"""How a site answers a task (`Silo.answer`, or that wrapped by privacy mechanisms)."""


class Transport(Protocol):
    """A federation backend: runs the coordinator's program with an `Ask` that reaches the sites."""

    def run(self, program: Callable[[Ask], Result], sites: Mapping[str, Path]) -> Result:
        """Run `program(ask)`; `sites` maps a site to its own file, beside which lies its home of the same name."""
        ...
