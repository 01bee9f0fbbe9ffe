"""Scores at the coordinator: validation after each round, the decision threshold, and the one reading of the test."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flip.contracts import Decides, FederatedModule, NamesUnits, Outcomes
from flip.coordinator.panels import panels_of
from flip.coordinator.pooled_metrics import Scored, merge_scores, site_values, threshold_from, wanted_scores
from flip.coordinator.roster import Roster, noting
from flip.errors import StudyFailed
from flip.files import POOLED, RESCALED
from flip.messages import Ask, Fault, Payload, Scalar, Task
from flip.messages.summary import Topic
from flip.privacy import Mechanism
from flip.privacy.noised import counts_of, deviation

if TYPE_CHECKING:
    from flip.contracts.model import TrainableModule

POOLED_TEST = f"test/{POOLED}/"
TEST = "test"  # the stage, and the first part of the metrics' names, of the study's own model


@dataclass
class Evaluation:
    """What the weights of one study are worth, at the sites of its roster.

    Args:
        roster: the sites.
        module: the study's module at the coordinator: the metrics to merge.
        outcomes: the study's own class of outcomes, or None.
        rounds: how many rounds the study has; after the last one how many it had.
        private: the mechanism under which metrics leave the sites with noise alone, or None.

    Attributes:
        metrics: what was found on the test split, by the names of `result.json`.
        withheld: by the same names, why a metric is missing there.
        methods: how the intervals were made, by metric; under "subgroups" what is to know of those.
        units: the unit of each metric that has one.
        best: the best pooled validation score so far, or None.
        threshold: from which the main model decides yes, chosen or given; None where it chooses none.
        noise: by metric of the study's own model, the deviation of the noise on each of its counts at a site, in rows.
    """

    roster: Roster
    module: "TrainableModule"
    outcomes: Outcomes | None
    rounds: int
    private: Mechanism | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    best: float | None = None
    threshold: float | None = None
    noise: dict[str, float] = field(default_factory=dict)

    def validate(self, ask: Ask, number: int, weights: Payload) -> Mapping[str, float]:
        """Score the weights of a round on the validation split, and keep them if they are the best.

        Returns the pooled metrics.
        """
        scored = self._score(ask, self.roster.task("evaluate", number, weights, split="validate"), "validate")
        self.keep_best(scored.pooled, lambda: weights)
        return scored.pooled

    def keep_best(self, metrics: Mapping[str, float], weights: Callable[[], Payload]) -> None:
        """Keep the weights if the main validation metric is the best so far."""
        score = metrics.get(self.module.monitor, math.nan)
        if math.isnan(score):
            return
        better = self.best is None or (score > self.best if self.module.higher_is_better else score < self.best)
        if better:
            self.best = score
            self.roster.recorder.best(self.roster.model(weights()))

    def test(
        self,
        ask: Ask,
        stage: str,
        weights: Payload,
        prefix: str,
        *,
        main: bool = False,
        alone: str = "",
        model: str = "",
        sites: Sequence[str] | None = None,
        pooled: bool = False,
        threshold: float | None = None,
    ) -> None:
        """Read the test split, once for these weights; `prefix` starts the names of the metrics.

        `main`: the model that the run is about. `alone` names the site that trained these weights by itself: its own
        validation data give the threshold; where none can be chosen, metrics of a decision are withheld; `threshold`
        is one chosen before. `pooled`: they were trained on the pooled cohort, and are scored on rows scaled as its
        were. `model`: digest of weights that the sites have. Raises StudyFailed where no site scores for `main`.
        """
        said: dict[str, Scalar] = {"alone": alone, "pooled": pooled, "model": model}
        own = {name: value for name, value in said.items() if value}
        chosen = None if threshold is None else {"threshold": threshold}
        decided = chosen or self._threshold(ask, stage, weights, own, sites)
        task = self._task(stage, weights, split="test", outcomes=main, **(decided or {}), **own)
        scored = self._score(ask, task, stage, sites)
        if sites is not None and not {*self.roster.sites(training=True)} <= {*sites}:
            scored = replace(scored, pooled={}, rescaled={})  # over other rows than the run's own
        if self.roster.held:  # over fewer sites than the run will have
            return
        if main and not (scored.replies or scored.withheld):
            raise StudyFailed(f"no site could score its test split: {scored.why_none}", scored.faults.values())
        if undecided := self.module.decided if decided is None and isinstance(self.module, Decides) else ():
            scored = scored.undecided(undecided)
        if main:
            self._tell(scored, decided or {}, undecided)
        self._keep(scored, prefix, decided or {})
        if main and self.outcomes is not None:
            self._report_outcomes(self.outcomes, scored)

    def _tell(self, scored: Scored, decided: Mapping[str, float], undecided: Collection[str]) -> None:
        """What is to know of the scores of the model that the run is about, and what is drawn of them."""
        from flip.metrics import methods_of, units_of

        self.threshold = decided.get("threshold")
        self.noise = noise_of(self.private, self.module)
        self.units = units_of(self.module)
        if self.private is None:
            self.methods = methods_of(self.module, repeats=scored.repeats, together=scored.together)
        self.roster.recorder.panels(panels_of(self.module, scored, self.roster.manifest, undecided))

    def _keep(self, scored: Scored, prefix: str, decided: Mapping[str, float]) -> None:
        """Take what was found into the run's metrics, and why others are missing."""
        from flip.metrics import metrics_of

        reasons = scored.reasons(self.roster.trains, metrics_of(self.module, "test"))
        self.withheld |= {f"{prefix}/{name}": why for name, why in reasons.items()}
        for site, reply in scored.replies.items():
            values = site_values(reply, self.module)
            self.metrics |= {f"{prefix}/site/{site}/{name}": value for name, value in values.items()}
        of_all = {**scored.pooled, **decided}
        self.metrics |= {f"{prefix}/{POOLED}/{name}": value for name, value in of_all.items()}
        for place, again in scored.rescaled.items():
            self.metrics |= {f"{prefix}/{RESCALED}/{place}/{name}": value for name, value in again.items()}

    def _report_outcomes(self, outcomes: Outcomes, scored: Scored) -> None:
        """What the study adds to the report, and its own metrics, the pooled ones over the sites that train."""
        found = {site: reply.summaries.get(Topic.OUTCOMES, {}) for site, reply in scored.replies.items()}
        self.roster.recorder.outcomes(found)
        self.units |= outcomes.units if isinstance(outcomes, NamesUnits) else {}
        arrays = {site: {name: summary.values for name, summary in named.items()} for site, named in found.items()}
        trained = {site: found for site, found in arrays.items() if self.roster.trains[site]}
        of_sites = {name: value for name, value in outcomes.metrics(arrays).items() if not name.startswith(POOLED_TEST)}
        of_all = {name: value for name, value in outcomes.metrics(trained).items() if name.startswith(POOLED_TEST)}
        self.metrics |= {**of_sites, **of_all}

    def _task(self, stage: str, weights: Payload, **params: Scalar) -> Task:
        return self.roster.task("evaluate", self.rounds - 1, weights, stage, **params)

    def _score(self, ask: Ask, task: Task, phase: str, sites: Sequence[str] | None = None) -> Scored:
        """Ask every site (or those named) to evaluate, and merge what they send."""
        roster, split = self.roster, str(task.params["split"])
        asked = sites if sites is not None else roster.sites(training=False)
        noised = self.private is not None
        faults: dict[str, Fault] = {}
        replies = noting(
            roster.asked(ask, task, asked, phase, wanted_scores(self.module, split, noised=noised)), faults
        )
        scored = replace(merge_scores(replies, self.module, split, roster.trains, noised=noised), faults=faults)
        roster.recorder.line(scored.line(task, phase, roster.trains))
        return scored

    def _threshold(
        self, ask: Ask, stage: str, weights: Payload, own: Mapping[str, Scalar], sites: Sequence[str] | None
    ) -> dict[str, float] | None:
        """The decision threshold for these weights, from validation data (its own, of a site alone).

        Empty for a model that chooses none, None where the data do not tell.
        """
        if not isinstance(self.module, Decides) or not self.module.chooses_threshold:
            return {}
        sites = [str(own["alone"])] if "alone" in own else sites or self.roster.sites(training=True)
        task = self._task(stage, weights, split="validate", **own)
        chosen = threshold_from(self.module, self._score(ask, task, "threshold", sites).states)
        return None if chosen is None else {"threshold": chosen}


def noise_of(private: Mechanism | None, module: FederatedModule) -> dict[str, float]:
    """By metric, the deviation of the noise on each of its counts at a site; empty without noise."""
    entry, counts = private.metrics_noise() if private else None, counts_of(dict(module.metrics.items()))
    if entry is None:
        return {}
    multiplier = float(entry["noise_multiplier"])
    return {name: deviation(each, counts, multiplier) for each in counts for name in each.metrics}
