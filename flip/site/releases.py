"""Which kinds of what may leave do leave: the site's own list, over all that the other rules of disclosure let through.

The list is closed: a kind that it does not name stays. A task whose whole answer is of such a kind is refused.

Under a mechanism of differential privacy there is a second list, `UNDER_NOISE`, over every field of a reply: what has
no noise stays, whoever is behind it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from flip.messages import Fault, Withheld
from flip.messages.summary import Summary, Topic
from flip.privacy.noised import Noised
from flip.site.refusal import Refusal

OF_TOPIC: Mapping[Topic, str] = {
    **dict.fromkeys((Topic.STATISTICS, Topic.SKIPPED, Topic.ABSENT, Topic.COMPARED), "statistics"),
    **dict.fromkeys((Topic.WARNINGS, Topic.REMARKS), "statistics"),
    **dict.fromkeys((Topic.DESCRIPTION, Topic.SHAPE), "describe"),
    **dict.fromkeys((Topic.METRIC, Topic.RESCALED, Topic.SPREAD), "metrics"),
    Topic.OUTCOMES: "outcomes",
}
"""The kind of what a summary is about."""
WEIGHTS = "weights"
WHOLE = {"statistics": "statistics", "describe": "describe", "plan": "describe", "fit": WEIGHTS}
"""The steps whose answer is nothing without one kind."""
CONTENT = ("examples", "metrics", "weights", "state", "summaries")  # the fields of a reply that tell of the cohort
SPENT = "privacy/"  # how the names begin of what a mechanism says of itself


def kept_in(releases: Collection[str], step: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a reply without what stays. Raises Refusal where nothing would be left of it."""
    kind = WHOLE.get(step)
    if kind is not None and kind not in releases and any(fields.get(name) for name in CONTENT):
        raise Refusal(Fault.REFUSED_RULE, f"policy.releases: {kind} is not among them")
    kept, summaries = dict(fields), fields.get("summaries", {})
    if "metrics" not in releases and step != "statistics" and "metrics" in fields:
        kept["metrics"] = {name: value for name, value in fields["metrics"].items() if name.startswith(SPENT)}
    if "metrics" not in releases and step == "evaluate":
        states = {name.rpartition("/")[0] for name in summaries.get(Topic.METRIC, {})}
        named = {*fields.get("metrics", {}), *states} - {*fields.get("withheld", {})}
        kept |= {"examples": 0, "withheld": {**fields.get("withheld", {}), **dict.fromkeys(named, Withheld.RELEASES)}}
    if summaries:
        kept["summaries"] = {topic: each for topic, each in summaries.items() if OF_TOPIC[topic] in releases}
    return kept


# Under a mechanism of differential privacy.


def _as_it_is(value: object) -> object:
    return value


def _one(examples: int) -> int:
    """1 of any number: it says that there are some, and each site weighs the same in a mean."""
    return int(examples > 0)


def _spent(metrics: Mapping[str, float]) -> dict[str, float]:
    """What the mechanism says of itself."""
    return {name: value for name, value in metrics.items() if name.startswith(SPENT)}


def _noised(summaries: Mapping[Topic, Mapping[str, Summary]]) -> dict[Topic, dict[str, Summary]]:
    """The sums that have noise, as of one person: how many are behind them has none."""
    kept = {
        topic: {name: Summary(each.kind, each.values, 1) for name, each in named.items() if isinstance(each, Noised)}
        for topic, named in summaries.items()
        if NOISED[topic]
    }
    return {topic: named for topic, named in kept.items() if named}


def _no_reason_of_data(withheld: Mapping[str, Withheld]) -> dict[str, Withheld]:
    """The rules by which metrics stay; one that depends on the data would tell of them."""
    return {name: rule if rule is Withheld.RELEASES else Withheld.PRIVACY for name, rule in withheld.items()}


NOISED: Mapping[Topic, bool] = {
    **dict.fromkeys((Topic.STATISTICS, Topic.SKIPPED, Topic.ABSENT, Topic.COMPARED), False),
    **dict.fromkeys((Topic.WARNINGS, Topic.REMARKS, Topic.DESCRIPTION, Topic.SHAPE), False),
    **dict.fromkeys((Topic.RESCALED, Topic.SPREAD, Topic.OUTCOMES), False),
    Topic.METRIC: True,
}
"""Whether a summary about this can have noise; of all others nothing leaves."""
UNDER_NOISE: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(  # of no person
        ("site", "task_digest", "fault", "seconds", "fingerprint", "journal", "sent"), _as_it_is
    ),
    **dict.fromkeys(("weights", "state"), _as_it_is),  # of a fit that the mechanism protects
    "examples": _one,
    "metrics": _spent,
    "summaries": _noised,
    "withheld": _no_reason_of_data,
}
"""The rule of every field of a reply under a mechanism (`Mechanism.private`)."""


def under_noise(fields: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a reply without what has no noise."""
    return {name: UNDER_NOISE[name](value) for name, value in fields.items()}
