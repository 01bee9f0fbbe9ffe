"""What an approval covers: a study's manifest to the byte, but for free keys, each with the values that it may have.

Free can be what changes neither whose rows are read, nor how large the model is, nor how often the site is asked: the
seed, the run's name, numbers of the optimizer, the strategy, and numbers that are that strategy's own.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from typing import Any, NoReturn

from flip.config.free_keys import ANY, ONE_OF, STRATEGY, Values, unfit_free
from flip.config.opt_out import list_digest
from flip.config.schema import Site

SHOWN = 5  # keys that a line names
DATA = ("root", "columns", "person", "sources", "cohort")  # of a site's file: which data a person has looked at

Free = Mapping[str, object]
"""By key `any`, {between: [least, most]} or {one_of: [...]}; of `strategy` whole strategies, with all their keys."""


def canonical(value: object) -> str:
    """JSON as manifests are written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def data_of(site: Site) -> str:
    """Sha256 over what a site's file says of its data: where they lie, whose they are, and who has opted out.

    It never travels. Raises UserError for a list of who has opted out that cannot be read.
    """
    said = {key: getattr(site, key) for key in DATA} | {"opt_out": list_digest(site)}
    return hashlib.sha256(canonical(said).encode()).hexdigest()


@dataclass(frozen=True)
class Envelope:
    """What persons at a site sign.

    Attributes:
        site: the site's name in the roster.
        data: `data_of` its file.
        manifest: the study that they have seen.
        free: keys of it that may have other values.
        runs: runs of such studies that may ask for anything, 1 or more.
        reason: why it is approved. ethics: the reference of the ethics committee's decision.
        expires: the last day on which it holds, in UTC.
    """

    site: str
    data: str
    manifest: Values
    free: Free
    runs: int
    reason: str
    ethics: str
    expires: str

    @classmethod
    def read(cls, value: object) -> "Envelope":
        """From JSON. Raises ValueError for what is none."""
        keys = cls.__dataclass_fields__
        if not isinstance(value, dict) or {*value} != {*keys}:
            raise ValueError(f"an envelope holds {', '.join(keys)}")
        texts = all(isinstance(value[key], str) for key in ("site", "data", "reason", "ethics", "expires"))
        if not texts or not isinstance(value["manifest"], dict) or not isinstance(value["free"], dict):
            raise ValueError("a part of the envelope has another type")
        if type(value["runs"]) is not int or value["runs"] < 1:
            raise ValueError("runs is no whole number of 1 or more")
        date.fromisoformat(value["expires"])
        if unfit := [*unfit_free(value["manifest"], value["free"])]:
            raise ValueError("; ".join(unfit))
        return cls(**value)

    @cached_property
    def text(self) -> str:
        """The envelope as it is signed."""
        return canonical(asdict(self))

    @cached_property
    def digest(self) -> str:
        """Sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def uncovered(self, text: str) -> str:
        """Why this does not cover a manifest, as it was sent; nothing where it does."""
        try:
            asked = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return "the manifest is no JSON"
        if not isinstance(asked, dict) or canonical(asked) != text:
            return "the manifest is not written as a coordinator writes it"
        free = {key: rule for key, rule in self.free.items() if key != STRATEGY}
        beyond = [key for key, rule in free.items() if not _within(rule, _found(asked, key))]
        masked, nearest = canonical(_masked(asked, free)), None
        for known in self._variants():
            if canonical(_masked(known, free)) == masked:
                return f"{', '.join(beyond[:SHOWN])}: beyond what is free" if beyond else ""
            others = [*_others(_masked(known, free), _masked(asked, free), "")]
            nearest = others if nearest is None or len(others) < len(nearest) else nearest
        return f"not as approved: {', '.join(ascii(each)[1:-1][:80] for each in (nearest or [])[:SHOWN])}"

    def _variants(self) -> Iterator[Values]:
        """The manifest with each strategy that it may have."""
        rule = self.free.get(STRATEGY)
        choices = rule.get(ONE_OF, []) if isinstance(rule, dict) else [self.manifest[STRATEGY]]
        for choice in choices:
            yield {**self.manifest, STRATEGY: choice}


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


class _Absent:
    """Of a key that a manifest does not have."""


def _found(manifest: Values, key: str) -> object:
    value: object = manifest
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _Absent
        value = value[part]
    return value


def _within(rule: object, value: object) -> bool:
    """Whether a value is one that a free key may have; a key that is not there has none, as of another strategy."""
    if value is _Absent:
        return True
    if rule == ANY:
        return is_number(value) or isinstance(value, str)
    match rule:
        case {"between": [least, most], **more} if not more:
            return is_number(value) and least <= value <= most
        case {"one_of": [*choices], **more} if not more:
            return canonical(value) in map(canonical, choices)
    return False


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _masked(manifest: Values, free: Free) -> Values:
    """A manifest with null in place of each free number or text of the same type as it is there."""
    copy: dict[str, Any] = json.loads(canonical(manifest))
    for key in free:
        *path, last = key.split(".")
        owner = _found(copy, ".".join(path)) if path else copy
        if isinstance(owner, dict) and last in owner:
            owner[last] = "text" if isinstance(owner[last], str) else "number" if is_number(owner[last]) else None
    return copy


def _others(known: object, asked: object, key: str) -> Iterator[str]:
    """The keys in which two manifests differ, for a log."""
    if isinstance(known, dict) and isinstance(asked, dict):
        for name in sorted({*known, *asked}):
            yield from _others(known.get(name, _Absent), asked.get(name, _Absent), f"{key}.{name}" if key else name)
    elif known is _Absent or asked is _Absent or canonical(known) != canonical(asked):
        yield key
