"""Keys of one round of a secure sum: what a site draws, signs and agrees on with each other one."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY, SIGNATURE = 32, 64  # bytes
SIGNED = 2 * KEY + SIGNATURE  # of what a site says of its keys


class Broken(ValueError):
    """What another party sent breaks the protocol of a secure sum: the site takes no further step of the round."""


@dataclass(frozen=True)
class Round:
    """One round of one run: nothing that was signed or agreed on in it holds in another."""

    run: str
    number: int

    def salt(self, *more: str) -> bytes:
        """Sha256 over the round and more words; no two lists of words have the same."""
        return hashlib.sha256(json.dumps(["flip secure sum", self.run, self.number, *more]).encode()).digest()


@dataclass(frozen=True)
class Pair:
    """A site's two private keys of a round, 32 bytes each: one hides shares on their way, one makes masks."""

    hides: bytes
    masks: bytes

    @classmethod
    def draw(cls) -> "Pair":
        """From the operating system's generator."""
        return cls(os.urandom(KEY), os.urandom(KEY))

    def signed(self, identity: Ed25519PrivateKey, round: Round, site: str) -> bytes:
        """Both public keys, and the site's signature over them, the round and its name."""
        both = public(self.hides) + public(self.masks)
        return both + identity.sign(round.salt("keys", site) + both)


def identity_of(key: bytes) -> Ed25519PrivateKey:
    """A site's identity key, of 32 bytes that it alone has; its public half stands in the roster of the others."""
    made = HKDF(SHA256(), KEY, None, b"flip secure sum: identity").derive(key)
    return Ed25519PrivateKey.from_private_bytes(made)


def public(private: bytes) -> bytes:
    """The public half of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def verified(said: Mapping[str, bytes], roster: Mapping[str, bytes], round: Round) -> dict[str, tuple[bytes, bytes]]:
    """The public keys of sites, once each is in the roster and has signed its own for this round. Raises Broken."""
    found = {}
    for site, each in said.items():
        if site not in roster:
            raise Broken(f"a site that is not in the roster: {site[:80]!a}")
        both, signature = each[: 2 * KEY], each[2 * KEY :]
        try:
            Ed25519PublicKey.from_public_bytes(roster[site]).verify(signature, round.salt("keys", site) + both)
        except InvalidSignature as error:
            raise Broken(f"keys that {site} did not sign for this round") from error
        found[site] = (both[:KEY], both[KEY:])
    if len({key for pair in found.values() for key in pair}) < 2 * len(found):
        raise Broken("two sites with the same key")
    return found


def agreed(own: bytes, other: bytes, salt: bytes) -> bytes:
    """The key that two X25519 keys agree on for one use. Raises Broken for a public key of low order."""
    try:
        shared = X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise Broken("a public key that agrees on nothing") from error
    return derived(shared, salt)


def derived(secret: bytes, salt: bytes) -> bytes:
    """The key of a secret for one use (RFC 5869)."""
    return HKDF(SHA256(), KEY, salt, b"flip secure sum").derive(secret)


def hidden(key: bytes, text: bytes, salt: bytes) -> bytes:
    """A text that the holder of the key alone can read, and nobody else make; a key hides one text."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), text, salt)


def found(key: bytes, text: bytes, salt: bytes) -> bytes:
    """The inverse of `hidden`. Raises Broken for what was not hidden with this key."""
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), text, salt)
    except InvalidTag as error:
        raise Broken("shares that their sender did not hide for this site and round") from error
