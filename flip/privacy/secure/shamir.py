"""Shamir's secret sharing over a prime field (Shamir, "How to share a secret", CACM 1979)."""

import secrets
from collections.abc import Mapping, Sequence

PRIME = 2**521 - 1
"""A Mersenne prime: a key of 256 bits is one number of the field."""
SHARE = 66  # bytes of a number of the field


def split(
    secret: int, points: Sequence[int], threshold: int, *, prime: int = PRIME, chosen: Sequence[int] | None = None
) -> dict[int, int]:
    """Shares of a secret by point, of which any `threshold` give it and fewer say nothing of it.

    `secret` is from 0 to below the prime; points are different, from 1 to below it. `chosen` are the other
    coefficients of the polynomial, for published vectors; None draws them from the operating system. Raises ValueError
    for others.
    """
    apart = len({*points}) == len(points) and all(0 < point < prime for point in points)
    if not (0 <= secret < prime and apart and 1 <= threshold <= len(points)):
        raise ValueError("a secret, points or a threshold that cannot be shared")
    others = [secrets.randbelow(prime) for _ in range(threshold - 1)] if chosen is None else [*chosen]
    if len(others) != threshold - 1:
        raise ValueError("as many coefficients as the threshold has others")
    return {point: _at(point, [secret, *others], prime) for point in points}


def join(shares: Mapping[int, int], *, prime: int = PRIME) -> int:
    """The secret of shares by point: the polynomial through them, at 0. Too few or wrong ones give another number."""
    secret = 0
    for point, share in shares.items():
        above = below = 1
        for other in shares:
            if other != point:
                above = above * other % prime
                below = below * (other - point) % prime
        secret = (secret + share * above * pow(below, -1, prime)) % prime
    return secret


def _at(point: int, coefficients: Sequence[int], prime: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % prime
    return value
