"""A lower bound on epsilon from one run: Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run",
NeurIPS 2023 (arXiv:2305.08846).

Each of m canaries is in the data by a fair coin of its own. The auditor sees what the coordinator sees, says of some
canaries "in", of some "out" and of the others nothing, and is right of so many. Under (epsilon, delta)-differential
privacy, of adding or removing one canary, that many can be right only so often: the paper's Theorem 5.2. The bound is
the largest epsilon at which the number would be too rare.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Numbers = NDArray[np.float64]

GUESSED = ((0.01, 0.0), (0.02, 0.0), (0.05, 0.05))
"""Parts of the canaries that are guessed to be in, and out: those of the highest, and of the lowest scores."""
LARGEST = 50.0  # epsilon to which the bound is sought


def rarity(guesses: int, right: int, canaries: int, epsilon: float, delta: float) -> float:
    """The most likely that so many guesses, or more, are right under (epsilon, delta): the p-value of Theorem 5.2.

    That is P[B >= v] + 2 m delta max over i of P[v > B >= v - i] / i, for B binomial with `guesses` draws of the
    probability e^epsilon / (1 + e^epsilon), v `right`, m `canaries`, and i from 1 to v (of 1 to m in the paper; beyond
    v the sum does not grow).
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses of {canaries} canaries")
    chance = 1 / (1 + np.exp(-epsilon))
    least = float(binom.sf(right - 1, guesses, chance))
    steps = np.arange(1, right + 1)
    beyond = np.cumsum(binom.pmf(right - steps, guesses, chance)) / steps
    return min(1.0, least + 2 * canaries * delta * float(beyond.max(initial=0.0)))


def lower_bound(guesses: int, right: int, canaries: int, delta: float, confidence: float) -> float:
    """The epsilon below which so many right guesses are rarer than 1 - confidence; 0 where they are not rare at all."""
    low, high = 0.0, LARGEST
    if rarity(guesses, right, canaries, low, delta) >= 1 - confidence:
        return 0.0
    for _ in range(25):  # to 1.5e-6
        middle = (low + high) / 2
        rare = rarity(guesses, right, canaries, middle, delta) < 1 - confidence
        low, high = (middle, high) if rare else (low, middle)
    return low


@dataclass(frozen=True)
class Seen:
    """What the auditor sees of a run: arrays [rounds, steps, canaries].

    Args:
        moves: by how much a step moved each canary's weight, in units of what a canary in the batch moves it by.
        pulls: in which direction a canary moves its weight in a step, 1 or -1, which the weight before tells.
        rate: declared probability with which a row is in a batch.
    """

    moves: Numbers
    pulls: Numbers
    rate: float


def likelihood(seen: Seen) -> Numbers:
    """Of each canary, log P[moves | in] - log P[moves | out], for Gaussian noise as wide as the moves are."""
    noise = max(
        float(np.median(np.abs(seen.moves))) / 0.6745, 1e-3
    )  # the median absolute deviation; few are in a batch
    present = np.log(seen.rate) + (2 * seen.moves * seen.pulls - 1) / (2 * noise**2)
    absent = np.log1p(-seen.rate) if seen.rate < 1 else -np.inf
    return np.logaddexp(absent, present).sum((0, 1))


def apart_in_steps(seen: Seen) -> Numbers:
    """Of each canary, how far two steps of a round are apart at most: noise that is the same in both cancels."""
    apart: Numbers = np.ptp(seen.moves, axis=1).max(0)
    return apart


def apart_in_rounds(seen: Seen) -> Numbers:
    """Of each canary, how far the same step of two rounds is apart at most."""
    apart: Numbers = np.ptp(seen.moves, axis=0).max(0)
    return apart


SCORES: Mapping[str, Callable[[Seen], Numbers]] = {
    "likelihood": likelihood, "apart in steps": apart_in_steps, "apart in rounds": apart_in_rounds,
}  # fmt: skip
"""The higher, the likelier is a canary in the data."""


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon, and the guesses that it is from."""

    epsilon: float
    score: str
    guesses: int
    right: int


def audit(seen: Seen, included: NDArray[np.bool_], delta: float, confidence: float = 0.95) -> Bound:
    """The best bound of every score and number of guesses, which holds with the confidence.

    Each is made at 1 - (1 - confidence) / (how many there are), so that all of them hold together (union bound).
    """
    tried = len(SCORES) * len(GUESSED)
    found = []
    for name, score in SCORES.items():
        order = np.argsort(score(seen), kind="stable")
        for inside, outside in GUESSED:
            ins = included[order[len(order) - round(inside * len(order)) :]]
            outs = included[order[: round(outside * len(order))]]
            guesses, right = len(ins) + len(outs), int(ins.sum() + (~outs).sum())
            epsilon = lower_bound(guesses, right, len(order), delta, 1 - (1 - confidence) / tried)
            found.append(Bound(epsilon, name, guesses, right))
    return max(found, key=lambda each: each.epsilon)
