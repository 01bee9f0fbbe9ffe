import numpy as np
import pytest

from flip.errors import UserError
from flip.messages import Fault
from flip.strategies.cyclic import Cyclic
from tests.strategies.fake_sites import Sites, reply, task

BEFORE = {"w": np.zeros(1, np.float64)}


def stop(site, digit):
    """A site that writes its digit behind the weights it was sent."""
    return lambda asked: reply(site, {"w": asked.weights["w"] * 10 + digit})


def sites():
    return Sites({"a": stop("a", 1), "b": stop("b", 2), "c": stop("c", 3)})


def visits(strategy, asked, rounds, seed=0):
    """Weights after so many rounds, and the sites in the order in which they were asked."""
    weights, state = BEFORE, strategy.start(BEFORE)
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        weights, state = strategy.round(asked, task(weights, round=number), ["c", "a", "b"], state, rng)
    return weights, [site for site, _ in asked.asked]


def test_each_site_trains_on_what_the_one_before_it_returned():
    weights, order = visits(Cyclic(rounds=1, shuffle=False), sites(), 1)
    assert order == ["a", "b", "c"]
    assert weights["w"] == 123


def test_every_cycle_visits_every_site_once_in_a_new_order():
    _, order = visits(Cyclic(rounds=6), sites(), 6)
    cycles = [tuple(order[start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(cycle) == ["a", "b", "c"] for cycle in cycles)
    assert len(set(cycles)) > 1


def test_the_order_is_a_function_of_the_generator_alone():
    assert visits(Cyclic(rounds=3), sites(), 3) == visits(Cyclic(rounds=3), sites(), 3)


def test_a_round_may_be_one_stop_of_the_cycle():
    asked = sites()
    _, order = visits(Cyclic(rounds=6, visits=1), asked, 6)
    assert [sorted(order[:3]), sorted(order[3:])] == [["a", "b", "c"]] * 2
    assert [sent.round for _, sent in asked.asked] == [0, 1, 2, 3, 4, 5]


def test_a_site_with_a_fault_is_passed_over():
    asked = sites()
    asked.answers["b"] = lambda _: reply("b", {}, fault=Fault.LOST)
    weights, order = visits(Cyclic(rounds=1, shuffle=False), asked, 1)
    assert order == ["a", "b", "c"]
    assert weights["w"] == 13


def test_a_site_that_left_is_not_visited_again():
    state = {"queue": np.array([2, 0])}
    asked = sites()
    Cyclic(rounds=1, shuffle=False, visits=2).round(asked, task(BEFORE), ["a", "b"], state, np.random.default_rng(0))
    assert [site for site, _ in asked.asked] == ["a", "a"]


def test_weights_of_single_sites_are_used_so_a_summing_mechanism_cannot_serve_it():
    assert Cyclic(rounds=1).needs == "each"


@pytest.mark.parametrize("arguments", [{"visits": 0}, {"fraction": 0.5}, {"site_weights": {"a": 1.0}}])
def test_what_has_no_meaning_is_refused(arguments):
    with pytest.raises(UserError, match=f"{next(iter(arguments))}"):
        Cyclic(rounds=1, **arguments)
