"""Numbers as elements of the ring of integers modulo 2^64, in which sums and masks are exact, and their masks."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from flip.messages import Fault
from flip.privacy import Broken

Ring = NDArray[np.uint64]
BLOCK = 1 << 15  # numbers that are masked together


def encode(numbers: NDArray[np.float64], part: float, *, sites: int, bits: int) -> Ring:
    """Numbers times a site's part of the mean, in steps of 2^-bits, rounded to nearest.

    Raises Broken for NaN, infinite numbers, and those of which so many sites' sum could leave the ring.
    """
    scaled = np.rint(numbers * (part * 2.0**bits))
    if not bool((np.abs(scaled) < 2.0**62 / sites).all()):  # false for NaN too
        raise Broken(
            f"numbers that a secure sum of {sites} sites cannot hold at a scale of 2^{bits}: not finite, or too large; "
            "a smaller privacy.secure_aggregation.scale holds larger ones",
            Fault.IMPLAUSIBLE,
        )
    return scaled.astype(np.int64).view(np.uint64)


def decode(total: Ring, part: float, *, bits: int) -> NDArray[np.float64]:
    """The mean of a sum of encoded numbers whose parts add up to `part`, above 0.

    It is within sites * 2^-(bits + 1) / part of the exact one, and the rounding of float64.
    """
    return total.view(np.int64) / (part * 2.0**bits)


def add_mask(numbers: Ring, key: bytes, *, subtract: bool = False) -> None:
    """Add to numbers [n] in place, or subtract, the AES-256-CTR stream of a key of 32 bytes, for this one use."""
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
