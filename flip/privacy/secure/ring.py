"""Numbers as elements of the ring of integers modulo 2^64, in which sums and masks are exact, and their masks."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Ring = NDArray[np.uint64]
BITS = 24
"""A number of 1 is 2^24: rounding moves a weighted sum by at most 2^-25 a site."""
BLOCK = 1 << 15  # numbers that are masked together


def encode(numbers: NDArray[np.float64], weight: float, sites: int) -> Ring:
    """Numbers times a site's weight, fixed-point, rounded to nearest.

    Raises ValueError for NaN, infinite numbers, and those of which so many sites' sum could leave the ring.
    """
    scaled = np.rint(numbers * (weight * 2.0**BITS))
    if not bool((np.abs(scaled) < 2.0**62 / max(sites, 1)).all()):  # false for NaN too
        raise ValueError("numbers that a secure sum cannot hold: not finite, or too large")
    return scaled.astype(np.int64).view(np.uint64)


def decode(total: Ring, weight: float) -> NDArray[np.float64]:
    """The mean of a sum of encoded numbers whose weights add up to `weight`, above 0.

    It is within sites * 2^-25 / weight of the exact one, and the rounding of float64.
    """
    return total.view(np.int64) / (weight * 2.0**BITS)


def add_mask(numbers: Ring, key: bytes, *, subtract: bool = False) -> None:
    """Add to numbers [n] in place, or subtract, the AES-256-CTR stream of a key of 32 bytes, which is for this one use."""
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    size = 8 * min(numbers.size, BLOCK)
    zeros, into = memoryview(bytes(size)), bytearray(size + 16)
    for start in range(0, numbers.size, BLOCK):
        part = numbers[start : start + BLOCK]
        stream.update_into(zeros[: 8 * part.size], into)
        mask = np.frombuffer(into, "<u8", part.size)
        if subtract:
            part -= mask
        else:
            part += mask
