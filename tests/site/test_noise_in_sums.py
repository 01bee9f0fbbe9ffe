"""Noise of differential privacy inside a secure sum: each site's is made and paid for before its numbers are masked."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from flip.config import build
from flip.config.checks.study import check
from flip.config.schema import SIMULATED, Site
from flip.messages import Reply, Task
from flip.messages.weights import to_arrays
from flip.site.ledger import ledger_of
from flip.site.silo import Silo
from flip.site.steps import Steps
from flip.strategies.fedavg import FedAvg
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

NAMES = ("cleveland", "hungarian", "switzerland", "va")
SUMS_OF_NOISED = ("privacy=[dp_sgd,secure_aggregation]", "dataset.scaling=declared")


@pytest.mark.slow
def test_a_sum_has_the_noised_weights_of_sites_whose_ledgers_have_the_noise(tmp_path, monkeypatch):
    data = write_tiny_heart(tmp_path / "data")
    study = tiny_heart_study(data, "federation=inprocess", *SUMS_OF_NOISED, "trainer.steps=2")
    check(study)
    silos = {}
    for name in NAMES:
        root = data / "uci_heart" / f"processed.{name}.data"
        own = Site(root=str(root), policy="public_data", secret=SIMULATED)
        silos[name] = Silo(name, own, tmp_path / name)
    noised: dict[str, Reply] = {}
    answer = Steps.answer

    def spied(self: Steps, task: Task) -> Reply:
        noised[self.place.name] = answer(self, task)
        return noised[self.place.name]

    monkeypatch.setattr(Steps, "answer", spied)
    left: list[Reply] = []

    def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
        for name in names:
            left.append(silos[name].answer(task))
            yield left[-1]

    asked = ask
    for mechanism in reversed(build.mechanisms(study.manifest)):
        mechanism.lend(FedAvg(rounds=3).weight)
        asked = mechanism.wrap_ask(asked)
    task = Task("run", "study", 0, "fit", to_arrays(build.initial_module(study.manifest)), {}, {}, study.manifest_text)
    replies = [*asked(task, NAMES)]
    assert [reply.fault for reply in replies] == [None] * 4, (tmp_path / "va" / "site.log").read_text()
    for name in task.weights:
        mean = np.mean([noised[site].weights[name].astype(np.float64) for site in NAMES], axis=0)
        np.testing.assert_allclose(replies[0].weights[name], mean, atol=1e-6, rtol=1e-6)
    assert not any(dict(reply.weights) for reply in left)
    for site, reply in noised.items():
        assert (reply.examples, {*reply.metrics}) == (1, {"privacy/epsilon", "privacy/delta"})
        assert [entry["steps"] for entry in ledger_of(silos[site].place, task).entries()] == [2]
