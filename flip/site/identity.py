"""The key by which others know a site in secure sums: it comes of the site's secret, and its public half is told."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.config.schema import Site
from flip.privacy.secure.keys import identity_of
from flip.privacy.secure_aggregation import SecureAggregation
from flip.site.secret import mechanism_key, own_secret


def identity(secret: bytes) -> Ed25519PrivateKey:
    """A site's identity key in every study with secure sums, from its secret of 32 bytes."""
    return identity_of(mechanism_key(secret, SecureAggregation))


def public_identity(site: Site, home: Path) -> str:
    """The public half, 64 hexadecimal digits. Raises as `own_secret`, which makes a secret where there is none."""
    return identity(own_secret(site, home)).public_key().public_bytes_raw().hex()
