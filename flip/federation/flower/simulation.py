"""Flower: the study's loop in a ServerApp, each site in a ClientApp, on Flower's simulation runtime (Ray).

Tasks and replies travel as one blob of bytes in a ConfigRecord. Node ids are Flower's and new in every run; sites are
found by asking each node who it is. Contract checked against flwr 1.41.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.errors import StudyFailed
from flip.federation.answer import answer_parts, load_libraries
from flip.federation.flower.messages import POLL, RECORD, SITE, blob_of, deliver, exchange, record
from flip.federation.flower.ray_workers import workers
from flip.federation.limits import Limits
from flip.federation.spool import Arrival, in_order
from flip.messages import Ask, Fault, Reply, Result, Task
from flip.processes import end, nothing_left
from flip.signals import deferred

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from flip.site.silo import Silo

PARTITION = "partition-id"  # what Flower's simulation tells a node about itself
RAY_FOLDER = 107 - len("/session_2030-01-01_00-00-00_000000_4194304/sockets/plasma_store")  # characters; Linux' limit
END_POLL = 0.5  # seconds between looks for workers at the end
BUSY = "ray::ClientAppActor.run"  # what Ray calls the process of a worker while it is at a message
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # there Ray listens on this machine's loopback alone; so it does here
    "RAY_AUTH_MODE": "token",  # or other accounts of the machine could run code as this one
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # one a process: what Ray has read of it stays
    "RAY_worker_niceness": "0",  # 15 unless told: beside other work a site then runs out of time
    "PYTHONSAFEPATH": "1",  # a worker must not import from the working folder
}
# Ray starts a killed worker again, without limit: Flower would go on handing messages to the dead one, all lost.
WORKER = {"num_cpus": 1, "num_gpus": 0, "max_restarts": -1}
SILOS: dict[str, "Silo"] = {}  # in a worker process: what it has loaded, kept between messages


@dataclass
class Flower(Limits):
    """Flower's simulation runtime.

    Args:
        timeout: seconds that one task may take at the slowest site, above 0.
        workers: sites that compute at the same time, each in a process of its own; 1 or more.
    """

    def run(self, program: Callable[[Ask], Result], sites: Mapping[str, Path]) -> Result:
        """Run the coordinator's program in a ServerApp over the sites' files."""
        with simulation_environment() as temporary, workers(self.workers, temporary), deferred() as look:
            from flwr.serverapp import ServerApp
            from flwr.simulation import run_simulation

            over = threading.Event()
            done: list[Result] = []
            failed: list[BaseException] = []
            server = ServerApp()

            @server.main()
            def main(grid: "Grid", context: "Context") -> None:
                seen: Any = Interruptible(grid, look)
                try:
                    done.append(program(self._ask(seen, find_sites(seen, len(sites), self.starting))))
                except BaseException as error:  # Flower would only log it; raised again below, in the caller's thread
                    failed.append(error)
                threading.Thread(target=end_late, args=[over], daemon=True).start()

            run_simulation(
                server_app=server,
                client_app=client_app({name: str(path) for name, path in sites.items()}),
                num_supernodes=len(sites),
                backend_config={"client_resources": {**WORKER}},
            )
            over.set()
            if failed:
                raise failed[0]
        return done[0]

    def _ask(self, grid: "Grid", nodes: Mapping[str, int]) -> Ask:
        def ask(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
            return in_order(arrivals(grid, task, {site: nodes[site] for site in sites}, self.timeout), task, sites)

        return ask


@dataclass
class Interruptible:
    """What the loop uses of Flower's grid; raises Interrupted in the loop's thread once a signal waits.

    Flower's main thread waits without limit for the loop's thread, which no signal reaches.
    """

    grid: "Grid"
    look: Callable[[], None]

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there."""
        self.look()
        return self.grid.get_node_ids()

    def push_messages(self, messages: "Iterable[Message]") -> Iterable[str]:
        """Send messages; their identifiers."""
        self.look()
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> "Iterable[Message]":
        """The replies that have come."""
        self.look()
        return self.grid.pull_messages(message_ids)


@contextmanager
def simulation_environment() -> Iterator[str]:
    """Settings of Flower and Ray, and a folder for their files; both are gone afterwards, and all of their processes.

    Raises StudyFailed where the folder's name is too long for Ray.
    """
    with nothing_left() as folder:
        if len(str(folder)) > RAY_FOLDER:
            raise StudyFailed(
                f"TMPDIR={folder.parent}: is too long for the sockets of Ray, which Flower's simulation runs on; "
                f"choose a folder for temporary files of at most {RAY_FOLDER - len(folder.name) - 1} characters"
            )
        added = {**ENVIRONMENT, "FLWR_HOME": str(folder)}
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        try:
            yield str(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def client_app(files: Mapping[str, str]) -> "ClientApp":
    """A ClientApp whose node number n is the n-th site by name."""
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def handle(message: "Message", context: "Context") -> "Message":
        return answer_message(message, context, files)

    for register in (app.train, app.evaluate, app.query):
        register()(handle)
    return app


def answer_message(message: "Message", context: "Context", files: Mapping[str, str]) -> "Message":
    """At a node: say which site it is, or let the site answer the task."""
    from flwr.app import Message

    load_libraries()  # when the sites are met, so before their time counts
    from flip.config.site_file import load_site
    from flip.site.silo import Silo

    name = sorted(files)[int(context.node_config[PARTITION])]
    blob = blob_of(message)
    if not blob:
        return Message(record(b"", name), reply_to=message)
    path = Path(files[name])
    if str(path) not in SILOS:
        SILOS[str(path)] = Silo(name, load_site(path), path.with_suffix(""), file=path)
    return Message(record(b"".join(answer_parts(SILOS[str(path)], blob)), name), reply_to=message)


def find_sites(grid: "Grid", number: int, timeout: float) -> dict[str, int]:
    """Ask each node which site it is. Raises StudyFailed if not all have come within the timeout."""
    deadline = time.monotonic() + timeout
    while len(nodes := list(grid.get_node_ids())) < number:
        if time.monotonic() > deadline:
            raise StudyFailed(f"Flower started {len(nodes)} of {number} nodes within {timeout} s")
        time.sleep(POLL)
    found: dict[str, int] = {}
    for _, message in deliver(grid, {str(node): node for node in nodes}, b"", "query", timeout, restarts=True):
        if message is not None and message.has_content():
            found[str(message.content[RECORD][SITE])] = message.metadata.src_node_id
    if len(found) < number:
        raise StudyFailed(f"Flower reached {len(found)} of {number} sites within {timeout} s")
    return found


def arrivals(grid: "Grid", task: Task, nodes: Mapping[str, int], timeout: float) -> Iterator[Arrival]:
    """The sites' answers as they come; those that are late for good lose their workers, which others need."""
    for site, answer in exchange(grid, task, nodes, timeout, restarts=True):
        if answer is Fault.TIMEOUT:
            end(BUSY)
        yield site, answer


def end_late(over: threading.Event) -> None:
    """When the study has ended: kill workers that are still at a task, for which Flower waits without limit."""
    while not over.wait(END_POLL):
        end(BUSY)
