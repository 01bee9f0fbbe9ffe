"""What noise spends: epsilon of Gaussian releases on Poisson samples of persons, and the noise that an epsilon needs.

Two accountants of Opacus: PRV (Gopi, Lee and Wutschitz, NeurIPS 2021), which is numerical and close, and RDP (Mironov,
Talwar and Zhang, 2019), which is looser and holds by arithmetic alone. PRV counts as long as RDP, which bounds it from
above, agrees. The approximation by Gaussian DP (Dong, Roth and Su, 2022) is no bound, and is not used.

Discrete Gaussian noise has the Renyi divergence of the Gaussian of the same deviation or less (Canonne, Kamath and
Steinke, NeurIPS 2020: 1/2 (change / deviation)^2-concentrated), but is not that Gaussian: a ledger that has any
(`LAW`) is counted by RDP alone.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from flip.errors import UserError

ERROR = 0.01  # of epsilon, which PRV adds to what it finds: its result is an upper bound
PRV_TO = 20.0  # above it a promise says little, and PRV takes minutes: RDP alone
PRV_GROUPS = 6  # releases of more different kinds take PRV a minute: RDP alone
CLOSE = 0.01  # how far below a target, as a part of it, the search for its noise ends
LEAST, MOST = 1e-2, 1e6  # noise multipliers between which it looks

LAW, DISCRETE = "law", "discrete"  # of an entry's noise: it is of Renyi's divergence alone that a Gaussian's is known
AT_AN_END = "Optimal order"  # how Opacus begins to say that an order is the range's last: a bound all the same

Groups = tuple[tuple[float, float, int], ...]
"""Noise multiplier, sample rate and steps, of each kind of release."""


def epsilon(entries: Sequence[Mapping[str, float | str]], delta: float) -> float:
    """Epsilon of all entries of a ledger together, at a delta in (0, 1); 0 for none, infinite without noise.

    Each holds `noise_multiplier`, `sample_rate` above 0 to 1 and `steps`; one that lacks any of them, or holds another
    number, is taken to protect nothing. One with a `law` is not Gaussian: then RDP alone counts.
    """
    if not all(map(_accountable, entries)):
        return math.inf
    if any(LAW in entry for entry in entries):
        return max(rdp_epsilon(_grouped(entries), delta), 0.0)
    return _smaller(_grouped(entries), delta)


def affordable(entries: Sequence[Mapping[str, float | str]], delta: float, most: float) -> bool:
    """Whether `epsilon` is at most so much; quick where RDP says so already."""
    if not all(map(_accountable, entries)):
        return False
    return rdp_epsilon(_grouped(entries), delta) <= most or epsilon(entries, delta) <= most


def _accountable(entry: Mapping[str, float | str]) -> bool:
    found = [entry.get(name) for name in ("noise_multiplier", "sample_rate", "steps")]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in found):
        return False
    noise, rate, steps = map(float, found)  # type: ignore[arg-type]
    if LAW in entry and (entry[LAW] != DISCRETE or rate != 1):  # no bound of sampled discrete noise is known here
        return False
    return noise > 0 and 0 < rate <= 1 and steps >= 0 and steps == int(steps)


def _grouped(entries: Sequence[Mapping[str, float | str]]) -> Groups:
    steps: Counter[tuple[float, float]] = Counter()
    for entry in entries:
        steps[float(entry["noise_multiplier"]), float(entry["sample_rate"])] += int(entry["steps"])
    return tuple((noise, rate, number) for (noise, rate), number in sorted(steps.items()) if number)


@lru_cache(maxsize=512)
def _smaller(groups: Groups, delta: float) -> float:
    """Epsilon by PRV where RDP agrees that it is no larger, else by RDP."""
    bound = max(rdp_epsilon(groups, delta), 0.0)  # which of a large delta is below 0
    if not groups or bound > PRV_TO or len(groups) > PRV_GROUPS:
        return bound
    found = prv_epsilon(groups, delta)
    return min(found, bound) if 0 < found <= bound + ERROR else bound


def rdp_epsilon(groups: Groups, delta: float) -> float:
    """Epsilon by Renyi differential privacy."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    if not groups:
        return 0.0
    spent = sum(np.asarray(_rdp(noise, rate)) * steps for noise, rate, steps in groups)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", AT_AN_END)
        found, _ = rdp.get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=spent, delta=delta)
    return float(found)


@lru_cache(maxsize=512)
def _rdp(noise: float, rate: float) -> tuple[float, ...]:
    """Renyi divergence of one step, by order."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    orders = RDPAccountant.DEFAULT_ALPHAS
    return tuple(np.atleast_1d(rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders)))


def prv_epsilon(groups: Groups, delta: float) -> float:
    """Epsilon by the privacy random variable, an upper bound; NaN where its numbers do not hold together."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(groups)
    try:
        with np.errstate(divide="ignore"), warnings.catch_warnings():  # of the logarithm at the ends of its range
            warnings.filterwarnings("ignore", AT_AN_END)
            return float(accountant.get_epsilon(delta=delta, eps_error=ERROR))
    except (RuntimeError, ValueError):  # what it raises for a discretization that is too coarse: RDP stands
        return math.nan


@lru_cache(maxsize=64)
def noise_for(
    target: float, delta: float, rate: float, steps: int, *, mechanism: str = "dp_sgd", law: str | None = None
) -> float:
    """The noise multiplier with which so many steps at this sampling rate spend at most the target, and hardly less.

    `law` is that of the entries, None for Gaussian noise; `mechanism` is named where there is none. Raises
    UserError for a target that no noise reaches.
    """
    goal, low, high = target * (1 - CLOSE / 2), math.log(LEAST), math.log(MOST)
    place = math.log(max(LEAST, min(MOST, rate * math.sqrt(2 * steps * math.log(1 / delta)) / target)))
    was = before = 0.0
    enough = 0.0  # the least noise so far that keeps the target
    while target > ERROR and high - low > 1e-6:
        noise = math.exp(place)
        entry: dict[str, float | str] = {
            "noise_multiplier": noise,
            "sample_rate": rate,
            "steps": float(steps),
            **({LAW: law} if law else {}),
        }
        found = max(epsilon([entry], delta), 1e-9)
        if target * (1 - CLOSE) <= found <= target:
            return noise
        low, high, enough = (low, place, noise) if found < target else (place, high, enough)
        # secants in logarithms, in which epsilon is nearly straight; 1.5 is how fast it falls at first
        slope = (math.log(before / found) / (place - was)) if before else 1.5
        was, before = place, found
        place += math.log(found / goal) / min(max(slope, 0.5), 4.0)
        place = place if low < place < high else (low + high) / 2
    if enough:  # epsilon jumps over the target, where one accountant takes over from the other
        return enough
    raise UserError(
        f"privacy.{mechanism}.target_epsilon={target:g}: no noise gives it in {steps} steps at a delta of {delta:g}, "
        f"of which the accountant knows epsilon to {ERROR:g}; give a larger target_epsilon"
    )
