"""A round under noise of whole sites or persons, through the sites' gates and the bytes that every backend carries."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flip.config import build
from flip.config.checks.study import check
from flip.config.schema import SIMULATED, Site
from flip.config.study import Study
from flip.messages import Reply, Task
from flip.messages.weights import to_arrays
from flip.messages.wire import pack_reply, pack_task, unpack_reply, unpack_task
from flip.site.ledger import ledger_of
from flip.site.silo import Silo
from flip.strategies.fedavg import FedAvg
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

NAMES = ("cleveland", "hungarian", "switzerland", "va")
PERSON = (
    "privacy=distributed_dp",
    "privacy.distributed_dp.unit=person",
    "privacy.distributed_dp.batch=10",
    "trainer.steps=1",
)
MECHANISMS = {"local": ("privacy=local_dp",), "site": ("privacy=distributed_dp",), "person": PERSON}


class Sites:
    """Four simulated sites; `tap` has every reply."""

    def __init__(self, folder: Path, data: Path, study: Study, *, by_bytes: bool) -> None:
        self.study, self.by_bytes = study, by_bytes
        self.silos = {name: Silo(name, self.file(data, name), folder / name) for name in NAMES}
        self.tap: list[Reply] = []

    def file(self, data: Path, name: str) -> Site:
        root = data / "uci_heart" / f"processed.{name}.data"
        return Site(root=str(root), policy="public_data", secret=SIMULATED)

    def task(self, step: str = "fit") -> Task:
        start = to_arrays(build.initial_module(self.study.manifest))
        return Task("run", "study", 0, step, start, {}, {}, self.study.manifest_text)

    def ask(self, task: Task, names: Sequence[str]) -> Iterator[Reply]:
        for name in names:
            sent = unpack_task(pack_task(task)) if self.by_bytes else task
            reply = self.silos[name].answer(sent)
            self.tap.append(unpack_reply(pack_reply(reply)) if self.by_bytes else reply)
            yield self.tap[-1]

    def round(self) -> list[Reply]:
        (mechanism,) = build.mechanisms(self.study.manifest)
        mechanism.lend(FedAvg(rounds=3).weight)
        return [*mechanism.wrap_ask(self.ask)(self.task(), NAMES)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MECHANISMS)
def test_a_round_is_the_same_by_bytes_and_in_process_and_is_in_every_ledger(tmp_path, kind):
    data = write_tiny_heart(tmp_path / "data")
    study = tiny_heart_study(data, "federation=inprocess", "dataset.scaling=declared", *MECHANISMS[kind])
    check(study)
    found = []
    for by_bytes in (False, True):
        sites = Sites(tmp_path / str(by_bytes), data, study, by_bytes=by_bytes)
        replies = sites.round()
        assert [reply.fault for reply in replies] == [None] * 4, (tmp_path / str(by_bytes) / "va/site.log").read_text()
        assert {reply.examples for reply in replies} == {1}
        assert {*replies[0].metrics} == {"privacy/epsilon", "privacy/delta"}
        found.append([{name: array.tobytes() for name, array in reply.weights.items()} for reply in replies])
        for silo in sites.silos.values():
            (entry,) = ledger_of(silo.place, sites.task()).entries()
            assert (entry["steps"], entry["law"], entry["unit"]) == (
                1.0,
                "discrete",
                "person" if kind == "person" else "site",
            )
    assert found[0] == found[1]
    assert found[0][0] != {name: array.tobytes() for name, array in sites.task().weights.items()}
    assert len({str(each) for each in found[0]}) == (4 if kind == "local" else 1)
    assert kind == "local" or not any(dict(reply.weights) for reply in sites.tap)
