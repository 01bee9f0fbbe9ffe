"""Discrete Gaussian noise from a private stream, exact: no floating-point number decides what a draw is.

Canonne C, Kamath G, Steinke T, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, algorithms 1 to 3, many
draws at a time. A float64 says which of two numbers is larger where they are far enough apart; else whole numbers do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flip.privacy.noise import Stream

Whole = NDArray[np.int64]
Truth = NDArray[np.bool_]

LEAST, MOST = 16, 2**24  # deviations: so that a sum of draws is as good as one draw; that squares fit into 64 bits
CLOSE = 2.0**-48  # how near a uniform number may be to a probability for a float64 to say which is larger
WORD = 64  # bits of the stream that a uniform number begins with


def discrete_gaussian(stream: Stream, number: int, deviation: int) -> Whole:
    """Independent draws of the discrete Gaussian: P[x] is in proportion to exp(-x^2 / (2 deviation^2)), x whole.

    Args:
        stream: which has draws of its own for this purpose.
        number: how many.
        deviation: a whole number from `LEAST` to `MOST`.

    Raises ValueError for another deviation.
    """
    if not LEAST <= deviation <= MOST:
        raise ValueError(f"a deviation of {deviation}: must be from {LEAST} to {MOST}")

    def some(left: int) -> tuple[Whole, Truth]:
        drawn = _laplace(stream, left, deviation)
        far = (np.abs(drawn) - deviation) ** 2
        return drawn, _exponential(stream, far, 2 * deviation**2)

    return _until_kept(number, some)


def _until_kept(number: int, some: Callable[[int], tuple[Whole, Truth]]) -> Whole:
    """Draw until so many were kept, each in its own place."""
    found, open_places = np.zeros(number, np.int64), np.arange(number)
    while open_places.size:
        drawn, kept = some(open_places.size)
        found[open_places[kept]] = drawn[kept]
        open_places = open_places[~kept]
    return found


def _laplace(stream: Stream, number: int, scale: int) -> Whole:
    """Algorithm 2: P[x] is in proportion to exp(-|x| / scale), x whole."""

    def some(left: int) -> tuple[Whole, Truth]:
        rest = _below(stream, left, scale)
        kept = _exponential(stream, rest, scale)
        whole, going = np.zeros(left, np.int64), kept.nonzero()[0]
        while going.size:
            going = going[_exponential(stream, np.ones(going.size, np.int64), 1)]
            whole[going] += 1
        size, negative = rest + scale * whole, _below(stream, left, 2) == 1
        return np.where(negative, -size, size), kept & ~(negative & (size == 0))

    return _until_kept(number, some)


def _exponential(stream: Stream, above: Whole, below: int) -> Truth:
    """True with the probability exp(-above / below), each; `above` 0 or more."""
    whole, rest = above // below, above % below
    found = _exponential_to_one(stream, rest, below)
    going = (found & (whole > 0)).nonzero()[0]
    while going.size:
        held = _exponential_to_one(stream, np.ones(going.size, np.int64), 1)
        found[going[~held]] = False
        going = going[held]
        whole[going] -= 1
        going = going[whole[going] > 0]
    return found


def _exponential_to_one(stream: Stream, above: Whole, below: int) -> Truth:
    """Algorithm 1, of `above` from 0 to `below`."""
    odd, going, turn = np.zeros(above.size, np.bool_), np.arange(above.size), 1
    while going.size:
        held = _chances(stream, above[going], below * turn)
        odd[going[~held]] = turn % 2 == 1
        going, turn = going[held], turn + 1
    return odd


def _chances(stream: Stream, above: Whole, below: int) -> Truth:
    """True with the probability above / below, each."""
    words = _words(stream, above.size)
    uniform, chance = words * 2.0**-WORD, above / below
    found: Truth = uniform < chance
    for place in (np.abs(uniform - chance) <= CLOSE).nonzero()[0]:
        found[place] = _is_below(stream, int(words[place]), int(above[place]), below)
    return found


def _is_below(stream: Stream, word: int, above: int, below: int) -> bool:
    """Whether a uniform number that begins with this word is below above / below, in whole numbers."""
    bits = WORD
    while True:
        goal = above << bits
        if (word + 1) * below <= goal:
            return True
        if word * below >= goal:
            return False
        word, bits = (word << WORD) | int(_words(stream, 1)[0]), bits + WORD


def _below(stream: Stream, number: int, bound: int) -> Whole:
    """Whole numbers from 0 to below a bound, each as likely."""
    most = np.uint64((2**WORD // bound) * bound - 1)

    def some(left: int) -> tuple[Whole, Truth]:
        words = _words(stream, left)
        return (words % np.uint64(bound)).astype(np.int64), words <= most

    return _until_kept(number, some)


def _words(stream: Stream, number: int) -> NDArray[np.uint64]:
    return np.frombuffer(stream.take(8 * number), "<u8")
