"""A site's part of one round of a secure sum: keys, shares, masked numbers, unmasking; each once, in this order."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.privacy.secure import shamir
from flip.privacy.secure.keys import KEY, Broken, Pair, Round, agreed, derived, found, hidden, public, verified
from flip.privacy.secure.ring import Ring, add_mask

STEPS = ("keys", "shares", "masked", "unmask")
LEAST = 3  # sites in a sum: of two each knows the other's part


def threshold_of(sites: int, least: int) -> int:
    """Shares that open a secret of a round that began with so many sites: above two thirds of them.

    A coordinator that tells some sites that one was lost and the others that it was not gets one of its two secrets at
    most, since twice the threshold is more than there are sites; even where up to a third of them help it.
    """
    return max(least, 2 * sites // 3 + 1)


@dataclass
class Session:
    """One site in one round.

    Args:
        round: which.
        name: the site's own name.
        identity: its own identity key.
        roster: the public identity keys of all sites, its own included, by name.
        least: sites below which it opens no sum, at least `LEAST`.
    """

    round: Round
    name: str
    identity: Ed25519PrivateKey
    roster: Mapping[str, bytes]
    least: int = LEAST
    pair: Pair = field(default_factory=Pair.draw)
    seed: bytes = field(default_factory=lambda: os.urandom(KEY))  # of the mask that the site itself adds
    public: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # of the sites that the round began with
    held: dict[str, bytes] = field(default_factory=dict)  # by site, shares of its mask's seed and of its key for masks
    due: str = STEPS[0]  # the step that may be asked now

    def keys(self) -> bytes:
        """The site's keys, signed."""
        self._next("keys")
        self._done("keys")
        return self.pair.signed(self.identity, self.round, self.name)

    def shares(self, said: Mapping[str, bytes]) -> dict[str, bytes]:
        """By site, shares of this site's two secrets that it alone can read; `said` are the keys of all.

        Raises Broken for keys that were not signed, sites that are not in the roster, and too few.
        """
        self._next("shares")
        self.public = verified(said, self.roster, self.round)
        if self.public.get(self.name) != _own(self.pair):
            raise Broken("keys among which this site's own are not")
        if len(self.public) < self._least:
            raise Broken(f"{len(self.public)} sites, fewer than the {self._least} of which this one opens a sum")
        points, least = _points(self.public), threshold_of(len(self.public), self._least)
        parts = [shamir.split(int.from_bytes(each), [*points.values()], least) for each in (self.seed, self.pair.masks)]
        texts = {site: b"".join(part[point].to_bytes(shamir.SHARE) for part in parts) for site, point in points.items()}
        self.held[self.name] = texts.pop(self.name)
        made = {site: self._hidden(site, text) for site, text in texts.items()}
        self._done("shares")
        return made

    def masked(self, shares: Mapping[str, bytes], numbers: Ring) -> Ring:
        """Numbers [n] under this site's masks, with each site whose shares for it are given: those that go on.

        Raises Broken for shares that their site did not make for this one, and for too few sites.
        """
        self._next("masked")
        others = {*self.public} - {self.name}
        if not {*shares} <= others or len(shares) + 1 < threshold_of(len(self.public), self._least):
            raise Broken(f"shares of {len(shares)} other sites, of {len(others)} that the round began with")
        self.held |= {site: self._shown(site, text) for site, text in shares.items()}
        made = numbers.copy()
        add_mask(made, own_mask(self.seed, self.round))
        for site in shares:
            key = pair_mask(self.pair.masks, self.public[site][1], self.round, self.name, site)
            add_mask(made, key, subtract=self.name > site)
        self._done("masked")
        return made

    def unmask(self, present: Collection[str], lost: Collection[str]) -> dict[str, bytes]:
        """A share of the mask of each site whose numbers are in the sum, and of the key of each that was lost.

        Never both of one site. Raises Broken for another division of the sites that went on, and for too few present.
        """
        self._next("unmask")
        if {*present} & {*lost} or {*present, *lost} != {*self.held} or self.name not in present:
            raise Broken("sites in the sum and lost ones that are not those that went on, each once")
        if len({*present}) < threshold_of(len(self.public), self._least):
            raise Broken(f"a sum of {len({*present})} sites")
        kept = {site: (text[: shamir.SHARE], text[shamir.SHARE :]) for site, text in self.held.items()}
        return {site: kept[site][site in {*lost}] for site in sorted(kept)}

    @property
    def _least(self) -> int:
        return max(self.least, LEAST)

    def _next(self, step: str) -> None:
        """Begin a step where it is due: until it is done no other is, so that one that raises ends the round here."""
        due, self.due = self.due, ""
        if due != step:
            raise Broken(f"{step} out of its turn")

    def _done(self, step: str) -> None:
        self.due = [*STEPS, ""][STEPS.index(step) + 1]

    def _hidden(self, site: str, text: bytes) -> bytes:
        salt = self.round.salt("shares", self.name, site)
        return hidden(agreed(self.pair.hides, self.public[site][0], salt), text, salt)

    def _shown(self, site: str, text: bytes) -> bytes:
        salt = self.round.salt("shares", site, self.name)
        return found(agreed(self.pair.hides, self.public[site][0], salt), text, salt)


def own_mask(seed: bytes, round: Round) -> bytes:
    """The key of the mask that a site adds by itself."""
    return derived(seed, round.salt("own mask"))


def pair_mask(own: bytes, other: bytes, round: Round, name: str, site: str) -> bytes:
    """The key of the mask that one of two sites adds and the other subtracts: the same from either's private key."""
    return agreed(own, other, round.salt("mask", *sorted((name, site))))


def _points(sites: Collection[str]) -> dict[str, int]:
    """At which point each site's shares are, from 1, in the order of the names."""
    return {site: place for place, site in enumerate(sorted(sites), 1)}


def _own(pair: Pair) -> tuple[bytes, bytes]:
    return public(pair.hides), public(pair.masks)
