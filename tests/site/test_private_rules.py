"""What else a site holds a private study to: floors on every step, whose the rows are, keys of noise, what is told."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from flip.config.checks.private import private_problems
from flip.config.checks.study import check
from flip.errors import UserError
from flip.messages import Fault
from flip.messages.weights import to_arrays
from flip.privacy import Mechanism, Spent
from flip.privacy.dp_sgd import DPSGD
from flip.site.fit import LocalFit
from flip.site.private_fit import Privacy
from flip.site.private_scores import by_person
from flip.site.refusal import Refusal
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.privacy.private_fits import Linear, private_fit, seeded, train
from tests.privacy.private_fits import rows as examples
from tests.site.test_budget import PRIVATE, RULES, Hospital
from tests.studies import tiny_heart_study


class Plain(Mechanism):
    """A mechanism that adds no noise."""


class Protects(Mechanism):
    """A mechanism under which nothing leaves without noise."""

    private = True


def log(own: Hospital) -> str:
    return (own.folder / "home" / "site.log").read_text()


# The least batch.


@pytest.mark.parametrize(("mechanism", "refused"), [(Plain(), True), (Protects(), False)])
def test_only_noise_for_each_person_stands_in_for_the_least_batch(mechanism, refused):
    loaded: Any = SimpleNamespace(
        policy=SimpleNamespace(minimum_cell=1, minimum_batch=5), mechanisms=[mechanism], deployed=True
    )
    fit = LocalFit(SimpleNamespace(), loaded, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    callback: Any = SimpleNamespace(drawn=SimpleNamespace(number=40, by_batch=[2, 2, 2]))
    if refused:
        with pytest.raises(Refusal, match="minimum_batch"):
            fit._weights(torch.nn.Linear(2, 1), callback)
    else:
        assert fit._weights(torch.nn.Linear(2, 1), callback)


# Floors, whichever task comes first.


@pytest.mark.parametrize("step", ["fit", "alone", "test"])
def test_the_floor_on_delta_holds_for_whatever_a_hospital_is_asked_first(tmp_path, step):
    own = Hospital(tmp_path, *PRIVATE, "privacy.dp_sgd.metrics_epsilon=1", "privacy.dp_sgd.delta=0.2")
    own.policy(RULES)
    task = {
        "fit": lambda: own.task(),
        "alone": lambda: own.task(stage="alone", alone="cleveland"),
        "test": lambda: own.task("evaluate", stage="test", split="test"),
    }[step]()
    assert own.silo.answer(task).fault is Fault.REFUSED_RULE
    assert "delta 0.2 is no less than 1 /" in log(own)
    assert own.entries() == []


def test_a_training_alone_keeps_the_floor_on_the_part_that_a_batch_is(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, "dataset.batch_size=16")
    own.policy(RULES)
    assert own.silo.answer(own.task(stage="alone", alone="cleveland")).fault is Fault.REFUSED_RULE
    assert own.entries() == []


def test_the_floor_on_delta_holds_for_a_hospital_that_is_only_tested_on(tmp_path):
    own = Hospital(tmp_path, *PRIVATE, "privacy.dp_sgd.metrics_epsilon=1", "privacy.dp_sgd.delta=0.2")
    own.policy(RULES)
    own.file.write_text(yaml.safe_dump(yaml.safe_load(own.file.read_text()) | {"trains": False}))
    assert own.silo.answer(own.task("evaluate", stage="test", split="test")).fault is Fault.REFUSED_RULE
    assert own.entries() == []


# Whose the rows of a test split are.


def rows(persons: list[int | None]) -> DataLoader:
    return DataLoader(
        [
            {"features": torch.tensor([1.0])} | ({} if person is None else {"person": torch.tensor(person)})
            for person in persons
        ],
        batch_size=2,
    )


@pytest.mark.parametrize(
    ("persons", "words"),
    [([7, None, 7], "does not say whose it is"), ([7, 8, 9], "not the same"), ([7, 7, 7], "not the same")],
)
def test_test_rows_that_do_not_say_whose_they_are_as_the_dataset_does_are_refused(persons, words):
    codes = np.array([7, 9, 7], np.int64)
    assert len(list(by_person(rows([7, 7, 9]), codes))) == 2
    with pytest.raises(Refusal, match=words):
        by_person(rows(persons), codes)


def test_a_hospital_scores_nothing_under_noise_where_its_dataset_does_not_say_whose_rows_are(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    own.file.write_text(yaml.safe_dump(yaml.safe_load(own.file.read_text()) | {"person": "MRN"}))
    loaded: Any = SimpleNamespace(deployed=True, datamodule=object())
    with pytest.raises(Refusal, match="whose its examples are"):
        Privacy(own.silo.place.now(), loaded, own.task()).whose("test")


# What is told of what was spent.


def test_of_several_mechanisms_the_largest_epsilon_is_told():
    class Small(Mechanism):
        def spent(self, ledger: list) -> Spent:
            return Spent(0.1, 1e-5)

    class Large(Mechanism):
        def spent(self, ledger: list) -> Spent:
            return Spent(3.0, 1e-6)

    loaded: Any = SimpleNamespace(mechanisms=[Small(), Large()])
    told = Privacy(SimpleNamespace(), loaded, SimpleNamespace()).spent([])  # type: ignore[arg-type]
    assert told == {"privacy/epsilon": 3.0, "privacy/delta": 1e-6}


SIMULATION = ("federation=inprocess", "privacy=dp_sgd")
TWICE = (
    "+privacy.second={_target_: flip.privacy.dp_sgd.DPSGD, max_grad_norm: 1, delta: 1.0e-5, noise_multiplier: 0.1, "
    "target_epsilon: null}"
)


def test_a_study_protects_persons_by_one_mechanism(tmp_path):
    with pytest.raises(UserError) as refused:
        check(tiny_heart_study(write_tiny_heart(tmp_path), *SIMULATION, TWICE))
    (problem,) = refused.value.problems
    assert problem.startswith("privacy.second: ")
    assert "dp_sgd" in problem


# Choices that rest on numbers without noise.

LIGHTNING = "pytorch_lightning.callbacks"
STOP = "+trainer.callbacks.stop={_target_: %s.EarlyStopping, monitor: %s}"
BEST = "+trainer.callbacks.best={_target_: %s.ModelCheckpoint, monitor: val/accuracy}"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (STOP % (LIGHTNING, "val/accuracy"), "trainer.callbacks.stop"),
        (STOP % (LIGHTNING, "loss"), "trainer.callbacks.stop"),
        (BEST % LIGHTNING, "trainer.callbacks.best"),
    ],
)
def test_a_training_alone_whose_callback_chooses_without_noise_is_refused_at_the_site(tmp_path, words, key):
    own = Hospital(tmp_path, *PRIVATE, words)
    assert own.silo.answer(own.task(stage="alone", alone="cleveland")).fault is Fault.REFUSED_MANIFEST
    assert f"{key}: chooses by numbers that privacy.dp_sgd does not protect" in log(own)
    assert own.entries() == []


class Chooses:
    """A model that chooses its decision threshold."""

    chooses_threshold, decided = True, ()

    def choose_threshold(self) -> float:
        return 0.5

    def decide_at(self, threshold: float | None) -> None:
        pass


def test_a_threshold_chosen_by_validation_is_refused(tmp_path):
    study = tiny_heart_study(write_tiny_heart(tmp_path), *SIMULATION)
    model: Any = Chooses()
    (problem,) = private_problems(study, "dp_sgd", Protects(), model=model, strategy=None)
    assert problem.startswith("model: chooses its decision threshold by validation counts")


@pytest.mark.parametrize("named", [True, False])
def test_a_learning_rate_that_follows_the_loss_is_refused(named):
    class Waits(Linear):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler} if named else scheduler}

    fit = private_fit(DPSGD(max_grad_norm=1.0, delta=1e-5, noise_multiplier=1.0), seeded(Waits), examples())
    with pytest.raises(UserError, match="follows a loss"):
        train(fit)


# Keys of noise.


def test_noise_is_of_the_statistics_that_the_data_are_scaled_by(tmp_path):
    own = Hospital(tmp_path, *PRIVATE)
    task, silo = own.task(), own.silo
    assert isinstance(silo, Silo)
    keys = set()
    for scale in (1.0, 2.0):
        loaded: Any = SimpleNamespace(datamodule=object(), agreed={"features": np.full(2, scale)})
        keys.add(Privacy(silo.place, loaded, task).noise_key({}))
    assert len(keys) == 2


def test_a_task_does_not_depend_on_what_the_process_has_trained_before(tmp_path):
    own = Hospital(tmp_path / "one", "strategy.share=['*weight']")
    other = Hospital(tmp_path / "two", "strategy.share=['*weight']")

    def first(hospital: Hospital, run: str) -> dict[str, np.ndarray]:
        task = hospital.task(run=run)
        shared = {name: array for name, array in task.weights.items() if "weight" in name}
        reply = hospital.silo.answer(replace(task, weights=shared))
        assert reply.fault is None, log(hospital)
        return {**to_arrays(hospital.silo._loaded.popitem()[1].module)} if run == "last" else dict(reply.weights)

    for hospital in (own, other):
        hospital.policy(RULES)
    first(own, "before")
    again, alone = first(own, "last"), first(other, "last")
    assert all(np.array_equal(again[name], alone[name]) for name in alone)
