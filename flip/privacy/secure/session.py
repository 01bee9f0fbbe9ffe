"""A site's part of one try at a secure sum: keys, shares, masked numbers, survivors, unmasking; each once, in order."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flip.messages import Fault
from flip.privacy import Broken
from flip.privacy.secure import shamir
from flip.privacy.secure.keys import (
    Keys,
    Pair,
    Round,
    agreed,
    derived,
    found,
    hidden,
    public,
    seal_of,
    signed_by,
    verified,
)
from flip.privacy.secure.ring import Ring, add_mask

STEPS = ("keys", "shares", "masked", "survivors", "unmask")
LEAST = 3  # sites in a sum: of two each knows the other's part
HIDDEN = 2 * shamir.SHARE + 16  # bytes of two shares on their way


def most_of_two(share: float) -> float:
    """The largest part of a sum that two sites may be together, where one may be `share`: the middle of it and all.

    With more each of the two nearly knows what the other trained.
    """
    return (1 + share) / 2


@dataclass(frozen=True)
class Rules:
    """What a site asks of a sum.

    Attributes:
        least: sites below which it opens none, at least `LEAST`.
        threshold: part of the sites of a round that must come to its end; two thirds and one site where that is more.
        share: largest part of the mean that may be one site's; None: any.
    """

    least: int = LEAST
    threshold: float = 2 / 3
    share: float | None = None

    def needed(self, sites: int) -> int:
        """Shares that open a secret of a round that began with so many sites: above two thirds of them.

        A coordinator that tells some sites that one was lost and the others that it was not has one of its two secrets
        at most, since twice the threshold is more than there are sites; also where a third of them help it. Nor do
        so many sign two lists of who came: no two sums are opened, nor one over fewer sites than this.
        """
        return max(self.least, LEAST, 2 * sites // 3 + 1, math.ceil(self.threshold * sites - 1e-9))


@dataclass
class Session:
    """One site in one try at a sum.

    Args:
        round: which.
        name: the site's own name.
        identity: its own identity key.
        roster: the public identity keys of all sites, its own included, by name.
        rules: what it asks of the sum.
    """

    round: Round
    name: str
    identity: Ed25519PrivateKey
    roster: Mapping[str, bytes]
    rules: Rules = Rules()
    pair: Pair = field(default_factory=Pair.draw)
    began: dict[str, bytes] = field(default_factory=dict)  # the keys of the sites that the round began with, signed
    held: dict[str, bytes] = field(default_factory=dict)  # by site, shares of its seed and of its key for masks
    list: bytes = b""  # of who came and who was lost, as this site signed it
    due: str = STEPS[0]  # the step that may be asked now

    @property
    def public(self) -> dict[str, Keys]:
        """The keys of the sites that the round began with."""
        return {site: Keys.of(text) for site, text in self.began.items()}

    @property
    def among(self) -> Round:
        """The round among the sites that it began with."""
        return self.round.beginning(self.began)

    def keys(self, weight: float) -> bytes:
        """The site's keys, and its weight in the mean, signed."""
        self._next("keys")
        self._done("keys")
        return self.pair.signed(self.identity, self.round, self.name, weight=weight)

    def shares(self, said: Mapping[str, bytes]) -> dict[str, bytes]:
        """By site, shares of this site's two secrets that it alone can read; `said` are the keys of all.

        Raises Broken for keys that were not signed, sites that are not in the roster, and too few.
        """
        self._next("shares")
        keys = verified(said, self.roster, self.round)
        own, pair = keys.get(self.name), self.pair
        if own is None or (own.hides, own.masks, own.seal) != (
            public(pair.hides),
            public(pair.masks),
            seal_of(pair.seed),
        ):
            raise Broken("keys among which this site's own are not")
        if len(keys) < max(self.rules.least, LEAST):
            raise Broken(f"{len(keys)} sites, fewer than the {max(self.rules.least, LEAST)} of which this opens a sum")
        self._shared_out(keys, keys)
        self.began = dict(said)
        points, needed = points_of(keys), self.rules.needed(len(keys))
        secrets = (pair.seed, pair.masks)
        parts = [shamir.split(int.from_bytes(each), [*points.values()], needed) for each in secrets]
        texts = {site: b"".join(part[point].to_bytes(shamir.SHARE) for part in parts) for site, point in points.items()}
        self.held[self.name] = texts.pop(self.name)
        made = {site: self._hidden(keys[site], site, text) for site, text in texts.items()}
        self._done("shares")
        return made

    def masked(self, shares: Mapping[str, bytes], numbers: Ring) -> Ring:
        """Numbers [n] under this site's masks, with each site whose shares for it are given: those that go on.

        Raises Broken for shares that their site did not make for this one, and for too few sites.
        """
        self._next("masked")
        keys, round = self.public, self.among
        others = {*keys} - {self.name}
        if not {*shares} <= others or len(shares) + 1 < self.rules.needed(len(keys)):
            raise Broken(f"shares of {len(shares)} other sites, of {len(others)} that the round began with")
        self.held |= {site: self._shown(keys[site], site, text) for site, text in shares.items()}
        made = numbers.copy()
        add_mask(made, own_mask(self.pair.seed, round))
        for site in shares:
            key = pair_mask(self.pair.masks, keys[site].masks, round, self.name, site)
            add_mask(made, key, subtract=self.name > site)
        self._done("masked")
        return made

    def survivors(self, present: Collection[str], lost: Collection[str]) -> bytes:
        """This site's signature under who is in the sum and who was lost: one such list a session.

        The consistency check of the paper's active variant. Raises Broken for another division of the sites that went
        on, and for too few present.
        """
        self._next("survivors")
        if {*present} & {*lost} or {*present, *lost} != {*self.held} or self.name not in present:
            raise Broken("sites in the sum and lost ones that are not those that went on, each once")
        if len({*present}) < self.rules.needed(len(self.began)):
            raise Broken(f"a sum of {len({*present})} sites")
        self._shared_out(self.public, present)
        self.list = self._list(present, lost)
        self._done("survivors")
        return self.identity.sign(self.list)

    def unmask(self, present: Collection[str], lost: Collection[str], signed: Mapping[str, bytes]) -> dict[str, bytes]:
        """A share of the mask of each site whose numbers are in the sum, and of the key of each that was lost.

        Never both of one site. `signed` are the sites' signatures under the list. Raises Broken for another list than
        this site signed, and where fewer sites than the threshold signed it.
        """
        self._next("unmask")
        if self._list(present, lost) != self.list:
            raise Broken("another list of who came than this site has signed")
        keys, needed = self.public, self.rules.needed(len(self.began))
        same = [site for site in {*signed} & {*present} if signed_by(keys[site].identity, signed[site], self.list)]
        if len(same) < needed:
            raise Broken(f"{len(same)} sites have signed this list of who came, fewer than {needed}")
        kept = {site: (text[: shamir.SHARE], text[shamir.SHARE :]) for site, text in self.held.items()}
        self._done("unmask")
        return {site: kept[site][site in {*lost}] for site in sorted(kept)}

    def part(self) -> float:
        """This site's part of the mean over all that the round began with."""
        keys = self.public
        return keys[self.name].weight / math.fsum(each.weight for each in keys.values())

    def _list(self, present: Collection[str], lost: Collection[str]) -> bytes:
        return self.among.salt("survivors", json.dumps([sorted({*present}), sorted({*lost})]))

    def _shared_out(self, keys: Mapping[str, Keys], present: Collection[str]) -> None:
        """Raises Broken where one site, or two together, have more of the mean over these than they may.

        Of two see `most_of_two`.
        """
        if self.rules.share is None:
            return
        weights = sorted((keys[site].weight for site in present), reverse=True)
        total, share = math.fsum(weights), self.rules.share
        for who, some, most in (("one site", weights[:1], share), ("two sites", weights[:2], most_of_two(share))):
            if (part := math.fsum(some) / total) > most * (1 + 1e-9):
                why = f"policy.share={share:g}: {who} would be {part:.3g} of the sum, and may be {most:g}"
                raise Broken(why, Fault.REFUSED_RULE)

    def _next(self, step: str) -> None:
        """Begin a step where it is due: until it is done no other is, so that one that raises ends the round here."""
        due, self.due = self.due, ""
        if due != step:
            raise Broken(f"{step} out of its turn")

    def _done(self, step: str) -> None:
        self.due = [*STEPS, ""][STEPS.index(step) + 1]

    def _hidden(self, other: Keys, site: str, text: bytes) -> bytes:
        salt = self.among.salt("shares", self.name, site)
        return hidden(agreed(self.pair.hides, other.hides, salt), text, salt)

    def _shown(self, other: Keys, site: str, text: bytes) -> bytes:
        salt = self.among.salt("shares", site, self.name)
        return found(agreed(self.pair.hides, other.hides, salt), text, salt)


def own_mask(seed: bytes, round: Round) -> bytes:
    """The key of the mask that a site adds by itself."""
    return derived(seed, round.salt("own mask"))


def pair_mask(own: bytes, other: bytes, round: Round, name: str, site: str) -> bytes:
    """The key of the mask that one of two sites adds and the other subtracts: the same from either's private key."""
    return agreed(own, other, round.salt("mask", *sorted((name, site))))


def points_of(sites: Collection[str]) -> dict[str, int]:
    """At which point each site's shares are, from 1, in the order of the names."""
    return {site: place for place, site in enumerate(sorted(sites), 1)}
