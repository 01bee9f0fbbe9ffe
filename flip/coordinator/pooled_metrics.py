"""Scores at the coordinator: what every site answers to an evaluation, the pooled metrics, and what is withheld."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flip.contracts import FederatedModule
from flip.contracts.model import DecidingModule
from flip.coordinator.check_replies import Wanted
from flip.coordinator.roster import SPENT
from flip.files import POOLED
from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.summary import Summary, Topic
from flip.privacy.noised import likeliest
from flip.runs.recorder import POOLED_LINE


@dataclass(frozen=True)
class Scored:
    """What an evaluation found: replies by site, and over the sites that train the sums of states and their metrics.

    `withheld` says by site which metrics stay there, and why. `rescaled` has, by place (`site/NAME`, "pooled"), the
    metrics of the same test rows scaled the other way (`ScaledForPooling`). `together` names the metrics whose pooled
    intervals take the rows of a person together. `faults` has why a site scored nothing.
    """

    replies: Mapping[str, Reply]
    states: Mapping[str, np.ndarray]
    pooled: Mapping[str, float]
    withheld: Mapping[str, Mapping[str, Withheld]]
    rescaled: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    together: frozenset[str] = frozenset()
    faults: Mapping[str, Fault] = field(default_factory=dict)

    @property
    def why_none(self) -> str:
        """Why no site has scored: each one's fault, or that none has rows."""
        faults = "; ".join(f"{site}: {fault.value}" for site, fault in sorted(self.faults.items()))
        return faults or "none has test data"

    @property
    def repeats(self) -> bool:
        """Whether some site has persons with several examples."""
        return any(
            summary.persons < reply.examples
            for reply in self.replies.values()
            for summary in reply.summaries.get(Topic.METRIC, {}).values()
        )

    def reasons(self, trains: Mapping[str, bool], summed: Collection[str]) -> dict[str, str]:
        """Why a metric is missing, by its name after `test/`: at each site and, of those that are `summed`, pooled."""
        found: dict[str, str] = {}
        together: dict[str, dict[Withheld, list[str]]] = {}
        for site, rules in self.withheld.items():
            found |= {f"site/{site}/{name}": rule.value for name, rule in rules.items()}
            for name, rule in rules.items() if trains[site] else ():
                together.setdefault(name, {}).setdefault(rule, []).append(site)
        for name, by_rule in together.items():
            if name in summed and name not in self.pooled:
                why = "; ".join(f"{rule.value} ({', '.join(sites)})" for rule, sites in by_rule.items())
                found[f"pooled/{name}"] = why
        return found

    def undecided(self, decided: Collection[str]) -> "Scored":
        """Without the metrics of a decision, by their own names: no threshold could be chosen for them."""

        def known(values: Mapping[str, float]) -> dict[str, float]:
            return {name: value for name, value in values.items() if bare(name) not in decided}

        kept = {site: replace(reply, metrics=known(reply.metrics)) for site, reply in self.replies.items()}
        rules = dict.fromkeys(decided, Withheld.THRESHOLD)
        withheld = {**self.withheld, **{site: {**self.withheld.get(site, {}), **rules} for site in kept}}
        rescaled = {place: known(values) for place, values in self.rescaled.items()}
        return replace(self, replies=kept, pooled=known(self.pooled), withheld=withheld, rescaled=rescaled)

    def line(self, task: Task, phase: str, trains: Mapping[str, bool]) -> dict[str, object]:
        """The pooled line of `rounds.jsonl`."""
        examples = sum(reply.examples for site, reply in self.replies.items() if trains[site])
        return {**POOLED_LINE, "round": task.round, "phase": phase, "examples": examples, "metrics": dict(self.pooled)}


def bare(name: str) -> str:
    """A metric's own name, without its subgroup and the end of its interval."""
    from flip.metrics import HIGH, LOW

    return name.removesuffix(f"/{LOW}").removesuffix(f"/{HIGH}").rpartition("/")[2]


def wanted_scores(module: FederatedModule, split: str, *, noised: bool = False) -> Wanted:
    """What the reply to an evaluation may hold; of sums with noise also what the site has spent."""
    from flip.metrics import names_of, states_of

    names = names_of(module, split) | (SPENT if noised else frozenset())
    return Wanted({}, {}, names, states_of(module, split), {}, noised)


def merge_scores(
    replies: Iterable[Reply], module: FederatedModule, split: str, trains: Mapping[str, bool], *, noised: bool = False
) -> Scored:
    """Add up what the sites sent; sums with noise (`noised`) have no intervals.

    A pooled metric over some of the scored sites would pass for one over all: it is left out if one of them kept its
    states. A site whose whole split is too small is not scored, and `Withheld.SPLIT` says that pooled numbers lack it.
    """
    from flip.metrics import gaps, levels_of, metrics_of, states_of, values_from_states, widened

    found: dict[str, Reply] = {}
    withheld: dict[str, Mapping[str, Withheld]] = {}
    for reply in replies:
        if reply.withheld:
            withheld[reply.site] = reply.withheld
        if reply.fault is not None or not reply.examples:
            continue
        found[reply.site] = reply
    trained = [reply for site, reply in found.items() if trains[site]]
    metrics, states = metrics_of(module, split), summed_states(trained, Topic.METRIC)
    if noised:
        states = likeliest(states, states_of(module, split))
        found = {site: valued(reply, module, split) for site, reply in found.items()}
    pooled = values_from_states(metrics, states, intervals=split == "test" and not noised)
    rescaled = {
        f"site/{site}": values_from_states(metrics, summed_states([reply], Topic.RESCALED))
        for site, reply in found.items()
    }
    rescaled[POOLED] = values_from_states(metrics, summed_states(trained, Topic.RESCALED), intervals=True)
    together = summed(trained, Topic.SPREAD)
    for name, each in together.items():
        for of_rows in (pooled, rescaled[POOLED]):
            of_rows |= widened(of_rows, metrics[name], name, spread=each.values, persons=each.persons)
    pooled |= gaps(pooled, levels_of(module))
    return Scored(found, states, pooled, withheld, rescaled=rescaled, together=frozenset(together))


def valued(reply: Reply, module: FederatedModule, split: str) -> Reply:
    """A site's reply with the values that its sums under noise are likeliest to stand for; of how many rows stays."""
    from flip.metrics import metrics_of, states_of, values_from_states

    sent = reply.summaries.get(Topic.METRIC, {})
    states = likeliest({name: each.values for name, each in sent.items()}, states_of(module, split))
    sums = {name: replace(each, values=states[name]) for name, each in sent.items()}
    values = values_from_states(metrics_of(module, split), states)
    return replace(reply, examples=0, metrics=values, summaries={**reply.summaries, Topic.METRIC: sums})


def summed(replies: Sequence[Reply], topic: Topic) -> dict[str, Summary]:
    """The sums of a topic over those sites that sent them, by name."""
    merged: dict[str, Summary] = {}
    for reply in replies:
        merge_into(merged, reply.summaries.get(topic, {}))
    return merged


def summed_states(replies: Sequence[Reply], topic: Topic) -> dict[str, np.ndarray]:
    """The states of metrics over several sites, by `metric/state`; only those that each of them sent."""
    sent = Counter(name for reply in replies for name in reply.summaries.get(topic, {}))
    merged = summed(replies, topic)
    return {name: each.values for name, each in merged.items() if sent[name] == len(replies)}


def site_values(reply: Reply, module: FederatedModule) -> dict[str, float]:
    """A site's metrics with the gaps between its subgroups."""
    from flip.metrics import gaps, levels_of

    values = {name: value for name, value in reply.metrics.items() if math.isfinite(value)}
    return {**values, **gaps(values, levels_of(module))}


def threshold_from(module: DecidingModule, states: Mapping[str, np.ndarray]) -> float | None:
    """The decision threshold that the module chooses from the sums of validation data; None where they do not tell.

    A metric whose states a site withholds is empty, as before any data.
    """
    from flip.metrics import filled

    for metric in module.metrics.values():
        metric.reset()
    metrics = filled(module.metrics, states)
    chosen = module.choose_threshold()
    for metric in metrics.values():
        metric.reset()
    return chosen


def merge_into(merged: dict[str, Summary], summaries: Mapping[str, Summary]) -> None:
    """Add one site's summaries to the sums so far."""
    for name, summary in summaries.items():
        merged[name] = merged[name].merge(summary) if name in merged else summary
