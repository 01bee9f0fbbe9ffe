"""NVIDIA FLARE: every task and reply goes through FLARE's server and a FLARE client per site, on FLARE's simulator.

Three kinds of process, because FLARE takes a process over (working folder, logging, threads that do not end):

- the study's loop stays in the caller's process, with the recorder and the display;
- FLARE's server is its child (`serve`). The controller there (`relay`) has FLARE carry what the loop asks, and hands
  back what the sites answer, over a bridge (`bridge.py`);
- FLARE starts a client process per site. The executor there (`executor`) answers through `Silo`, which keeps what it
  has loaded for the whole run.

A message is one blob of bytes in a Shareable. Which site a client stands for, and its file, lie beside FLARE's
workspace, not in the job. An idle client looks for work twice a second; so that no round waits for this, the controller
tells it that there is some (an auxiliary message of FLARE's). Contract checked against nvflare 2.9.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.federation import Ask, Result
from flip.federation.bridge import Link, bound
from flip.federation.limits import Limits
from flip.federation.wire import pack_reply, unpack_task
from flip.leftovers import nothing_left

if TYPE_CHECKING:
    from flip.silo import Silo

TASK, WORK, BLOB = "flip", "flip_work", "blob"  # FLARE's names of our task, of the word that there is one, of its bytes
RELAY, EXECUTOR = f"{__name__}.relay", f"{__name__}.executor"  # all the code that FLARE's job names, and may name
POLL = 0.05  # seconds between a client's answer and its next look for work
IDLE = 5.0  # seconds after which a client looks for work that nobody told it of
BRIDGES: list[Connection] = []  # in the server's process: the way back to the loop


@dataclass
class NVFlare(Limits):
    """FLARE's simulator.

    Args:
        timeout: seconds that one task may take at one site, above 0.
        workers: sites that compute at the same time, 1 or more; each site keeps a process of its own.
    """

    def run(self, program: Callable[[Ask], Result], sites: Mapping[str, Path]) -> Result:
        """Run the coordinator's program in this process, over sites that FLARE reaches."""
        clients = {name: f"site-{number}" for number, name in enumerate(sorted(sites), start=1)}
        with simulator({clients[name]: (name, path) for name, path in sites.items()}, self.timeout) as bridge:
            link = Link(bridge, clients, self.timeout, self.workers)
            try:
                link.meet(self.starting)
                return program(link.ask)
            finally:
                link.close()


@contextmanager
def simulator(files: Mapping[str, tuple[str, Path]], timeout: float) -> Iterator[Connection]:
    """FLARE's server and clients, with all their files in one folder; nothing of it is left, however the block ends."""
    with nothing_left() as folder:
        write_job(folder, files, timeout)
        here, there = Pipe()
        with here, there:
            bound(here, timeout)
            server = start_server(folder, there, list(files))
            try:
                there.close()
                yield here
            finally:
                server.kill()
                server.wait()


def write_job(folder: Path, files: Mapping[str, tuple[str, Path]], timeout: float) -> None:
    """FLARE's job, what code it may name, its logging (standard error: the run's log), and each client's site."""
    answer = {"path": EXECUTOR, "args": {"workspace": "{WORKSPACE}", "client": "{SITE_NAME}"}}
    contents: dict[str, Any] = {
        "job/meta.json": {"name": TASK, "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}},
        "job/app/config/config_fed_server.json": {
            "format_version": 2,
            "server": {"task_request_interval": POLL},
            "workflows": [{"id": "relay", "path": RELAY}],
        },
        "job/app/config/config_fed_client.json": {
            "format_version": 2,
            "get_task_timeout": timeout,  # FLARE's own 5 s would cut large messages off
            "submit_task_result_timeout": timeout,
            "executors": [{"tasks": [TASK], "executor": answer}],
        },
        "workspace/local/resources.json": {"format_version": 2, "class_allow_list": [RELAY, EXECUTOR]},
        "logging.json": {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": "INFO", "handlers": ["out"]},
        },
    }
    contents |= {f"sites/{client}.json": [name, str(path.absolute())] for client, (name, path) in files.items()}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2))


def start_server(folder: Path, bridge: Connection, clients: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start `serve`, with the same engine and study code as here."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()", str(folder), str(bridge.fileno()), *clients],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        pass_fds=[bridge.fileno()],
        start_new_session=True,  # an interrupt from the keyboard is for this process to handle
    )


def serve() -> None:
    """The server's process: run FLARE's server and start its clients, until killed."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    folder, clients = Path(sys.argv[1]), sys.argv[3:]
    BRIDGES.append(Connection(int(sys.argv[2])))
    SimulatorRunner(
        job_folder=str(folder / "job"),
        workspace=str(folder / "workspace"),
        clients=",".join(clients),
        threads=len(clients),  # with fewer, FLARE starts a new process for every message
        log_config=str(folder / "logging.json"),
    ).simulator_run_main()
    os._exit(1)  # FLARE has given up; its threads would hold the process


def relay() -> Any:
    """FLARE's controller: has FLARE carry what the loop asks, and hands the answers back."""
    from nvflare.apis.controller_spec import Task, TaskCompletionStatus
    from nvflare.apis.impl.controller import Controller
    from nvflare.apis.shareable import Shareable

    bridge = BRIDGES[0]

    class Relay(Controller):  # type: ignore[misc]
        def start_controller(self, fl_ctx: Any) -> None:
            """FLARE wants it, as it wants `stop_controller`; there is nothing to prepare or to put away."""

        stop_controller = start_controller

        def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
            """For each question a task for its client, in place of one that the loop has given up, and a word of it."""
            blob, standing = b"", dict[str, Task]()
            while not abort_signal.triggered:
                if not bridge.poll(1.0):
                    continue
                try:
                    number, client, length = json.loads(bridge.recv_bytes())
                    blob = bridge.recv_bytes() if length else blob
                except (EOFError, OSError):
                    return
                if client in standing:
                    self.cancel_task(standing[client])
                data = Shareable({BLOB: blob})
                standing[client] = Task(TASK, data, props={"number": number}, result_received_cb=self.hand_back)
                self.send(standing[client], fl_ctx, targets=[client])
                fl_ctx.get_engine().send_aux_request([client], WORK, Shareable(), 0.0, fl_ctx, optional=True)

        def hand_back(self, client_task: Any, fl_ctx: Any) -> None:
            """One answer. FLARE lets in the next when this has returned, so that two never mix on the bridge."""
            head = [client_task.task.props["number"], client_task.client.name]
            blob = client_task.result.get(BLOB, b"")
            client_task.result = None
            self.cancel_task(client_task.task, completion_status=TaskCompletionStatus.OK)
            with suppress(OSError):
                bridge.send_bytes(json.dumps(head).encode())
                bridge.send_bytes(blob)

    return Relay()


def executor(workspace: str, client: str) -> Any:
    """FLARE's executor at a site: answers through the site's `Silo`. What it raises, FLARE turns into no answer."""
    from nvflare.apis.event_type import EventType
    from nvflare.apis.executor import Executor
    from nvflare.apis.shareable import ReturnCode, Shareable, make_reply

    from flip.silo import load_libraries

    work, silos = threading.Event(), list["Silo"]()
    work.set()  # the first look for work needs no word

    class Answer(Executor):  # type: ignore[misc]
        def handle_event(self, event_type: str, fl_ctx: Any) -> None:
            """Before FLARE looks for work, wait until there is some."""
            if event_type == EventType.START_RUN:
                fl_ctx.get_engine().register_aux_message_handler(WORK, self.told)
            if event_type == EventType.BEFORE_PULL_TASK:
                work.wait(IDLE)
                work.clear()

        def told(self, topic: str, request: Any, fl_ctx: Any) -> Any:
            """The controller's word."""
            work.set()
            return make_reply(ReturnCode.OK)

        def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
            """Answer a task; to an empty one, say which process this is."""
            load_libraries()  # when the sites are met, so before their time counts
            blob = shareable.get(BLOB, b"")
            if not blob:
                return Shareable({BLOB: str(os.getpid()).encode()})
            if not silos:
                silos.append(open_silo(Path(workspace).parents[1] / "sites" / f"{client}.json"))
            return Shareable({BLOB: pack_reply(silos[0].answer(unpack_task(blob)))})

    return Answer()


def open_silo(path: Path) -> "Silo":
    """The silo of the site that a client stands for."""
    from flip.settling import load_site
    from flip.silo import Silo

    name, file = json.loads(path.read_text())
    return Silo(name, load_site(Path(file)), Path(file).with_suffix(""))
