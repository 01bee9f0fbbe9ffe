"""Who at a site may approve a study, and release what would leave, by the public keys that its own file lists."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from flip.errors import UserError, nearest
from flip.messages.stages import STAGES

NONE = "none"
"""What a site's file says where its data manager asks for no approval."""
KEY_BYTES = 32  # of an Ed25519 public key, RFC 8032
MOST_NEEDED = 2


@dataclass(frozen=True)
class Approvers:
    """The persons who may approve a study, and how many of them must.

    Attributes:
        keys: their public keys (Ed25519, RFC 8032) in base64, by name. Without any, nobody can approve.
        needed: signatures of different persons that an approval has, 1 or 2.
    """

    keys: Mapping[str, str]
    needed: int = 1

    @classmethod
    def read(cls, where: str, value: object) -> "Approvers | None":
        """Read `policy.approval`; None where it is `none`. Raises UserError with every mistake."""
        if value == NONE:
            return None
        rules = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r}: must hold {' and '.join(rules)}, or be {NONE} for no approval")
        problems = [
            f"{where}.{key}: no such rule; {nearest(key, rules)}" for key in sorted(map(str, {*value} - {*rules}))
        ]
        keys, needed = value.get("keys"), value.get("needed", 1)
        named = keys if isinstance(keys, Mapping) else {}
        if not named:
            problems.append(f"{where}.keys={keys!r}: must name at least one person; flip site key makes a key")
        for name, key in named.items():
            if not isinstance(name, str) or public_bytes(key) is None:
                problems.append(f"{where}.keys.{name}: is no public key; write what flip site key printed")
        known = [key for each in named.values() if (key := public_bytes(each)) is not None]
        if len({*known}) < len(known):
            problems.append(f"{where}.keys: two names have the same key; give each person an own one")
        if type(needed) is not int or needed not in range(1, MOST_NEEDED + 1):
            problems.append(f"{where}.needed={needed!r}: must be 1 or 2 signatures")
        elif 0 < len(named) < needed:
            problems.append(f"{where}.needed={needed}: is more than the persons in keys; name another")
        if problems:
            raise UserError(problems)
        return cls({str(name): str(key) for name, key in sorted(named.items())}, needed)


@dataclass(frozen=True)
class Release:
    """At which stages of a run nothing leaves before persons at the site have seen it, and who they are.

    Attributes:
        stages: some of `STAGES`.
        by: the persons, and how many of them must release or refuse.
    """

    stages: Sequence[str]
    by: Approvers

    @classmethod
    def read(cls, where: str, value: object) -> "Release":
        """Read `policy.release`. Raises UserError with every mistake."""
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r}: must hold stages, keys and needed, or be null: all leaves at once")
        problems, stages = [], value.get("stages")
        named = list(stages) if isinstance(stages, list | tuple) else []
        if not named:
            problems.append(f"{where}.stages={stages!r}: must be a list of {', '.join(STAGES)}")
        for each in named:
            if each not in STAGES:
                problems.append(f"{where}.stages: {each!r} is no stage of a run; {nearest(str(each), STAGES)}")
        try:
            by = Approvers.read(where, {key: each for key, each in value.items() if key != "stages"})
        except UserError as error:
            problems += error.problems
        if problems or by is None:
            raise UserError(problems)
        return cls(tuple(each for each in STAGES if each in named), by)


NOBODY = Approvers({})
"""A hospital whose file does not say who may approve: every study is refused."""


def unasked(policy: object) -> object:
    """The `policy` of a hospital's file for what its owner runs there alone, of which nothing leaves: none is asked."""
    if not isinstance(policy, Mapping):
        return policy
    unseen = {"approval": NONE, "release": None}
    return {**policy, **{rule: unseen[rule] for rule in unseen if rule in policy}}


def public_bytes(key: object) -> bytes | None:
    """The bytes of a public key in base64; None for anything else."""
    try:
        found = base64.b64decode(key, validate=True) if isinstance(key, str) else b""
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == KEY_BYTES and base64.b64encode(found).decode() == key else None
