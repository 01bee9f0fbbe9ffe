"""Under `distributed_dp` the sum of the least honest sites has the whole noise, and one sum of a fit is opened."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flip.errors import UserError
from flip.messages import Fault
from flip.privacy import Spent
from flip.privacy.opacus_training import release
from flip.privacy.released import Update, deviation_of
from tests.privacy.noised_parties import ROUNDS, Noised, along, in_sum
from tests.privacy.private_fits import Examples, Linear, private_fit, rows, seeded, train

SIZE = 4000
SITES = 5
HONEST = 3  # of five that began four come to the end at least, of which one may tell its noise


def deviation(clip: float, noise: float, present: int, honest: int = HONEST) -> float:
    """Of the mean over those that came to the end."""
    return noise * 2 * clip / SITES * math.sqrt(present / honest) / (present / SITES)


def test_the_sum_has_the_clipped_updates_and_the_whole_noise_of_the_least_honest_sites(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(clip=0.5, noise_multiplier=0.05), size=SIZE)
    sites.moves = {"a": along(SIZE, 7, 30.0), "b": along(SIZE, 8, 0.25)}
    moved = sites.released()
    assert moved[7:9] * SITES == pytest.approx([0.5, 0.25], abs=5 * SITES * deviation(0.5, 0.05, SITES))
    assert moved[9:].std() == pytest.approx(deviation(0.5, 0.05, SITES), rel=0.05)


def test_where_a_site_is_lost_the_noise_of_the_others_is_enough(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(noise_multiplier=0.05), size=SIZE, lost={("masked", "e")})
    task = sites.task()
    moved = sites.summed(task)["a"].weights["net"] - task.weights["net"]
    assert moved.std() == pytest.approx(deviation(1.0, 0.05, 4), rel=0.05)


@pytest.mark.parametrize(("colluding", "honest"), [(0, 4), (2, 2), (3, 1)])
def test_the_fewer_sites_keep_their_noise_to_themselves_the_more_each_adds(tmp_path, colluding, honest):
    sites = Noised(tmp_path, mechanism=in_sum(noise_multiplier=0.05, colluding=colluding), size=SIZE)
    assert sites.released().std() == pytest.approx(deviation(1.0, 0.05, SITES, honest), rel=0.05)


def test_no_sum_is_made_where_nobodys_noise_is_unknown(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(colluding=4), size=SIZE)
    assert {reply.fault for reply in sites.summed().values()} == {Fault.REFUSED_RULE}
    assert "no site keeps its noise to itself" in sites.whys()[0]


def test_a_sum_of_sites_of_different_weight_is_not_made(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE)
    trained = sites.trained
    sites.trained = lambda task, site: replace(trained(task, site), examples=1 + (site == "b"))  # type: ignore
    sites.mechanism._credible = lambda reply: True  # type: ignore[method-assign]
    assert {reply.fault for reply in sites.summed().values()} == {Fault.REFUSED_RULE}
    assert "sites of different weight" in sites.whys()[0]


def test_the_noise_of_every_site_is_in_the_ledger_once_a_round_and_is_fresh(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE)
    first, second = sites.released(0), sites.released(1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    entry = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 1.0, "law": "discrete", "unit": "site"}
    assert sites.spent == [entry] * (2 * SITES)


def test_the_noise_of_two_sites_is_not_the_same(tmp_path):
    halves = []
    for lost in ("d", "e"):
        sites = Noised(tmp_path / lost, mechanism=in_sum(), size=SIZE, lost={("masked", lost)})
        task = sites.task()
        halves.append(sites.summed(task)["a"].weights["net"] - task.weights["net"])
    assert np.abs(halves[0] - halves[1]).max() > 0.1  # the lost ones' noise is all that they differ by


def test_a_fit_is_opened_again_with_the_same_noise_or_not_at_all(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE)
    assert np.array_equal(sites.released(), sites.released())
    fewer = sites.summed(sites.task(), ["a", "b", "c", "d"])
    assert not any(dict(reply.weights) for reply in fewer.values())
    assert "in a sum over other sites" in sites.whys()[0]


def test_the_same_sites_are_not_opened_twice_with_the_noise_of_those_that_began_and_of_fewer(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE, lost={("masked", "e")})
    assert sites.summed(sites.task())["a"].fault is None
    assert not dict(sites.summed(sites.task(), ["a", "b", "c", "d"])["a"].weights)
    assert "in a sum over other sites" in sites.whys()[-1]


def test_another_update_of_the_same_fit_is_not_kept(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE)
    sites.released()
    sites.moves = {"a": along(SIZE, 0, 0.2)}
    assert sites.summed()["a"].fault is Fault.REFUSED_BUDGET
    assert "another update of the same fit" in sites.whys()[0]


def test_what_nothing_is_paid_for_is_in_no_sum(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(), size=SIZE)
    sites.prepare = lambda task, site: None  # type: ignore[method-assign]
    assert sites.summed()["a"].fault is Fault.REFUSED_BUDGET


def test_a_scale_that_the_noise_does_not_fit_is_refused_with_a_remedy(tmp_path):
    sites = Noised(tmp_path, mechanism=in_sum(scale=30), size=SIZE)
    sites.summed()
    assert "choose another scale" in sites.whys()[0]


# Persons.


def persons(**changes: object) -> object:
    return in_sum(**{"unit": "person", "batch": 6.0, "clip": 0.05, **changes})


def test_a_step_moves_the_numbers_by_each_persons_clipped_gradient_over_the_stated_rows():
    whose, mechanism = np.array([0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]), persons()
    data = Examples(**rows(12).tensors, person=torch.from_numpy(whose))
    one = seeded(Linear)
    before = {name: each.detach().clone() for name, each in one.named_parameters()}
    fit = private_fit(mechanism, one, data, steps=1, batch=12, whose=whose)
    train(fit)
    assert all(torch.equal(each, before[name]) for name, each in one.named_parameters())  # nothing without noise
    release(one)
    sums = {name: np.zeros(each.shape) for name, each in one.named_parameters()}
    for person in np.unique(whose):
        gradients = [torch.zeros(each.shape) for each in one.parameters()]
        for row in np.flatnonzero(whose == person):
            loss = torch.nn.functional.mse_loss(one.net(data.tensors["x"][row]), data.tensors["y"][row])
            found = torch.autograd.grad(loss, [*one.parameters()])
            gradients = [a + b for a, b in zip(gradients, found, strict=True)]
        norm = float(torch.cat([each.ravel() for each in gradients]).norm())
        for name, each in zip(sums, gradients, strict=True):
            sums[name] += each.numpy() * min(1, 0.05 / norm)
    for key, name in mechanism._sums.names.items():
        np.testing.assert_allclose(mechanism._sums.sums[key].numpy(), sums[name], rtol=1e-5)
    assert mechanism._sums.by == -0.1 / 6
    assert mechanism._sums.norm == pytest.approx(0.1 * 0.05 / 6, rel=1e-3)
    assert fit.ledger[0]["unit"] == "person"


def test_a_batch_that_nobody_was_drawn_for_moves_nothing():
    sums = []
    for key in range(8):
        mechanism = persons()
        train(private_fit(mechanism, seeded(Linear), rows(6), steps=1, batch=1, key=bytes([key]) * 32))
        sums.append(sum(float(each.abs().sum()) for each in mechanism._sums.sums.values()))
    assert 0.0 in sums and max(sums) > 0


def test_one_person_changes_the_move_by_no_more_than_the_noise_is_for_and_by_nearly_as_much():
    def moved(number: int) -> np.ndarray:
        mechanism, whose = persons(), torch.arange(number)
        data = Examples(x=torch.full((number, 3), 1e3), y=torch.zeros(number, 1), person=whose)
        fit = private_fit(mechanism, seeded(Linear), data, steps=1, batch=number, whose=whose.numpy())
        train(fit)
        sent = {f"weights/{name}": each.detach().numpy() for name, each in fit.module.named_parameters()}
        return mechanism._sums.move(Update(sent, np.zeros(4), np.zeros(4), np.ones(4, bool)))

    (with_one, norm), (without, _) = moved(12), moved(11)
    assert 0.99 * norm < np.linalg.norm(with_one - without) <= norm


def test_the_noise_of_persons_is_for_one_side_of_one_part_of_the_mean():
    assert persons()._deviation((2.0, 0.5), 1 / 4, 100, 3) == deviation_of(2.0, 0.5 / 4 * 2**20 * (1 + 1e-9) + 10, 3)


def test_several_steps_between_two_sums_are_refused_at_the_site():
    with pytest.raises(Exception, match="3 steps between two sums; noise in the sum hides a person in one alone"):
        private_fit(persons(), seeded(Linear), rows(), steps=3)


@pytest.mark.parametrize("extra", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"adam": True}, {"scheduled": True}])
def test_an_optimizer_whose_mean_is_no_function_of_the_sum_is_refused(extra):
    module = seeded(Linear, scheduled="scheduled" in extra)
    if "adam" in extra:
        module.configure_optimizers = lambda: torch.optim.Adam(module.parameters())
    elif "scheduled" not in extra:
        module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1, **extra)
    with pytest.raises(UserError, match="unit=person needs plain SGD at one rate"):
        persons().check(module, {})


def test_a_second_round_finds_the_models_own_optimizer():
    module, mechanism = seeded(Linear), persons()
    for _ in range(2):
        train(private_fit(mechanism, module, rows(), steps=1))
        assert mechanism._sums.sums


def test_what_one_study_states_of_persons_is_training_and_metrics():
    mechanism = persons(noise_multiplier=None, target_epsilon=2.0, metrics_epsilon=1.0)
    assert mechanism.stated() == Spent(3.0, 1e-5, "person")
    training, metrics = mechanism.plan(1, ROUNDS, ROUNDS)
    assert (training["steps"], metrics["steps"]) == (ROUNDS, 1.0)
    assert mechanism.spent([training, metrics]).epsilon <= 3.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "row"}, r"privacy.distributed_dp.unit='row': must be one of site, person"),
        ({"unit": "person"}, r"privacy.distributed_dp.batch: has no value"),
        ({"batch": 3.0}, r"privacy.distributed_dp.batch: has an effect with unit=person alone"),
        ({"metrics_epsilon": 3.0}, r"metrics_epsilon: has an effect with unit=person alone"),
        ({"colluding": -1}, r"privacy.distributed_dp.colluding=-1: must be 0 or more"),
        ({"threshold": 0.5, "clip": 0.0}, r"clip=0.0: must be above 0(.|\n)*threshold=0.5: must be above 2/3"),
        ({"delta": 0.01}, r"delta=0.01: must be above 0 and below 0.001 to hide a site"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        in_sum(**changes)
