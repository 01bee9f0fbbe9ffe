"""Noise on what a site sends of a round: how much of it an epsilon needs, and on what of an update it lies.

What one site changes is counted by replacement: its data by any others, which move what it sends by twice the clipping
norm at most. That covers a site whose data are replaced by none, and each of its persons, alone or all together. Noise
is discrete Gaussian on whole numbers, so that no rounding of floats tells what is under it: k rounds of it are
k/2 (change / deviation)^2-concentrated (Canonne, Kamath and Steinke, NeurIPS 2020, for one number; divergences of
independent numbers add up, and so do those of adaptive rounds: Bun and Steinke, TCC 2016, lemma 2.3), of which
`flip.privacy.accounting` makes epsilon by RDP.
"""

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from flip.errors import UserError
from flip.messages import Fault, Reply, Task
from flip.messages.weights import digest
from flip.messages.wire import join, take
from flip.privacy import AtSite, Broken, Entry, PrivateFit, Spent
from flip.privacy.accounting import DISCRETE, ERROR, LAW, epsilon, noise_for
from flip.privacy.discrete import LEAST, MOST, Whole, discrete_gaussian
from flip.privacy.noise import Stream

SITE = "site"
MOST_DELTA = 1e-3  # of a whole site: with it all of its data might be shown
ROUNDED = 1 + 1e-9  # what float64 may add to a length
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How much noise a study states; `name` is the mechanism's file, `unit` whom it hides."""

    name: str
    unit: str
    delta: float
    noise_multiplier: float | None
    target_epsilon: float | None

    def problems(self, **above: float | None) -> list[str]:
        """A sentence for each setting that cannot be; those in `above` must be above 0 too."""
        key, found = f"privacy.{self.name}", []
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            found.append(f"{key}: give exactly one of noise_multiplier and target_epsilon, and null for the other")
        for name, value in {"noise_multiplier": self.noise_multiplier, **above}.items():
            if value is not None and not 0 < value < math.inf:
                found.append(f"{key}.{name}={value}: must be above 0")
        if self.target_epsilon is not None and not ERROR < self.target_epsilon < math.inf:
            found.append(f"{key}.target_epsilon={self.target_epsilon}: must be above {ERROR:g}")
        most = MOST_DELTA if self.unit == SITE else 1.0
        if not 0 < self.delta < most:
            found.append(f"{key}.delta={self.delta}: must be above 0 and below {most:g} to hide a {self.unit}")
        return found

    def entry(self, rounds: int, releases: int) -> Entry:
        """What so many releases of a study of so many rounds add to the ledger. Raises UserError as `noise_for`."""
        noise = self.noise_multiplier or noise_for(
            self.target_epsilon or 0.0, self.delta, 1.0, rounds, mechanism=self.name, law=DISCRETE
        )
        own: Entry = {"noise_multiplier": noise, "sample_rate": 1.0, "steps": float(releases)}
        return {**own, LAW: DISCRETE, "unit": self.unit}

    def stated(self) -> Spent | None:
        """The target, where there is one."""
        return None if self.target_epsilon is None else Spent(self.target_epsilon, self.delta, self.unit)

    def spent(self, ledger: Sequence[Entry]) -> Spent:
        """Epsilon of the entries together."""
        return Spent(epsilon(ledger, self.delta), self.delta, self.unit)


@dataclass(frozen=True)
class Paid:
    """Noise that is in the ledger for one fit, before it began.

    Attributes:
        task: digest of the fit.
        noise: names the noise, and nothing else.
        multiplier: deviation in units of what one unit changes.
        trained: names of the parameters that are trained; nothing else of the model may change.
    """

    task: str
    noise: str
    multiplier: float
    trained: frozenset[str]


def pay(fit: PrivateFit, settings: Settings) -> Paid:
    """Add one release of a fit to its ledger, which the site writes down before it trains."""
    entry = settings.entry(fit.planned_steps // fit.steps, 1)
    fit.ledger.append(entry)
    trained = frozenset(name for name, each in fit.module.named_parameters() if each.requires_grad)
    noise = hashlib.sha256(b"release" + fit.noise_key).hexdigest()
    return Paid(fit.task.digest, noise, float(entry["noise_multiplier"]), trained)


@dataclass(frozen=True)
class Update:
    """What a site would send of a fit: numbers by name, from where they began, and by how much they moved.

    Attributes:
        sent: arrays as they are sent, by name with its group (weights, state).
        base: numbers [n] that everybody knows, in the order of the names.
        moved: numbers [n] by which the site's differ.
        noised: which of the n have noise; the others did not move.
    """

    sent: Mapping[str, NDArray[np.generic]]
    base: Floats
    moved: Floats
    noised: NDArray[np.bool_]

    @classmethod
    def of(cls, task: Task, reply: Reply, trained: frozenset[str]) -> "Update":
        """The update of a reply. Raises Broken for numbers that are none, and for what noise cannot lie on."""
        sent = join(weights=reply.weights, state=reply.state)
        base, moved, noised = [], [], []
        for name in sorted(sent):
            group, _, own = name.partition("/")
            array, floating = sent[name], np.issubdtype(sent[name].dtype, np.floating)
            before = task.weights[own] if group == "weights" else np.zeros_like(array)
            if group == "weights" and own not in trained:
                if array.tobytes() != before.tobytes():
                    raise Broken(f"{own} changes by itself while the model trains, and no noise can lie on it")
            elif not floating or not np.isfinite(array).all():
                raise Broken(f"{own} holds numbers that are not finite, or no numbers", Fault.NOT_FINITE)
            start = before.astype(np.float64).ravel()
            base.append(start)
            moved.append(array.astype(np.float64).ravel() - start)
            noised.append(np.full(start.size, group == "state" or own in trained))
        return cls(sent, np.concatenate(base), np.concatenate(moved), np.concatenate(noised))

    def clipped(self, norm: float) -> Floats:
        """By how much the numbers moved, together no farther than the norm (L2)."""
        length = float(np.linalg.norm(self.moved))
        if not math.isfinite(length):
            raise Broken("an update that is too large for a number", Fault.NOT_FINITE)
        return self.moved * min(1.0, norm / length) if length else self.moved

    def with_numbers(self, reply: Reply, numbers: Floats) -> Reply:
        """The reply, with numbers [n] in place of its own where they have noise."""
        named, start = {}, 0
        for name in sorted(self.sent):
            array = self.sent[name]
            piece = slice(start, start := start + array.size)
            whole = numbers[piece].reshape(array.shape).astype(array.dtype)
            named[name] = whole if self.noised[piece].all() else array
        return replace(reply, weights=take(named, "weights"), state=take(named, "state"))


def only_once(site: AtSite, paid: Paid, moved: Floats) -> None:
    """Raises Broken where another update had the noise that was paid for: the two could be subtracted."""
    if not site.once(f"update under noise {paid.noise}", digest({"moved": moved})):
        raise Broken("another update of the same fit had this noise already", Fault.REFUSED_BUDGET)


def stream_of(site: AtSite, paid: str, purpose: str, moved: Floats) -> Stream:
    """Noise of the site's own secret, for one update: the same update of the same fit has the same noise."""
    text = f"{paid}\0{digest({'moved': moved})}".encode()
    return Stream(hmac.new(site.key, text, hashlib.sha256).digest(), purpose)


def change_of(norm: float, scale: float, size: int, *, sides: int) -> float:
    """By how much, in steps, `size` numbers differ for neighbors whose move of length `norm` is rounded at a scale.

    `sides` is 2 where both have a move of that length, 1 where one move differs by it. Rounding moves either by half a
    step in each coordinate, together by the root of their number: what theorem 1 of Kairouz, Liu and Steinke counts
    for rounding by chance, a whole step of one side.
    """
    return sides * norm * scale * ROUNDED + math.sqrt(size)


def deviation_of(multiplier: float, change: float, shares: int) -> int:
    """The deviation in steps, rounded up, of one of so many independent shares of the noise.

    Of the sum of `shares` discrete Gaussians of deviation s Renyi's divergence of order a, moved by the change, is at
    most a / 2 (change / (s sqrt(shares)))^2 + tau d for d numbers, tau = 10 sum over k < shares of
    exp(-2 pi^2 s^2 k / (k + 1)) (Kairouz, Liu and Steinke, ICML 2021, arXiv 2102.06387, theorem 1 and proposition 14;
    compared with the authors' accounting_utils.py in google-research/federated). From s = `LEAST` on tau d is below
    10^-1000 for any model, and is left out. Raises Broken for a deviation that is not from there to `MOST`.
    """
    found = math.ceil(multiplier * change / math.sqrt(shares) * ROUNDED)
    if not LEAST <= found <= MOST:
        raise Broken(f"noise of a deviation of {found} steps: it must be from {LEAST} to {MOST}; choose another scale")
    return found


def noise_on(update_noised: NDArray[np.bool_], stream: Stream, deviation: int) -> Whole:
    """Whole numbers [n] of noise, 0 where there is none."""
    noise = np.zeros(update_noised.size, np.int64)
    noise[update_noised] = discrete_gaussian(stream, int(update_noised.sum()), deviation)
    return noise


def refuse_statistics(module: object, name: str) -> None:
    """Raise UserError for a model with a layer that keeps statistics of rows, as batch norm: they leave with it."""
    import torch

    modules = cast("torch.nn.Module", module).named_modules()
    kept = [
        f"{type(each).__name__} '{own}'"
        for own, each in modules
        if isinstance(each, torch.nn.modules.batchnorm._NormBase) and each.track_running_stats
    ]
    if kept:
        raise UserError(
            f"privacy={name} cannot protect a model with {kept[0]}: noise on its running statistics makes another "
            "model; use group norm or instance norm"
        )
