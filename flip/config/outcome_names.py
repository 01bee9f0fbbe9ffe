"""The names of what a study predicts, in the declared order, as the report shows them."""

from collections.abc import Mapping, Sequence


def outcome_names(dataset: Mapping[str, object]) -> list[str]:
    """The names of the outcomes that a study's dataset declares; empty where it names none.

    `dataset` is that part of the manifest: levels or columns of its `target`, its `structures`, or its `label`, name
    the outcomes. Of a site nothing is read: a name that came from one could tell of a person.
    """
    target = dataset.get("target") or {}
    target = target if isinstance(target, Mapping) else {}
    positive = _words(target.get("positive"))
    match target:
        case {"levels": [*levels]}:
            return [str(level) for level in levels]
        case {"columns": [*columns]}:
            return [str(column) for column in columns]
        case {"time": _, "event": event}:
            return ["censored", f"{event} {positive}".strip()]
        case {"column": column}:
            return [f"{column} other", f"{column} {positive}".strip()]
    if isinstance(structures := dataset.get("structures"), list):
        return [str(each) for each in structures]
    if isinstance(label := dataset.get("label"), str):
        above = dataset.get("positive_above", 0)
        return [f"{label} up to {above:g}", f"{label} above {above:g}"]
    return []


def _words(positive: object) -> str:
    """The levels that count as yes."""
    if positive is None:
        return ""
    found: Sequence[object] = positive if isinstance(positive, list | tuple) else [positive]
    return " or ".join(str(each) for each in found)
