"""Every job through what Flower and FLARE carry: their own messages, serialized, and the halves that handle them.

No simulator is started, which `test_parity` does for a training: what differs between jobs is what a message holds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flip.cli.execute import execute
from flip.federation.answer import answer_parts
from flip.federation.flower import messages, simulation
from flip.federation.nvflare.components import SERVER, TASK, Answer
from flip.federation.nvflare.files import packed, received
from flip.files import APPLIED
from flip.messages import Ask, Reply, Task
from flip.messages.wire import task_parts, unpack_reply
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.studies import tiny_heart_study

Silos = Mapping[str, Silo]


def over_flower(silos: Silos) -> Ask:
    """Flower's exchange with ClientApps, over a grid that serializes each message."""
    from flwr.common.serde import message_from_proto, message_to_proto

    names = sorted(silos)
    simulation.SILOS |= {name: silos[name] for name in names}
    app = simulation.client_app({name: name for name in names})

    class Grid:
        def __init__(self) -> None:
            self.number, self.replies = count(), {}

        def push_messages(self, sent: Sequence[Any]) -> list[str]:
            numbers = [f"m{next(self.number)}" for _ in sent]
            for number, each in zip(numbers, sent, strict=True):
                context = SimpleNamespace(node_config={simulation.PARTITION: each.metadata.dst_node_id})
                reply = app(message_from_proto(message_to_proto(each)), context)
                self.replies[number] = message_from_proto(message_to_proto(reply))
            return numbers

        def pull_messages(self, numbers: Sequence[str]) -> list[Any]:
            return [self.replies.pop(number) for number in numbers]

    def ask(task: Task, asked: Sequence[str]) -> Iterator[Reply]:
        nodes = {name: names.index(name) for name in asked}
        blobs = dict(messages.exchange(Grid(), task, nodes, timeout=60))
        yield from (unpack_reply(blobs[name]) for name in asked)

    return ask


def over_flare(silos: Silos) -> Ask:
    """FLARE's executors, and Shareables that its own serializer has carried."""
    from nvflare.apis.shareable import Shareable
    from nvflare.fuel.utils import fobs

    sites = {name: Answer(lambda _, silo=silo: partial(answer_parts, silo)) for name, silo in silos.items()}

    def ask(task: Task, asked: Sequence[str]) -> Iterator[Reply]:
        for name in asked:
            sent = fobs.loads(fobs.dumps(Shareable(packed(task_parts(task), None))))
            back = fobs.loads(fobs.dumps(sites[name].execute(TASK, sent, None, None)))
            yield unpack_reply(received(back, None, SERVER))

    return ask


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which run a message of Flower's is: what its own processes set at their start."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)


CARRIED = {"flower": over_flower, "nvflare": over_flare}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_heart(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert execute(tiny_heart_study(data, "federation=inprocess", "strategy.rounds=1"), folder)["status"] == "ok"
    return folder


JOBS = {
    "train": ["init={}", "baselines.fine_tuned=1", "strategy.rounds=1"],
    "evaluate": ["model_from={}"],
    "predict": ["model_from={}"],
}


@pytest.fixture(scope="module")
def direct(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The result of a job whose tasks are handed over as they are."""
    known: dict[str, dict[str, Any]] = {}

    def result(job: str) -> dict[str, Any]:
        if job not in known:
            known[job] = run(job, data, trained, tmp_path_factory.mktemp("direct") / "run")
        return known[job]

    return result


def run(job: str, data: Path, trained: Path, folder: Path) -> dict[str, Any]:
    words = [f"job={job}", *(each.format(trained) for each in JOBS[job])]
    result = execute(tiny_heart_study(data, "federation=inprocess", *words), folder)
    files = {each.parent.name: each.read_bytes() for each in folder.glob("sites/*/predictions.csv")}
    told = {key: result.get(key) for key in ("status", "digest", "metrics")}
    described = folder / "description.json"
    return {**told, "files": files, "described": described.exists() and described.read_bytes()}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("backend", CARRIED)
def test_a_job_ends_as_where_nothing_is_carried(backend, job, data, trained, direct, tmp_path, monkeypatch):
    asked = []

    def ask_silos(silos: Silos) -> Ask:
        carried = CARRIED[backend](silos)

        def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
            asked.append((task.step, task.stage))
            return carried(task, names)

        return ask

    with monkeypatch.context() as patched:
        patched.setattr("flip.federation.inprocess.ask_silos", ask_silos)
        found = run(job, data, trained, tmp_path / "run")
    assert (found["status"], bool(found["files"])) == ("ok", job == "predict")
    steps = {"train": ("fit", "fine_tuned"), "evaluate": ("evaluate", APPLIED)}
    assert steps.get(job, (job, "study")) in asked
    assert found == direct(job)
