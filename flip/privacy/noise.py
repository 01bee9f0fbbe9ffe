"""Private randomness: uniform and Gaussian numbers from a ChaCha20 keystream (RFC 8439)."""

import hashlib
import hmac
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_DRAW = 64 * 2**31  # bytes under one nonce; ChaCha20's block counter allows twice as many
DRAWS_PER_GAUSSIAN = 4  # even


class Stream:
    """A stream of private random numbers.

    Each draw has a nonce of its own, so numbers never repeat; the same key, purpose and sequence of draws give the same
    numbers.

    Args:
        key: 32 secret bytes.
        purpose: what the numbers are for; streams of different purpose under one key are independent.
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        if len(key) != 32:
            raise ValueError(f"a noise key has 32 bytes, this one has {len(key)}")
        self._key = hmac.new(key, purpose.encode(), hashlib.sha256).digest()
        self._draws = 0

    def take(self, number: int) -> bytes:
        """The next bytes of the stream."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        if number > LARGEST_DRAW:
            raise ValueError(f"{number} bytes in one draw: at most {LARGEST_DRAW}")
        # The cipher wants its block counter (4 bytes, from 0) before the nonce (12 bytes: the number of the draw).
        nonce = bytes(4) + self._draws.to_bytes(12, "little")
        self._draws += 1
        return Cipher(algorithms.ChaCha20(self._key, nonce), mode=None).encryptor().update(bytes(number))

    def uniforms(self, number: int) -> "NDArray[np.float64]":
        """Numbers in the open interval (0, 1): the middles of 2^52 equal steps, which a float64 holds exactly."""
        numbers = (np.frombuffer(self.take(8 * number), dtype="<u8") >> np.uint64(12)).astype(np.float64)
        numbers += 0.5
        numbers *= 2.0**-52
        return numbers

    def gaussians(self, number: int) -> "NDArray[np.float64]":
        """Standard normal numbers.

        Each is half the sum of four from the Box-Muller transform, as in Opacus' secure mode: a single float has gaps
        by which the value under the noise could be found (Mironov, CCS 2012; Holohan and Braghin, ESORICS 2021).
        """
        pairs = -(-number * DRAWS_PER_GAUSSIAN // 2)
        first, second = self.uniforms(2 * pairs).reshape(2, pairs)
        radius, angle = np.sqrt(-2.0 * np.log(first)), 2.0 * np.pi * second
        single = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        summed: NDArray[np.float64] = single.reshape(DRAWS_PER_GAUSSIAN, number).sum(axis=0)
        return summed / math.sqrt(DRAWS_PER_GAUSSIAN)


def grid_of(deviation: float) -> float:
    """The power of two on whose multiples a number is kept once noise is added: 2^-21 to 2^-20 of its deviation.

    A float32 sum is rounded by its larger part, so that fine last bits would prove that what the noise was added to was
    0 (Haney et al., "Precision-based attacks and interval refining", 2022).
    """
    return math.ldexp(1.0, math.frexp(deviation)[1] - 21)
