"""Which kinds of what may leave do leave: the site's own list, over all that the other rules of disclosure let through.

The list is closed: a kind that it does not name stays. A task whose whole answer is of such a kind is refused.
"""

from collections.abc import Collection, Mapping
from typing import Any

from flip.messages import Fault, Withheld
from flip.messages.summary import Topic
from flip.site.refusal import Refusal

OF_TOPIC: Mapping[Topic, str] = {
    **dict.fromkeys((Topic.STATISTICS, Topic.SKIPPED, Topic.ABSENT, Topic.COMPARED), "statistics"),
    **dict.fromkeys((Topic.WARNINGS, Topic.REMARKS), "statistics"),
    **dict.fromkeys((Topic.DESCRIPTION, Topic.SHAPE), "describe"),
    **dict.fromkeys((Topic.METRIC, Topic.RESCALED, Topic.SPREAD), "metrics"),
    Topic.OUTCOMES: "outcomes",
}
"""The kind of what a summary is about."""
WHOLE = {"statistics": "statistics", "describe": "describe", "fit": "weights"}
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
