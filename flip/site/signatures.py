"""What a person at a site signs: a text, for one purpose, with a name and a day; Ed25519 (RFC 8032)."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flip.config.approvers import public_bytes


@dataclass(frozen=True)
class Signature:
    """One person's, Ed25519 in base64, over the text, that name and the day (UTC)."""

    name: str
    signed: str
    signature: str


def today() -> date:
    """The day, in UTC."""
    return datetime.now(UTC).date()


def message(purpose: bytes, text: str, name: str, day: str) -> bytes:
    """What a person signs; `purpose` is such that no other signature of the same key is one of these."""
    return purpose + json.dumps([text, name, day], sort_keys=True, separators=(",", ":")).encode()


def sign(purpose: bytes, text: str, name: str, key: Ed25519PrivateKey) -> Signature:
    """A signature of today."""
    day = today().isoformat()
    return Signature(name, day, base64.b64encode(key.sign(message(purpose, text, name, day))).decode())


def signers(purpose: bytes, text: str, signatures: Sequence[Signature], keys: Mapping[str, str]) -> set[str]:
    """The listed persons whose signature is whole."""
    return {each.name for each in signatures if _is_whole(purpose, text, each, keys)}


def _is_whole(purpose: bytes, text: str, each: Signature, keys: Mapping[str, str]) -> bool:
    key = public_bytes(keys.get(each.name)) if isinstance(each.name, str) else None
    if key is None:
        return False
    try:
        signature = base64.b64decode(each.signature, validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message(purpose, text, each.name, each.signed))
    except (InvalidSignature, binascii.Error, TypeError, ValueError):
        return False
    return True
