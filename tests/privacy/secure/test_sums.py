"""Secure sums: equal to the plain one, whoever is lost; nothing for a coordinator that leaves the protocol."""

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from flip.privacy import Broken
from flip.privacy.secure import shamir
from flip.privacy.secure.keys import Pair, Round, identity_of
from flip.privacy.secure.opening import open_sum
from flip.privacy.secure.ring import decode, encode
from flip.privacy.secure.session import Rules, Session

ROUND = Round("run", 0)
NAMES = ("a", "b", "c", "d", "e")
SIZE = 50


@dataclass
class Party:
    """Some sites and an honest coordinator, step by step."""

    names: tuple[str, ...] = NAMES
    round: Round = ROUND
    secrets: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secrets = self.secrets or {name: identity_of(os.urandom(32)) for name in self.names}
        roster = {name: each.public_key().public_bytes_raw() for name, each in self.secrets.items()}
        self.sites = {name: Session(self.round, name, each, roster) for name, each in self.secrets.items()}
        rng = np.random.default_rng(7)
        self.changes = {name: rng.normal(size=SIZE) for name in self.names}
        self.numbers = {name: encode(each, 0.2, sites=len(self.names), bits=32) for name, each in self.changes.items()}

    def keys(self, *lost: str) -> None:
        self.began = {name: site.keys(1.0) for name, site in self.sites.items() if name not in lost}

    def shares(self, *lost: str) -> None:
        self.dealt = {name: self.sites[name].shares(self.began) for name in self.began if name not in lost}

    def masks(self, *lost: str) -> None:
        self.masked = {
            name: self.sites[name].masked(self.for_site(name), self.numbers[name])
            for name in self.dealt
            if name not in lost
        }

    def for_site(self, name: str) -> dict[str, bytes]:
        return {by: each[name] for by, each in self.dealt.items() if by != name}

    def open(self, *lost: str) -> np.ndarray:
        gone = {*self.dealt} - {*self.masked}
        signed = {name: self.sites[name].survivors({*self.masked}, gone) for name in self.masked if name not in lost}
        told = {name: self.sites[name].unmask({*self.masked}, gone, signed) for name in signed}
        total = exact_sum(self.masked.values())
        open_sum(total, self.round, {*self.masked}, began=self.began, told=told)
        return total


def exact_sum(numbers) -> np.ndarray:
    return np.sum([*numbers], axis=0, dtype=np.uint64)


def exact(party: Party, names) -> np.ndarray:
    return exact_sum(party.numbers[name] for name in names)


@pytest.mark.parametrize("step", ["none", "keys", "shares", "masks", "open"])
def test_the_sum_is_that_of_the_sites_that_came_whoever_is_lost_in_whichever_step(step):
    party, lost = Party(), {step: ("b",)}
    party.keys(*lost.get("keys", ()))
    party.shares(*lost.get("shares", ()))
    party.masks(*lost.get("masks", ()))
    total = party.open(*lost.get("open", ()))
    came = NAMES if step in ("none", "open") else [name for name in NAMES if name != "b"]
    assert total.tolist() == exact(party, came).tolist()
    mean = decode(total, 0.2 * len(came), bits=32)
    plain = np.mean([party.changes[name] for name in came], axis=0)
    assert np.abs(mean - plain).max() <= len(came) * 2.0**-33 / (0.2 * len(came)) + 1e-15


def test_what_a_site_sends_has_nothing_in_common_with_its_numbers():
    party = Party()
    party.keys(), party.shares(), party.masks()
    for sent in party.masked.values():
        assert np.unique(sent >> np.uint64(56)).size > SIZE / 4  # spread over the ring, where updates fill its middle
    pairs = [np.corrcoef(party.masked[name].astype(float), party.changes[name])[0, 1] for name in NAMES]
    assert np.abs(pairs).max() < 4 / np.sqrt(SIZE)


def test_keys_of_a_coordinator_in_the_middle_are_refused():
    party = Party()
    party.keys()
    mine = Pair.draw().signed(identity_of(os.urandom(32)), ROUND, "b", weight=1.0)
    with pytest.raises(Broken, match="did not sign"):
        party.sites["a"].shares({**party.began, "b": mine})


def test_keys_of_another_round_are_refused():
    party = Party()
    party.keys()
    old = Pair.draw().signed(party.secrets["b"], Round("run", 1), "b", weight=1.0)
    with pytest.raises(Broken, match="did not sign"):
        party.sites["a"].shares({**party.began, "b": old})


def test_a_site_that_is_not_there_is_refused():
    party = Party()
    party.keys()
    with pytest.raises(Broken, match="not in the roster"):
        party.sites["a"].shares(
            {**party.began, "ghost": Pair.draw().signed(identity_of(os.urandom(32)), ROUND, "ghost", weight=1.0)}
        )


def test_a_sum_of_two_sites_is_refused_at_every_step():
    party = Party()
    party.keys("c", "d", "e")
    with pytest.raises(Broken, match="2 sites, fewer than the 3"):
        party.sites["a"].shares(party.began)
    party = Party()
    party.keys(), party.shares()
    with pytest.raises(Broken, match="shares of 1 other"):
        party.sites["a"].masked({"b": party.dealt["b"]["a"]}, party.numbers["a"])
    party = Party()
    party.keys(), party.shares(), party.masks()
    with pytest.raises(Broken, match="a sum of 2 sites"):
        party.sites["a"].survivors({"a", "b"}, {"c", "d", "e"})


def test_nobody_gives_both_shares_of_a_site():
    party = Party()
    party.keys(), party.shares(), party.masks()
    with pytest.raises(Broken, match="each once"):
        party.sites["a"].survivors({*NAMES}, {"b"})
    with pytest.raises(Broken, match="out of its turn"):
        party.sites["a"].survivors({"a", "c", "d", "e"}, {"b"})
    signed = {name: party.sites[name].survivors({*NAMES}, ()) for name in "bcde"}
    with pytest.raises(Broken, match="out of its turn"):
        party.sites["c"].survivors({"a", "c", "d", "e"}, {"b"})
    party = Party()
    party.keys(), party.shares(), party.masks()
    signed = {name: party.sites[name].survivors({*NAMES}, ()) for name in NAMES}
    party.sites["c"].unmask({*NAMES}, (), signed)
    with pytest.raises(Broken, match="out of its turn"):
        party.sites["c"].unmask({"a", "c", "d", "e"}, {"b"}, signed)


@pytest.mark.parametrize("sites", range(3, 40))
def test_no_division_of_the_sites_opens_both_secrets_of_one(sites):
    assert 3 * Rules().needed(sites) > 2 * sites


def test_a_coordinator_that_names_other_lost_sites_to_each_of_ten_is_refused():
    """Seven of ten are needed: told each another list of seven, the sites would open the sum of six."""
    party = Party(names=tuple("abcdefghij"))
    party.keys(), party.shares(), party.masks()
    rest = party.names[6:]
    spared = {name: name if name in rest else rest[place % 4] for place, name in enumerate(party.names)}
    lists = {name: ({*party.names} - ({*rest} - {spared[name]}), {*rest} - {spared[name]}) for name in party.names}
    signed = {name: site.survivors(*lists[name]) for name, site in party.sites.items()}
    for name, site in party.sites.items():
        with pytest.raises(Broken, match=r"[23] sites have signed this list of who came, fewer than 7"):
            site.unmask(*lists[name], signed)


def signed_by_some(party: Party, names) -> dict[str, bytes]:
    """The signatures of these sites under the list of all."""
    party.keys(), party.shares(), party.masks()
    made = {name: site.survivors({*party.names}, ()) for name, site in party.sites.items()}
    return {name: made[name] for name in names}


def test_one_signature_under_many_names_is_one():
    party = Party()
    (text,) = signed_by_some(party, "a").values()
    with pytest.raises(Broken, match="1 sites have signed"):
        party.sites["a"].unmask({*NAMES}, (), dict.fromkeys(NAMES, text))


def test_a_site_unmasks_the_list_that_it_signed_alone():
    party = Party()
    signed = signed_by_some(party, NAMES)
    with pytest.raises(Broken, match="another list of who came"):
        party.sites["a"].unmask({"a", "b", "c", "d"}, {"e"}, signed)


def test_signatures_of_another_session_are_none():
    party = Party()
    before = signed_by_some(Party(round=Round("run", 0, "before"), secrets=party.secrets), NAMES)
    signed_by_some(party, NAMES)
    with pytest.raises(Broken, match="0 sites have signed"):
        party.sites["a"].unmask({*NAMES}, (), before)


def test_a_list_is_signed_by_the_threshold_or_nothing_is_told():
    party = Party()
    with pytest.raises(Broken, match="3 sites have signed this list of who came, fewer than 4"):
        party.sites["a"].unmask({*NAMES}, (), signed_by_some(party, "abc"))
    party = Party()
    assert {*party.sites["a"].unmask({*NAMES}, (), signed_by_some(party, "abcd"))} == {*NAMES}


def test_shares_that_somebody_else_made_are_refused():
    party = Party()
    party.keys(), party.shares()
    forged = party.for_site("a") | {"b": party.dealt["b"]["c"]}
    with pytest.raises(Broken, match="did not hide"):
        party.sites["a"].masked(forged, party.numbers["a"])


@pytest.mark.parametrize("numbers", [[np.nan], [np.inf], [2.0**40]])
def test_numbers_that_the_ring_cannot_hold_are_refused(numbers):
    with pytest.raises(ValueError, match="cannot hold"):
        encode(np.array(numbers), 10.0, sites=4, bits=32)


def test_shamirs_shares_are_those_of_a_published_example():
    # https://en.wikipedia.org/wiki/Shamir%27s_secret_sharing: the secret 1234, coefficients 166 and 94, modulo 1613
    shares = shamir.split(1234, range(1, 7), 3, prime=1613, chosen=[166, 94])
    assert shares == {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}
    assert shamir.join({place: shares[place] for place in (2, 4, 5)}, prime=1613) == 1234
    assert shamir.join({place: shares[place] for place in (2, 4)}, prime=1613) != 1234


def test_a_secret_of_a_key_comes_back_from_as_many_shares_as_the_threshold():
    secret = int.from_bytes(os.urandom(32))
    shares = shamir.split(secret, range(1, 8), 5)
    assert shamir.join({place: shares[place] for place in (7, 3, 1, 5, 2)}) == secret
    assert shamir.join({place: shares[place] for place in (7, 3, 1, 5)}) != secret


def test_a_site_that_refused_a_step_takes_no_other_of_the_round():
    party = Party()
    party.keys(), party.shares()
    with pytest.raises(Broken):
        party.sites["a"].masked({}, party.numbers["a"])
    with pytest.raises(Broken, match="out of its turn"):
        party.sites["a"].masked(party.for_site("a"), party.numbers["a"])
    with pytest.raises(Broken, match="out of its turn"):
        party.sites["a"].survivors({*NAMES}, ())
