"""What `big_model.py` measures: the engine over stub sites, and the same messages moved by hand.

Each function named in `APPS` is one program. All do the same: two rounds in which every site gets the weights and
returns as many, which are averaged, then the weights once more to every site, which returns a number.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = 25  # arrays that the model's numbers are spread over
ROUNDS = 2
WORKERS = 2  # sites that compute at the same time
TIMEOUT = 900.0
IMPORTED: list[int] = []  # bytes of this process once all was imported
ORDER = "order"  # folder in which a site leaves a word when it has answered, for the site that comes last


def held(word: str) -> int:
    """Bytes of this process's memory now ("VmRSS") or at its peak ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def layers(parameters: int) -> dict[str, np.ndarray]:
    """A model of so many float32 zeros."""
    return {f"layer{number:02}": np.zeros(parameters // LAYERS, np.float32) for number in range(LAYERS)}


def fold(mean: dict[str, np.ndarray], arrays: Mapping[str, np.ndarray], count: int) -> None:
    """The running mean of equally weighted sites, by hand: the `count`-th site's arrays into it, in place."""
    for name, array in arrays.items():
        if name in mean:
            step = array - mean[name]
            step /= np.float32(count)
            mean[name] += step
        else:
            mean[name] = np.array(array)


# The engine, over stub sites.


@dataclass
class Stub:
    """A site without data: adds 1 to the weights. `first` answers only when others have, `waits` of them."""

    name: str
    folder: Path | None = None
    waits: int = 0

    def answer(self, task: Any) -> Any:
        from flip.messages import Reply
        from flip.messages.summary import Summary, SummaryKind, Topic

        if task.step == "statistics":
            return Reply(self.name, task.digest, 6, {"persons": 10.0, "train": 6.0, "validate": 0.0, "test": 4.0})
        if task.step == "evaluate":
            states = {"loss/mean_value": 4.0, "loss/weight": 4.0}
            sums = {key: Summary(SummaryKind.SUM, np.array(value), 4) for key, value in states.items()}
            return Reply(self.name, task.digest, 4, {"loss": 1.0}, summaries={Topic.METRIC: sums})
        weights = {name: array + np.float32(1) for name, array in task.weights.items()}
        control = {name: array for name, array in task.state.items() if name.startswith("control/")}  # SCAFFOLD's
        reply = Reply(self.name, task.digest, 6, {"loss": 0.5}, weights, control)
        if self.folder:
            deadline = time.monotonic() + TIMEOUT
            while len(list(self.folder.glob(f"{task.round}-*"))) < self.waits and time.monotonic() < deadline:
                time.sleep(0.05)
            (self.folder / f"{task.round}-{self.name}").touch()
        return reply


def study(parameters: int, sites: Sequence[str], folder: Path, strategy: str = "FedAvg") -> Callable[[Any], Any]:
    """The engine's loop with its recorder, which writes weights and state after every round."""
    import torch
    from torchmetrics import MeanMetric

    from flip.coordinator.evaluation import Evaluation
    from flip.coordinator.loop import Coordinator
    from flip.coordinator.roster import Roster
    from flip.runs.folder import RunFolder
    from flip.strategies.fedadam import FedAdam
    from flip.strategies.fedavg import FedAvg
    from flip.strategies.scaffold import Scaffold

    IMPORTED.append(held("VmRSS"))

    class Module(torch.nn.Module):
        monitor, higher_is_better = "loss", False

        def __init__(self) -> None:
            super().__init__()
            for name, array in layers(parameters).items():
                self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array)))
            self.metrics = torch.nn.ModuleDict({"loss": MeanMetric()})

    kinds = {kind.__name__: kind for kind in (FedAvg, FedAdam, Scaffold)}
    made = kinds[strategy](rounds=ROUNDS)
    roster = Roster("benchmark", "{}", dict.fromkeys(sites, True), made.min_sites, RunFolder(folder / "run", []))
    return Coordinator(roster, Evaluation(roster, Module(), None, ROUNDS), seed=1, strategy=made)


def loop(parameters: int, sites: Sequence[str], folder: Path, *, late: bool = False, strategy: str = "FedAvg") -> None:
    """The loop in this process, the sites in two others; with `late` the first site's reply comes after its peers'."""
    from flip.federation import inprocess

    def stubs(files: Mapping[str, Path]) -> dict[str, Any]:
        waits = len(sites) // 2 if late else 0  # all that the other worker process answers for
        return {name: Stub(name, folder / ORDER, waits if name == sites[0] else 0) for name in files}

    (folder / ORDER).mkdir()
    inprocess.open_silos = stubs  # type: ignore[assignment]
    run = study(parameters, sites, folder, strategy)
    inprocess.InProcess(TIMEOUT, WORKERS).run(run, {name: folder / name for name in sites})


def loop_late(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """The loop, where half of the replies come before the first site's."""
    loop(parameters, sites, folder, late=True)


def loop_scaffold(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """The loop with SCAFFOLD: twice the arrays travel, both ways."""
    loop(parameters, sites, folder, strategy="Scaffold")


def loop_fedadam(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """The loop with FedAdam, whose two moments stay at the coordinator."""
    loop(parameters, sites, folder, strategy="FedAdam")


def flower(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """The engine on Flower's simulation runtime."""
    from flip.federation.flower import simulation as ours

    stub, silos = Stub, {str(folder / name): name for name in sites}

    def stubbed(files: Mapping[str, str]) -> Any:
        from flwr.clientapp import ClientApp

        app = ClientApp()

        def handle(message: Any, context: Any) -> Any:
            from flip.federation.flower import simulation as there

            there.SILOS.update({path: stub(name) for path, name in silos.items()})
            return there.answer_message(message, context, files)

        for register in (app.train, app.evaluate, app.query):
            register()(handle)
        return app

    ours.client_app = stubbed  # type: ignore[assignment]
    run = study(parameters, sites, folder)
    ours.Flower(TIMEOUT, WORKERS).run(run, {name: folder / name for name in sites})


def nvflare(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """The engine on FLARE's simulator."""
    from flip.federation.nvflare import simulator as ours

    ours.EXECUTOR = "big_model_apps.stub_executor"
    run = study(parameters, sites, folder)
    ours.NVFlare(TIMEOUT, WORKERS).run(run, {name: folder / name for name in sites})


def stub_executor(workspace: str, client: str) -> Any:
    """The engine's executor at a FLARE client, over a stub site."""
    from flip.config import site_file
    from flip.federation.nvflare import simulator as ours
    from flip.site import silo

    site_file.load_site = lambda path: None  # type: ignore[assignment, return-value]
    silo.Silo = lambda name, site, home: Stub(name)  # type: ignore[assignment, misc]
    return ours.executor(workspace, client)


# The same messages, by hand: as lean as each framework's own calls allow.


def flower_by_hand(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """Flower's `ArrayRecord` both ways; the server folds each reply as it comes and drops it."""
    from flip.federation.flower.simulation import simulation_environment

    with simulation_environment() as temporary:
        from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
        from flwr.clientapp import ClientApp
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        server, client = ServerApp(), ClientApp()

        @server.main()
        def main(grid: Any, context: Any) -> None:
            while len(nodes := list(grid.get_node_ids())) < len(sites):
                time.sleep(0.02)
            record = ArrayRecord({name: array_of(array) for name, array in layers(parameters).items()})
            for kind in ["train"] * ROUNDS + ["evaluate"]:
                content = RecordDict({"arrays": record})
                messages = [Message(content, dst_node_id=node, message_type=kind, ttl=TIMEOUT) for node in nodes]
                waiting = set(grid.push_messages(messages))
                del messages, content
                mean: dict[str, np.ndarray] = {}
                count = 0
                while waiting:
                    replies = list(grid.pull_messages(waiting))
                    while replies:
                        reply = replies.pop()
                        waiting.remove(reply.metadata.reply_to_message_id)
                        if not reply.has_content():
                            raise RuntimeError(reply.error)
                        count += 1
                        if kind == "train":
                            for name, array in reply.content["arrays"].items():
                                fold(mean, {name: array.numpy()}, count)
                        del reply
                    time.sleep(0.02)
                if kind == "train":
                    record = ArrayRecord({name: array_of(mean.pop(name)) for name in list(mean)})

        def array_of(array: np.ndarray) -> Any:
            from flwr.app import Array

            return Array(array)

        @client.train()
        def train(message: Any, context: Any) -> Any:
            from flwr.app import Array, ArrayRecord, Message, RecordDict

            arrays = {name: Array(each.numpy() + np.float32(1)) for name, each in message.content["arrays"].items()}
            return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)

        @client.evaluate()
        def evaluate(message: Any, context: Any) -> Any:
            return Message(RecordDict({"metrics": MetricRecord({"loss": 1.0})}), reply_to=message)

        run_simulation(
            server_app=server, client_app=client, num_supernodes=len(sites),
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0},
                "init_args": {"num_cpus": WORKERS, "log_to_driver": False, "_temp_dir": temporary},
            },
        )  # fmt: skip


def nvflare_by_hand(parameters: int, sites: Sequence[str], folder: Path) -> None:
    """FLARE's own way for arrays: a DXO of NumPy arrays both ways; the controller folds each result as it comes."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    contents: dict[str, Any] = {
        "workspace/local/resources.json": {
            "format_version": 2,
            "class_allow_list": ["big_model_apps.hand_controller", "big_model_apps.hand_executor"],
        },
        "job/meta.json": {"name": "hand", "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}},
        "job/app/config/config_fed_server.json": {
            "format_version": 2,
            "server": {"task_request_interval": 0.05},
            "workflows": [
                {"id": "hand", "path": "big_model_apps.hand_controller",
                 "args": {"parameters": parameters, "done": str(folder / "done")}}
            ],
        },
        "job/app/config/config_fed_client.json": {
            "format_version": 2,
            "get_task_timeout": TIMEOUT,
            "submit_task_result_timeout": TIMEOUT,
            "executors": [{"tasks": ["*"], "executor": {"path": "big_model_apps.hand_executor"}}],
        },
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    SimulatorRunner(
        job_folder=str(folder / "job"),
        workspace=str(folder / "workspace"),
        clients=",".join(sites),
        threads=len(sites),
    ).run()
    if not (folder / "done").exists():
        raise RuntimeError("FLARE's job did not end well")


def hand_controller(parameters: int, done: str) -> Any:
    """Sends the weights to two clients at a time, as the engine does."""
    from nvflare.apis.controller_spec import Task
    from nvflare.apis.dxo import DXO, DataKind, from_shareable
    from nvflare.apis.impl.controller import Controller
    from nvflare.app_common.decomposers import numpy_decomposers

    numpy_decomposers.register()

    class Hand(Controller):  # type: ignore[misc]
        def start_controller(self, fl_ctx: Any) -> None:
            pass

        stop_controller = start_controller

        def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
            weights = layers(parameters)
            clients = [client.name for client in fl_ctx.get_engine().get_clients()]
            for step in ["fit"] * ROUNDS + ["evaluate"]:
                mean: dict[str, np.ndarray] = {}
                count = 0

                def received(client_task: Any, fl_ctx: Any, step: str = step, mean: Any = mean) -> None:
                    nonlocal count
                    count += 1
                    if step == "fit":
                        fold(mean, from_shareable(client_task.result).data, count)
                    client_task.result = None

                for start in range(0, len(clients), WORKERS):
                    data = DXO(DataKind.WEIGHTS, data=weights).to_shareable()
                    pair = clients[start : start + WORKERS]
                    task = Task(step, data, result_received_cb=received)
                    self.broadcast_and_wait(
                        task, fl_ctx, targets=pair, min_responses=len(pair), abort_signal=abort_signal
                    )
                if count < len(clients):
                    return
                weights = mean or weights
            Path(done).touch()

    return Hand()


def hand_executor() -> Any:
    """Adds 1 to the weights."""
    from nvflare.apis.dxo import DXO, DataKind, from_shareable
    from nvflare.apis.executor import Executor
    from nvflare.app_common.decomposers import numpy_decomposers

    numpy_decomposers.register()

    class Add(Executor):  # type: ignore[misc]
        def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
            if task_name == "evaluate":
                return DXO(DataKind.METRICS, data={"loss": 1.0}).to_shareable()
            weights = from_shareable(shareable).data
            return DXO(DataKind.WEIGHTS, data={n: a + np.float32(1) for n, a in weights.items()}).to_shareable()

    return Add()


APPS = {
    app.__name__: app
    for app in (loop, loop_late, loop_scaffold, loop_fedadam, flower, flower_by_hand, nvflare, nvflare_by_hand)
}


def main(name: str, parameters: int, number: int) -> None:
    """Run one program in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="flip-big-") as folder:
        APPS[name](parameters, [f"site-{each}" for each in range(1, number + 1)], Path(folder))
    print(json.dumps({"coordinator": held("VmHWM") - sum(IMPORTED)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
