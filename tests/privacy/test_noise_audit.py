"""The engine audits what it says of noise on a site's update and inside a sum: it measures both on two neighbors.

Two neighbors differ by one unit that changes what leaves by as much as it can. Of what they send in two fits is seen by
how much they differ, and how wide the noise is: their ratio is a multiplier, of which the accountant makes an epsilon.
That of the engine is as told, within what 10,000 numbers tell; where something is broken in one place, it is above.
"""

from collections.abc import Callable

import numpy as np
import pytest

from flip.privacy import released
from flip.privacy.accounting import epsilon
from flip.privacy.noise import Stream
from flip.privacy.released import Update
from flip.privacy.secure import noised_sum
from flip.privacy.secure.session import Rules
from tests.privacy.noised_parties import Noised, along, in_sum, local

SIZE, NOISE, FAR = 10_000, 0.02, 1e4
Patch = pytest.MonkeyPatch


def epsilon_of(noise: float) -> float:
    return epsilon([{"noise_multiplier": noise, "sample_rate": 1.0, "steps": 1.0, "law": "discrete"}], 1e-5)


TOLD = epsilon_of(NOISE)


def in_sums(folder) -> Noised:
    """The sum of the fewest that may be opened, of whom one tells its noise: that is taken out."""
    return Noised(folder, mechanism=in_sum(noise_multiplier=NOISE), size=SIZE, lost={("masked", "e")})


def seen(sites: Noised, known: Callable[[Noised, int], np.ndarray] = lambda sites, number: np.zeros(SIZE)) -> float:
    """The epsilon that two fits show, of which site a's data are one and the other of two neighbors."""
    found = []
    for number, by in enumerate((FAR, -FAR)):
        sites.moves = {"a": along(SIZE, 0, by)}
        found.append(sites.released(number) - known(sites, number))
    apart = found[0] - found[1]
    wide = float(np.std(apart[1:])) / np.sqrt(2)
    return epsilon_of(wide / abs(float(apart[0]))) if wide else np.inf


def lost_ignored(monkeypatch: Patch) -> None:
    """`released` of sites of whom one is lost on purpose."""

    def released(self: Noised, number: int = 0) -> np.ndarray:
        task = self.task(number)
        return self.summed(task)["a"].weights["net"].astype(np.float64) - task.weights["net"]

    monkeypatch.setattr(Noised, "released", released)


def own_noise(monkeypatch: Patch, site: str) -> Callable[[Noised, int], np.ndarray]:
    """What a site that tells its noise lets be taken out of the mean of four."""
    told: dict[tuple[str, int], np.ndarray] = {}
    whole = noised_sum.noise_on

    def noise_on(noised, stream, deviation):
        found = whole(noised, stream, deviation)
        told[noise_on.site, len([1 for each in told if each[0] == noise_on.site])] = found[noised]
        return found

    numbers = noised_sum.NoisedSumAtSite.numbers

    def spied(self, task, session):
        noise_on.site = self.site.name
        return numbers(self, task, session)

    monkeypatch.setattr(noised_sum, "noise_on", noise_on)
    monkeypatch.setattr(noised_sum.NoisedSumAtSite, "numbers", spied)
    return lambda sites, number: told[site, number] / 2.0**20 / (4 / 5)


def audited(kind: str, folder, monkeypatch: Patch) -> float:
    if kind == "local":
        return seen(Noised(folder, mechanism=local(noise_multiplier=NOISE), size=SIZE))
    lost_ignored(monkeypatch)
    return seen(in_sums(folder), own_noise(monkeypatch, "b"))


@pytest.mark.parametrize("kind", ["local", "in the sum"])
def test_what_is_seen_of_a_fit_is_the_epsilon_that_is_told(kind, tmp_path, monkeypatch):
    assert 0.85 * TOLD < audited(kind, tmp_path, monkeypatch) < 1.15 * TOLD


# What is broken between the ledger and what leaves, each in one place of the engine.


def times_noise(monkeypatch: Patch, by: float) -> None:
    for module in (released, noised_sum):
        whole = module.noise_on

        def noise_on(noised, stream, deviation, whole=whole):
            return np.rint(whole(noised, stream, deviation) * by).astype(np.int64)

        monkeypatch.setattr(module, "noise_on", noise_on)


def wide_clip(monkeypatch: Patch) -> None:
    whole = Update.clipped
    monkeypatch.setattr(Update, "clipped", lambda self, norm: whole(self, 2 * norm))


def same_key(monkeypatch: Patch) -> None:
    whole = Stream.__init__
    monkeypatch.setattr(Stream, "__init__", lambda self, key, purpose: whole(self, bytes(32), purpose))


def all_honest(monkeypatch: Patch) -> None:
    """Each site adds its share of the noise of all that began."""
    monkeypatch.setattr(Rules, "needed", lambda self, sites: sites + 1 if self.least == 3 else 3)


def one_side(monkeypatch: Patch) -> None:
    """A change is counted as if the site's data were left out, not replaced."""
    whole = released.change_of
    monkeypatch.setattr(released, "change_of", lambda norm, scale, size, sides: whole(norm, scale, size, sides=1))


BROKEN: dict[str, Callable[[Patch], None]] = {
    "no noise": lambda patch: times_noise(patch, 0.0),
    "half the noise": lambda patch: times_noise(patch, 0.5),
    "noise of half the clip": wide_clip,
    "one side of the change": one_side,
    "one key for all fits": same_key,
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("kind", ["local", "in the sum"])
def test_of_what_is_broken_is_seen_more_than_is_told(kind, what, tmp_path, monkeypatch):
    BROKEN[what](monkeypatch)
    assert audited(kind, tmp_path, monkeypatch) > 1.3 * TOLD


def test_of_noise_that_counts_on_everybody_is_seen_more_than_is_told(tmp_path, monkeypatch):
    all_honest(monkeypatch)
    assert audited("in the sum", tmp_path, monkeypatch) > 1.3 * TOLD
