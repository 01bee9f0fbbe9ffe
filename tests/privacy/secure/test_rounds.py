"""Secure sums in the rounds of a study: what the strategy gets, who may be lost, what a coordinator cannot have."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault
from flip.privacy.secure.at_site import as_array
from flip.privacy.secure.keys import Pair, Round, identity_of
from flip.privacy.secure_aggregation import SecureAggregation
from flip.strategies.fedadam import FedAdam
from flip.strategies.fedavg import FedAvg
from flip.strategies.scaffold import Scaffold
from tests.privacy.secure.parties import EXAMPLES, NAMES, Parties, mean_of

BOUND = 5 * 2.0**-33


def bound(part: float = 1.0) -> float:
    """As the mechanism states it, and half a step of the largest float32 that is returned."""
    return BOUND / part + 4 * 2.0**-24


@pytest.fixture
def parties(tmp_path):
    return Parties(tmp_path)


def close(reply, expected, part=1.0):
    return np.abs(reply.weights["net"].astype(np.float64) - expected).max() <= bound(part)


def test_every_site_in_the_sum_replies_with_the_mean(parties):
    replies = parties.summed()
    assert [reply.site for reply in replies.values()] == list(NAMES)
    assert [(each.examples, each.metrics["loss"], each.fault) for each in replies.values()] == [
        (10, 0.5, None), (30, 0.5, None), (25, 0.5, None), (5, 0.5, None), (40, 0.5, None),
    ]  # fmt: skip
    for reply in replies.values():
        assert close(reply, mean_of(parties, parties.task(), NAMES))
        assert (reply.weights["count"], reply.weights["count"].dtype, reply.weights["net"].dtype) == (8, "int64", "f4")


@pytest.mark.parametrize(
    "strategy",
    [FedAvg(rounds=2), FedAdam(rounds=2), Scaffold(rounds=2), FedAvg(rounds=2, site_weights=dict.fromkeys(NAMES, 1.0))],
    ids=["fedavg", "fedadam", "scaffold", "equal weights"],
)
def test_a_strategy_gets_what_it_gets_without(tmp_path, strategy):
    found = []
    for secure in (True, False):
        parties = Parties(tmp_path, strategy)
        parties.mechanism.lend(strategy.weight)
        ask = parties.mechanism.wrap_ask(parties.ask) if secure else parties.plain
        task = parties.task()
        weights, state = dict(task.weights), strategy.start(task.weights)
        for number in range(2):
            now = replace(task, round=number, weights=weights)
            weights, state = strategy.round(ask, now, NAMES, state, np.random.default_rng(1))
        found.append((weights, state))
    (secure, sums), (plain, apart) = found
    assert secure["count"] == plain["count"] == 13
    np.testing.assert_allclose(secure["net"], plain["net"], atol=4e-6, rtol=0)  # a running mean rounds at each site
    assert {*sums} == {*apart}
    for name, array in apart.items():
        np.testing.assert_allclose(sums[name], array, atol=4e-6, rtol=2e-5)


@pytest.mark.parametrize("step", ["fit", "keys", "shares", "masked"])
def test_a_site_that_is_lost_is_out_of_the_mean_and_has_its_fault(parties, step):
    parties.lost = {(step, "b")}
    replies = parties.summed()
    assert replies.pop("b").fault is Fault.LOST
    rest = [name for name in NAMES if name != "b"]
    assert all(close(reply, mean_of(parties, parties.task(), rest), 80 / 110) for reply in replies.values())


@pytest.mark.parametrize("step", ["survivors", "unmask"])
def test_a_site_that_is_lost_after_its_masked_numbers_is_in_the_mean(parties, step):
    parties.lost = {(step, "b")}
    replies = parties.summed()
    assert {reply.fault for reply in replies.values()} == {None}
    assert all(close(reply, mean_of(parties, parties.task(), NAMES)) for reply in replies.values())


@pytest.mark.parametrize("step", ["masked", "survivors", "unmask"])
def test_with_too_few_to_the_end_nothing_is_opened(parties, step):
    parties.lost = {(step, "b"), (step, "d")}
    replies = parties.summed()
    assert {reply.fault for site, reply in replies.items() if site not in "bd"} <= {
        Fault.UNOPENED, Fault.REFUSED_PROTOCOL,
    }  # fmt: skip
    assert not any(reply.weights for reply in replies.values())


def test_two_sites_are_no_sum(parties):
    assert {reply.fault for reply in parties.summed(names=["a", "b"]).values()} == {Fault.UNOPENED}
    assert not [task.step for task, *_ in parties.tap if task.step != "fit"]


def test_a_site_opens_no_sum_of_fewer_sites_than_its_policy_says(tmp_path):
    parties = Parties(tmp_path, policy=Policy(1, 1, least_sites=5))
    parties.lost = {("masked", "b")}
    assert not any(reply.weights for reply in parties.summed().values())
    assert "a sum of 4 sites" in parties.whys()


def test_a_site_opens_no_sum_that_is_mostly_one_sites(tmp_path):
    parties = Parties(tmp_path, policy=Policy(1, 1, share=0.3))
    assert not any(reply.weights for reply in parties.summed().values())
    assert set(parties.whys()) == {"policy.share=0.3: one site would be 0.364 of the sum, and may be 0.3"}


def test_a_share_that_holds_at_first_holds_of_those_that_are_left_too(tmp_path):
    parties = Parties(tmp_path, policy=Policy(1, 1, share=0.4), lost={("masked", "b")})
    assert not any(reply.weights for reply in parties.summed().values())
    assert set(parties.whys()) == {"policy.share=0.4: one site would be 0.5 of the sum, and may be 0.4"}


def test_two_sites_that_have_nearly_all_the_weight_are_no_sum(tmp_path, monkeypatch):
    monkeypatch.setitem(EXAMPLES, "b", 38)  # 38 and 40 of 118: two thirds, where .7 are allowed
    assert not any(each.fault for each in Parties(tmp_path / "a", policy=Policy(1, 1, share=0.4)).summed().values())
    monkeypatch.setitem(EXAMPLES, "a", 1)
    monkeypatch.setitem(EXAMPLES, "c", 21)  # of 105
    parties = Parties(tmp_path / "b", policy=Policy(1, 1, share=0.4))
    assert not any(reply.weights for reply in parties.summed().values())
    assert set(parties.whys()) == {"policy.share=0.4: two sites would be 0.743 of the sum, and may be 0.7"}


# What is trained.


def test_numbers_that_are_none_stay_at_their_site_and_the_others_go_on(parties, monkeypatch):
    trained = Parties.trained

    def broken(self, task, site):
        reply = trained(self, task, site)
        nan = {**reply.weights, "net": reply.weights["net"] * np.float32(np.nan)}
        return replace(reply, weights=nan) if site == "c" else reply

    monkeypatch.setattr(Parties, "trained", broken)
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"c": Fault.NOT_FINITE}
    assert close(replies["a"], mean_of(parties, parties.task(), "abde"), 85 / 110)


def test_numbers_beyond_the_ring_are_refused_with_the_remedy(tmp_path):
    parties = Parties(tmp_path, scale=1e12)
    assert {reply.fault for reply in parties.summed().values()} == {Fault.IMPLAUSIBLE}
    assert "a smaller privacy.secure_aggregation.scale holds larger ones" in parties.whys()[0]
    smaller = Parties(tmp_path / "other", scale=1e12, mechanism=SecureAggregation(scale=12))
    assert not any(reply.fault for reply in smaller.summed().values())


def test_a_site_that_claims_more_examples_than_it_said_is_in_no_sum(parties):
    parties.mechanism._told = {**dict.fromkeys(NAMES, 40), "e": 39}
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"e": Fault.IMPLAUSIBLE}
    assert close(replies["a"], mean_of(parties, parties.task(), "abcd"))


def test_a_site_that_signs_another_weight_than_its_examples_is_in_no_sum(parties, monkeypatch):
    signed = Pair.signed

    def heavier(self, identity, round, site, *, weight):
        return signed(self, identity, round, site, weight=weight * (100 if site == "e" else 1))

    monkeypatch.setattr(Pair, "signed", heavier)
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"e": Fault.INVALID}


@pytest.mark.parametrize("liars", ["d", "de"])
def test_a_site_that_tells_wrong_shares_is_named_and_two_open_nothing(parties, monkeypatch, liars):
    answer = Parties.answer

    def wrong(self, task, site):
        reply = answer(self, task, site)
        return replace(reply, state={name: each + 1 for name, each in reply.state.items()}) if (
            task.step == "unmask" and site in liars
        ) else reply  # fmt: skip

    monkeypatch.setattr(Parties, "answer", wrong)
    replies = parties.summed()
    if liars == "de":
        assert {reply.fault for reply in replies.values()} == {Fault.UNOPENED}
        return
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"d": Fault.INVALID}
    assert close(replies["a"], mean_of(parties, parties.task(), NAMES))


def test_a_site_whose_numbers_are_of_another_form_is_named_also_where_it_comes_first(parties, monkeypatch):
    answer = Parties.answer

    def another(self, task, site):
        reply = answer(self, task, site)
        if (task.step, site) != ("masked", "a"):
            return reply
        forms = [*json.loads(reply.state["forms"].tobytes()), ["state/more", "<f8", [1]]]
        more = {"masked": np.append(reply.state["masked"], np.uint64(1)), "forms": as_array(json.dumps(forms).encode())}
        return replace(reply, state=more)

    monkeypatch.setattr(Parties, "answer", another)
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"a": Fault.INVALID}
    assert close(replies["b"], mean_of(parties, parties.task(), "bcde"), 100 / 110)


def test_forms_that_no_parser_takes_are_a_fault_of_their_site_and_the_others_go_on(parties, monkeypatch):
    answer = Parties.answer

    def nested(self, task, site):
        reply = answer(self, task, site)
        deep = {**reply.state, "forms": as_array(b"[" * 100_000)}
        return replace(reply, state=deep) if (task.step, site) == ("masked", "a") else reply

    monkeypatch.setattr(Parties, "answer", nested)
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"a": Fault.INVALID}
    assert close(replies["b"], mean_of(parties, parties.task(), "bcde"), 100 / 110)


# What a coordinator sees, and cannot have.


def test_no_reply_correlates_with_what_its_site_trained(tmp_path):
    parties = Parties(tmp_path, size=10_000, lost={("masked", "b")})
    parties.summed()
    compared = 0
    for _, site, reply in parties.tap:
        assert not reply.weights, "what was trained leaves masked alone"
        moved = parties.trained(parties.task(), site).weights["net"] - parties.task().weights["net"]
        for array in reply.state.values():
            if array.size >= 10_000:
                masked = array[-10_000:].astype(np.float64)  # in the order of the names: count, net
                assert abs(np.corrcoef(masked, moved)[0, 1]) < 0.05
                assert np.unique(array >> np.uint64(56)).size == 256
                compared += 1
    assert compared == 4


def swap_keys(task, site):
    """A coordinator in the middle: to everyone else `b` has keys, and an identity, of the coordinator's own."""
    if task.step != "shares" or site == "b":
        return task
    round = Round(task.run, task.round, task.params["session"], task.params["fit"])
    own = Pair.draw().signed(identity_of(b"c" * 32), round, "b", weight=30.0)
    return replace(task, state={**task.state, "keys/b": as_array(own)})


def roster(parties):
    """The public keys of all sites, as their files have them."""
    return {
        name: identity_of(parties.lent(name, parties.task()).key).public_key().public_bytes_raw().hex()
        for name in NAMES
    }


def test_a_coordinator_in_the_middle_is_refused_by_the_roster(tmp_path):
    parties = Parties(tmp_path, deployed=True, change=swap_keys)
    parties.peers = roster(parties)
    assert not any(reply.weights for reply in parties.summed().values())
    assert "keys that b did not sign for this round" in parties.whys()
    assert not any(task.step == "masked" and not isinstance(each, str) and each.state for task, _, each in parties.tap)


def test_simulated_sites_know_one_another_from_first_use(parties):
    assert not any(reply.fault for reply in parties.summed().values())
    parties.change = swap_keys
    assert not any(reply.weights for reply in parties.summed(parties.task(1)).values())
    assert "keys that b did not sign for this round" in parties.whys()


def test_sites_that_are_not_there_are_refused(tmp_path):
    def ghosts(task, site):
        if task.step != "shares":
            return task
        round = Round(task.run, task.round, task.params["session"], task.params["fit"])
        made = {
            f"keys/ghost{n}": as_array(Pair.draw().signed(identity_of(bytes([n]) * 32), round, f"ghost{n}", weight=1.0))
            for n in range(3)
        }
        return replace(task, state={f"keys/{site}": task.state[f"keys/{site}"], **made})

    parties = Parties(tmp_path, deployed=True, change=ghosts)
    parties.peers = roster(parties)
    assert not any(reply.weights for reply in parties.summed().values())
    assert set(parties.whys()) == {"a site that is not in the roster: 'ghost0'"}


def test_a_hospital_without_its_peers_keys_refuses_and_says_its_own(tmp_path):
    parties = Parties(tmp_path, deployed=True)
    assert {reply.fault for reply in parties.summed().values()} == {Fault.REFUSED_RULE}
    assert "privacy=secure_aggregation: this site's file names no peers" in parties.whys()[0]
    assert roster(parties)["a"] in parties.whys()[0]


def asks(present, lost):
    def change(task, site):
        made = {f"present/{name}": np.ones(1, np.uint8) for name in present}
        made |= {f"lost/{name}": np.ones(1, np.uint8) for name in lost}
        return replace(task, state=made) if task.step == "survivors" else task

    return change


@pytest.mark.parametrize(
    ("present", "lost", "why"),
    [
        (NAMES, "b", "each once"),
        ("abcd", "", "each once"),
        ("abc", "de", "a sum of 3 sites"),
        (NAMES, ("ghost",), "each once"),
    ],
    ids=["both shares of one", "one forgotten", "fewer than the threshold", "one that is not there"],
)
def test_an_unmasking_that_would_show_more_than_the_sum_is_refused(parties, present, lost, why):
    parties.change = asks(present, lost)
    assert not any(reply.weights for reply in parties.summed().values())
    assert any(why in each for each in parties.whys())


def test_a_site_unmasks_once(parties):
    parties.summed()
    unmasked = [(task, site) for task, site, _ in parties.tap if task.step == "unmask"]
    for task, site in unmasked:
        list(parties.ask(task, [site]))
    assert set(parties.whys()) == {"unmask out of its turn"}


def test_sites_that_were_sent_other_weights_are_not_in_one_sum(parties):
    def other(task, site):
        weights = {**task.weights, "net": task.weights.get("net", np.zeros(1)) + np.float32(site == "b")}
        return replace(task, weights=weights) if task.step == "fit" else task

    parties.change = other
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"b": Fault.REFUSED_PROTOCOL}
    assert any("a sum of a fit that this site has not done" in each for each in parties.whys())


def test_a_training_alone_is_in_no_sum_and_does_not_leave(parties):
    alone = replace(parties.task(), stage="alone", params={"alone": "a"})
    (reply,) = parties.ask(alone, ["a"])
    assert (reply.fault, dict(reply.weights)) == (Fault.REFUSED_RULE, {})


def test_the_same_numbers_are_in_no_second_sum_over_other_sites_in_another_run_either(parties):
    """Two runs of one study train the same: the sums would differ by one site's numbers."""
    assert not any(reply.fault for reply in parties.summed().values())
    assert not any(reply.fault for reply in parties.summed(parties.task(run="again")).values())
    fewer = parties.summed(parties.task(run="fewer"), "abcd")
    assert not any(reply.weights for reply in fewer.values())
    assert any("the very same numbers were opened in a sum over other sites" in each for each in parties.whys())


# Begun again.


def test_a_round_that_is_begun_again_has_fresh_keys_and_the_same_sum(parties):
    first, second = parties.summed(), parties.summed()
    assert first["a"].weights["net"].tolist() == second["a"].weights["net"].tolist()
    masked = [each.state["masked"] for task, site, each in parties.tap if task.step == "masked" and site == "a"]
    assert len(masked) == 2
    assert not (masked[0] == masked[1]).any()


def test_a_site_that_was_restarted_in_the_midst_goes_on_or_is_lost(parties):
    """Each step of a site here starts from its store: without the store it refuses, and the others go on."""
    import shutil

    def forget(task, site):
        if task.step == "masked" and site == "b":
            shutil.rmtree(parties.folder / "b")
        return task

    parties.change = forget
    replies = parties.summed()
    assert {site: reply.fault for site, reply in replies.items() if reply.fault} == {"b": Fault.REFUSED_PROTOCOL}
    assert close(replies["a"], mean_of(parties, parties.task(), "acde"), 80 / 110)


def test_what_a_site_keeps_of_a_round_that_is_over_holds_none_of_its_secrets(parties):
    parties.summed()
    kept = parties.lent("a", parties.task()).store.load("sum-session", 1)
    assert not kept["pair"].any()
    assert not [name for name in kept if name.startswith("held/")]


# The study.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 41}, "privacy.secure_aggregation.scale=41: must be from 8 to 40"),
        ({"threshold": 0.5}, "privacy.secure_aggregation.threshold=0.5: must be above 2/3"),
        ({"threshold": 1.1}, "privacy.secure_aggregation.threshold=1.1: must be above 2/3"),
    ],
)
def test_settings_that_would_not_hold_are_refused_by_name(settings, words):
    with pytest.raises(UserError, match=words):
        SecureAggregation(**settings)
