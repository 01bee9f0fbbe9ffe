"""Keys of one round of a secure sum: what a site draws, signs and agrees on with each other one."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flip.privacy import Broken

KEY, SIGNATURE, WEIGHT = 32, 64, 8  # bytes
SIGNED = 4 * KEY + WEIGHT + SIGNATURE  # of what a site says of its keys


@dataclass(frozen=True)
class Round:
    """One try at the sum of one fit: nothing that was signed or agreed on in it holds in another.

    Attributes:
        run: the run.
        number: its round.
        session: which try, by the coordinator's word for it.
        fit: digest of the task that was trained on: sites that were sent other weights are not in one sum.
        among: sha256 over the keys of all that the round began with, once they are known.
    """

    run: str
    number: int
    session: str = ""
    fit: str = ""
    among: str = ""

    def salt(self, *more: str) -> bytes:
        """Sha256 over the round and more words; no two lists of words have the same."""
        words = ["flip secure sum", self.run, self.number, self.session, self.fit, self.among, *more]
        return hashlib.sha256(json.dumps(words).encode()).digest()

    def beginning(self, said: Mapping[str, bytes]) -> "Round":
        """The round among these sites; those that were told other keys agree on nothing with one another."""
        told = json.dumps({site: text.hex() for site, text in sorted(said.items())})
        return replace(self, among=hashlib.sha256(told.encode()).hexdigest())


@dataclass(frozen=True)
class Keys:
    """What a site says of itself in a round.

    Attributes:
        hides: its public key under which shares are hidden on their way.
        masks: its public key of which masks are made.
        identity: its public identity key, by which all of this is signed.
        seal: sha256 of the seed of the mask that it adds by itself.
        weight: its weight in the mean.
    """

    hides: bytes
    masks: bytes
    identity: bytes
    seal: bytes
    weight: float

    @classmethod
    def of(cls, text: bytes) -> "Keys":
        """From the bytes that were signed. Raises Broken for another length, and for a weight that is none."""
        if len(text) != SIGNED:
            raise Broken("keys of another length")
        weight = float(struct.unpack("<d", text[4 * KEY : 4 * KEY + WEIGHT])[0])
        if not 0 < weight < math.inf:
            raise Broken("a weight that is not above 0")
        hides, masks, identity, seal = (text[start : start + KEY] for start in range(0, 4 * KEY, KEY))
        return cls(hides, masks, identity, seal, weight)


@dataclass(frozen=True)
class Pair:
    """A site's secrets of a round, 32 bytes each: two private keys, and the seed of the mask that it adds by itself."""

    hides: bytes
    masks: bytes
    seed: bytes

    @classmethod
    def draw(cls) -> "Pair":
        """From the operating system's generator."""
        return cls(os.urandom(KEY), os.urandom(KEY), os.urandom(KEY))

    def signed(self, identity: Ed25519PrivateKey, round: Round, site: str, *, weight: float) -> bytes:
        """What `Keys` says, and the site's signature over it, the round and its name."""
        own = identity.public_key().public_bytes_raw()
        said = b"".join([public(self.hides), public(self.masks), own, seal_of(self.seed), struct.pack("<d", weight)])
        return said + identity.sign(round.salt("keys", site) + said)


def identity_of(key: bytes) -> Ed25519PrivateKey:
    """A site's identity key, of 32 bytes that it alone has; its public half stands in the roster of the others."""
    made = HKDF(SHA256(), KEY, None, b"flip secure sum: identity").derive(key)
    return Ed25519PrivateKey.from_private_bytes(made)


def public(private: bytes) -> bytes:
    """The public half of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_of(seed: bytes) -> bytes:
    """What a site shows of a seed before: shares that give another one are seen."""
    return hashlib.sha256(b"flip secure sum: seed" + seed).digest()


def verified(said: Mapping[str, bytes], roster: Mapping[str, bytes], round: Round) -> dict[str, Keys]:
    """The keys of sites, once each is in the roster and has signed its own for this round. Raises Broken."""
    found = {}
    for site, text in said.items():
        if site not in roster:
            raise Broken(f"a site that is not in the roster: {site[:80]!a}")
        found[site] = keys = Keys.of(text)
        if not signed_by(roster[site], text[-SIGNATURE:], round.salt("keys", site) + text[:-SIGNATURE]):
            raise Broken(f"keys that {site} did not sign for this round")
        if keys.identity != roster[site]:
            raise Broken(f"keys of {site} under another identity")
    if len({key for each in found.values() for key in (each.hides, each.masks, each.seal)}) < 3 * len(found):
        raise Broken("two sites with the same key")
    return found


def signed_by(identity: bytes, signature: bytes, text: bytes) -> bool:
    """Whether a signature under a text is of this public identity key."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, text)
    except InvalidSignature:
        return False
    return True


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
