"""The rules of a site's policy: their names, a hospital's bounds, and what is wrong with a value."""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flip.errors import nearest

REQUIRED = "required"
REFUSED, ANSWERED = "refused", "answered"  # what becomes of a cohort that differs by few from one answered about
SHA256 = re.compile("[0-9a-f]{64}")
UNITS = {
    "minimum_persons": "persons",
    "minimum_cell": "persons",
    "rounding": "persons",
    "maximum_questions": "questions",
    "least_sites": "sites",
}
"""The rules that are whole numbers of 1 or more, and what they count."""
RELEASES = ("statistics", "describe", "metrics", "outcomes", "weights", "levels")
"""The kinds of what may leave a site: what sites agree on before the first round, a cohort's description (job=check,
job=statistics), losses and metrics, what a study adds to the report, trained weights, and the names of levels that the
data hold and the study does not declare."""
DECLARED = RELEASES[:-1]  # what leaves a hospital whose file does not say it: no text of its records

DEPLOYED: Mapping[str, float] = {
    "minimum_batch": 2,
    "persons_per_parameter": 3,
    "maximum_parameters": 100_000_000,
    "maximum_rounds": 200,
    "maximum_steps": 2_000,
    "maximum_seconds": 6 * 3600,
    "maximum_memory": 32,
    "maximum_change": 0.05,
    "share": 0.5,
}
"""A hospital's bounds where its file does not state them. Honest rounds of heart, dermatology, notes,
radiographs and lung moved the weights by .006 to .043 in three to five rounds; a cyclic round moved them by .13."""
REAL = ("maximum_seconds", "maximum_memory", "maximum_change", "share")  # those of the bounds that need not be whole


def lists(value: Mapping[str, Any], *, deployed: bool) -> dict[str, Sequence[str] | None]:
    """The rules that are lists, those of a hospital where its file does not state them; null is any."""
    strict: dict[str, Sequence[str] | None] = {"releases": DECLARED, "models": (), "trackers": ()}
    lists = strict if deployed else {}
    for key in ("targets", *strict):
        if key in value:
            lists[key] = None if value[key] is None else tuple(value[key])
    return lists


def units(
    where: str, value: Mapping[str, object], misspelt: Sequence[str], defaults: Mapping[str, object]
) -> Iterator[str]:
    """What is no whole number of persons, questions or sites; a rule that is there, `misspelt`, is not missed too."""
    for key, unit in UNITS.items():
        if key not in value and key in misspelt:
            continue
        number = value.get(key, defaults.get(key))
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            yield f"{where}.{key}={number!r}: must be a whole number of {unit}, 1 or more"


def bounds(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no number, or beyond what a bound may be."""
    for key in DEPLOYED:
        if key not in value:
            continue
        number, kinds = value[key], (int, float) if key in REAL else (int,)
        least = 0 if key == "persons_per_parameter" else math.ulp(0)  # 0: no such rule
        most = 1 if key == "share" else sys.float_info.max
        if not isinstance(number, kinds) or isinstance(number, bool) or not least <= number <= most:
            kind = "number above 0" if float in kinds else "whole number above 0" if least else "whole number"
            yield f"{where}.{key}={number!r}: must be a {kind}{', at most 1' if key == 'share' else ''}"


def is_sha256(value: object) -> bool:
    """Whether a value is a sha256 as the engine writes one."""
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def models(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no digest of a model's weights."""
    named = value.get("models")
    if named is not None and not isinstance(named, list | tuple):
        yield f"{where}.models={named!r}: must be a list of digests of models, or null for any"
        return
    for each in named or ():
        if not is_sha256(each):
            yield (
                f"{where}.models: {each!r} is no sha256 of 64 digits, as in a run's result.json `digest`, to begin "
                "from its weights, and `model`, to apply it"
            )


def releases(where: str, value: Mapping[str, object]) -> Iterator[str]:
    """What is no kind of what may leave, or no way of asking that it leaves in sums alone, or of cohorts far apart."""
    if (near := value.get("near_cohorts", REFUSED)) not in (REFUSED, ANSWERED):
        yield f"{where}.near_cohorts={near!r}: must be {REFUSED}, or {ANSWERED} for no such rule"
    if (secure := value.get("secure_aggregation")) not in (None, REQUIRED):
        yield f"{where}.secure_aggregation={secure!r}: must be {REQUIRED}, or null for no such rule"
    told = value.get("trackers")
    if told is not None and not (isinstance(told, list | tuple) and all(isinstance(each, str) for each in told)):
        yield f"{where}.trackers={told!r}: must be a list of names, as in [wandb], or null for any"
    named = value.get("releases", RELEASES)
    if not isinstance(named, list | tuple):
        yield f"{where}.releases={named!r}: must be a list of {', '.join(RELEASES)}"
        return
    for each in named:
        if each not in RELEASES:
            yield f"{where}.releases: {each!r} is no kind of what may leave; {nearest(str(each), RELEASES)}"
