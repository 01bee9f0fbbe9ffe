"""How a study's mechanisms lie around one another, and what a site lends to its half of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from flip.config import build
from flip.config.build import initial_module
from flip.config.study import Study
from flip.coordinator.check_replies import Wanted
from flip.federation.inprocess import ask_silos
from flip.messages import Reply, Task
from flip.messages.weights import to_arrays
from flip.privacy import UNIT, Mechanism, Spent, unit_of
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.coordinator.test_loop import Notes, coordinator
from tests.site.test_gate import MOMENTS
from tests.studies import tiny_heart_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return tiny_heart_study(write_tiny_heart(tmp_path / "data"))


def task(study: Study) -> Task:
    weights = to_arrays(initial_module(study.manifest))
    return Task("run", "study", 0, "fit", weights, dict(MOMENTS), {}, study.manifest_text)


@dataclass
class Layer(Mechanism):
    """Changes the numbers of a fit at a site to `times` so many and `plus` more, and back at the coordinator."""

    times: float = 1.0
    plus: float = 0.0

    def wrap_answer(self, answer, site):
        return lambda task: self._changed(answer(task), lambda array: array * self.times + self.plus)

    def wrap_ask(self, ask):
        return lambda task, names: (
            self._changed(reply, lambda array: (array - self.plus) / self.times) for reply in ask(task, names)
        )

    def _changed(self, reply: Reply, change) -> Reply:
        return replace(reply, weights={name: change(array) for name, array in reply.weights.items()})


def received(study: Study, layers: Sequence[Mechanism], home: Path, monkeypatch) -> Reply:
    """A fit at one site as the coordinator's strategy gets it."""
    monkeypatch.setattr(build, "mechanisms", lambda manifest: list(layers))
    loop = coordinator(Notes())
    loop.mechanisms = layers
    silo = Silo("cleveland", study.sites["cleveland"], home)
    (reply,) = loop.through_mechanisms(ask_silos({"cleveland": silo}))(task(study), ["cleveland"])
    assert reply.fault is None
    return reply


def test_what_two_mechanisms_do_at_a_site_they_undo_at_the_coordinator(study, tmp_path, monkeypatch):
    plain = received(study, [], tmp_path / "plain", monkeypatch)
    for place, layers in enumerate(([Layer(times=2.0), Layer(plus=1.0)], [Layer(plus=1.0), Layer(times=2.0)])):
        through = received(study, layers, tmp_path / str(place), monkeypatch)
        for name, array in plain.weights.items():
            np.testing.assert_allclose(through.weights[name], array, rtol=0, atol=1e-6)


def lent(study: Study, home: Path, monkeypatch, *kinds: type[Mechanism]) -> list:
    """What the site lends to mechanisms of these classes, which write it down."""
    found = []

    def wrap_answer(self, answer, site):
        found.append(site)
        return answer

    for kind in kinds:
        monkeypatch.setattr(kind, "wrap_answer", wrap_answer)
    monkeypatch.setattr(build, "mechanisms", lambda manifest: [kind() for kind in kinds])
    reply = Silo("cleveland", study.sites["cleveland"], home).answer(task(study))
    assert reply.fault is None
    return found


class First(Mechanism):
    pass


class Second(Mechanism):
    pass


def test_each_mechanism_of_each_site_has_a_key_of_its_own(study, tmp_path, monkeypatch):
    here = lent(study, tmp_path / "home", monkeypatch, First, Second, Second)
    there = lent(study, tmp_path / "other", monkeypatch, First, Second, Second)
    assert len({each.key for each in (*here, *there)}) == 3 + 3
    assert {len(each.key) for each in here} == {32}
    again = lent(study, tmp_path / "home", monkeypatch, First, Second, Second)
    assert not again, "a task that was answered is answered as it left"
    secret = (tmp_path / "home" / "secret").read_bytes()
    assert secret not in {each.key for each in here}


def test_a_mechanism_keeps_arrays_at_its_site_and_reads_the_sites_rules(study, tmp_path, monkeypatch):
    (site,) = lent(study, tmp_path / "home", monkeypatch, First)
    site.store.save("of-first", 0, {"numbers": np.arange(3.0)})
    assert site.store.load("of-first", 1)["numbers"].tolist() == [0, 1, 2]
    assert site.store.load("of-first", 0) is None
    assert (site.name, site.policy.least_sites, site.policy.minimum_cell) == ("cleveland", 1, 1)


def test_noise_that_a_mechanism_adds_to_an_answer_is_in_the_sites_ledger_once(study, tmp_path, monkeypatch):
    (site,) = lent(study, tmp_path / "home", monkeypatch, First)
    entry = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 1.0}
    spent = [site.ledger.reserve([entry], key) for key in (b"one", b"one", b"two")]
    assert [len(each) for each in spent] == [1, 1, 2]


def test_whose_privacy_is_spent_is_as_the_mechanism_says_it():
    class OfSites(Mechanism):
        def spent(self, ledger):
            return Spent(1.0, 1e-5, "site")

    assert unit_of([First(), OfSites()]) == "site"
    assert unit_of([First()]) == UNIT
    roster, reply = coordinator(Notes()).roster, Reply("a", "", metrics={"privacy/epsilon": 1.0, "privacy/delta": 1e-5})
    roster.unit = "site"
    asked = replace(roster.task("fit", 0, {}), step="fit")
    wanted = Wanted({}, {}, frozenset(reply.metrics), {}, {})
    told = [replace(reply, task_digest=asked.digest, examples=1)]
    assert len([*roster.asked(lambda task, names: iter(told), asked, ["a"], "fit", wanted)]) == 1
    assert roster.recorder.lines[0]["privacy"] == {"epsilon": 1.0, "delta": 1e-5, "unit": "site"}
