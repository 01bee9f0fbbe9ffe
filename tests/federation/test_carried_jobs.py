"""Every job through what Flower and FLARE carry: their own messages, serialized, and the halves that handle them.

No simulator is started, which `test_parity` does for a training: what differs between jobs is what a message holds.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.phantom import PROFILES, generate
from flip.cli.execute import execute
from flip.config.build import initial_module
from flip.config.study import Study
from flip.federation.answer import answer_parts
from flip.federation.flower import messages, simulation
from flip.federation.nvflare.components import SERVER, TASK, Answer
from flip.federation.nvflare.files import packed, received
from flip.files import APPLIED
from flip.messages import Ask, Reply, Task
from flip.messages.model_file import model_of, save_model
from flip.messages.weights import to_arrays
from flip.messages.wire import task_parts, unpack_reply
from flip.site.silo import Silo
from tests.cohorts.heart import write_tiny_heart
from tests.cohorts.organs import organs
from tests.studies import compose_study, tiny_heart_study

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


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sarcopenia study at two hospitals of two phantoms, and a model of it that was not trained."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("north", "west"):
        generate(folder / name, profile=replace(PROFILES[name], pixels=96), patients=2)
    small = ["dataset.grid.spacing_mm=5.0", "dataset.grid.size=96", "dataset.demo_patients=2"]
    network = ["model.network.channels=[4,8]", "model.network.strides=[2]"]
    words = ["experiment=sarcopenia", *network, f"paths.demo_dir={folder}", *small, "~sites.south", "~sites.east"]
    manifest, model = compose_study(*words).manifest_text, folder / "model.safetensors"
    save_model(model, model_of(to_arrays(initial_module(json.loads(manifest))), {}, manifest, pooled=False))
    return [*words, f"model_from={model}"]


@pytest.fixture(scope="module")
def studies(data, trained, scans, tmp_path_factory) -> Mapping[str, Callable[[], Study]]:
    """The study of each job, composed anew for each run of it."""
    heart, conf = partial(tiny_heart_study, data, "federation=inprocess"), organs(tmp_path_factory.mktemp("organs"))
    return {
        "train": partial(heart, f"init={trained}", "baselines.fine_tuned=1", "strategy.rounds=1"),
        "evaluate": partial(heart, "job=evaluate", f"model_from={trained}"),
        "predict": partial(heart, "job=predict", f"model_from={trained}"),
        "measure": partial(compose_study, *scans, "federation=inprocess", "job=measure"),
        "plan": partial(compose_study, "experiment=organs", "sites=[a,b]", "job=plan", config_dir=conf),
    }


JOBS = {
    "train": (("fit", "fine_tuned"), ("digest", "metrics"), None),
    "evaluate": (("evaluate", APPLIED), ("metrics",), None),
    "predict": (("predict", "study"), (), "sites/*/predictions.csv"),
    "measure": (("measure", "study"), (), "sites/*/biomarkers.csv"),
    "plan": (("plan", "study"), (), "plan.yaml"),
}
"""A task that each asks, by step and stage; what it ends with in its result; the files that it is for."""


@pytest.fixture(scope="module")
def direct(studies, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a job ends with whose tasks are handed over as they are."""
    return cache(lambda job: ended(job, studies[job](), tmp_path_factory.mktemp("direct") / "run"))


def ended(job: str, study: Study, folder: Path) -> dict[str, Any]:
    """The result of a job, and the files that it is for."""
    result = execute(study, folder)
    assert result["status"] == "ok", result
    _, keys, files = JOBS[job]
    told = {key: result[key] for key in keys}
    told |= {str(each.relative_to(folder)): each.read_bytes() for each in folder.glob(files or "description.json")}
    assert all(told.values())
    return told


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("backend", CARRIED)
def test_a_job_ends_as_where_nothing_is_carried(backend, job, studies, direct, tmp_path, monkeypatch):
    asked = []

    def ask_silos(silos: Silos) -> Ask:
        carried = CARRIED[backend](silos)

        def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
            asked.append((task.step, task.stage))
            return carried(task, names)

        return ask

    with monkeypatch.context() as patched:
        patched.setattr("flip.federation.inprocess.ask_silos", ask_silos)
        found = ended(job, studies[job](), tmp_path / "run")
    assert JOBS[job][0] in asked
    assert found
    assert found == direct(job)
