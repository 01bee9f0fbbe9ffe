"""The server of a live federation over Flower: the SuperLink behind a gate, and the ServerApp that runs the loop.

Out of the box a SuperLink 1.41 lets everyone who reaches its port submit an app (code that runs at the server) and
register a site. Here (`gate.py`) sites reach the Fleet API alone, by their keys; who submits shows the token of the
kits `server` and `admin`; and the rest is for this machine's own processes. Contract checked against flwr 1.41.
"""

import hmac
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flip.errors import StudyFailed
from flip.federation.flower.announced import refuse_others
from flip.federation.flower.gate import Gate
from flip.federation.flower.messages import MARKER, REQUEST, exchange
from flip.federation.flower.provision import CA, CERTIFICATE, CERTIFICATE_KEY, TOKEN
from flip.federation.flower.replies import Replies
from flip.federation.kit import ROSTER, Kit
from flip.federation.spool import in_order, largest
from flip.files import only_process_in
from flip.messages import Reply, Task

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.superlink.grid.http_grid import HttpGrid

KIT_FOLDER = "FLIP_SERVER_KIT"  # environment of the server's processes: where their kit lies
LOOK = 0.2  # seconds between looks at which sites are there
SENDING = 86_400  # seconds that one part of a message may take; Flower's 180 end large ones before federation.timeout
ENDING = 60.0  # seconds that an earlier part of a run, which was stopped, may take to end


def main(folder: Path) -> None:
    """Run the SuperLink from the server's kit until told to end."""
    from flwr.supercore.corestate import in_memory_corestate
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    kit = Kit.read(folder)
    os.environ[KIT_FOLDER] = str(kit.folder)
    os.environ["FLWR_HOME"] = str(kit.folder / "flower")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.umask(0o077)
    token, roster = (kit.folder / TOKEN).read_text().strip(), public_keys(kit)
    extensions.get_middleware = lambda: (Middleware(Gate, token=token, roster=roster),)
    extensions.get_lifespan_contexts = lambda: (enrolled(roster),)
    refuse_others()
    in_memory_corestate.OBJECT_PUSH_SESSION_TTL_SECONDS = SENDING  # type: ignore[attr-defined]
    sys.argv = ["flower-superlink", *options(kit)]
    flower_superlink()


def options(kit: Kit) -> list[str]:
    """The SuperLink's command line.

    It gives no `--database`: Flower would flush every part of a message to disk, and resume no run from there.
    """
    folder = kit.folder
    return [
        "--ssl-ca-certfile", str(folder / CA), "--ssl-certfile", str(folder / CERTIFICATE),
        "--ssl-keyfile", str(folder / CERTIFICATE_KEY),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--host", str(kit.setting("bind")), "--port", str(kit.setting("port")),
    ]  # fmt: skip


def public_keys(kit: Kit) -> dict[bytes, str]:
    """The roster: the site that each public key (as Flower writes it) belongs to."""
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    roster: dict[bytes, str] = {}
    for path in sorted((kit.folder / ROSTER).glob("*.pub")):
        key: Any = load_ssh_public_key(path.read_bytes())
        roster[public_key_to_bytes(key)] = path.stem
    return roster


def enrolled(roster: Mapping[bytes, str]) -> Any:
    """At the SuperLink's start, register the roster; it keeps its state in memory, so that no other key is known."""
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID

    @asynccontextmanager
    async def enroll(app: Any) -> AsyncIterator[None]:
        state = app.state.linkstate_factory.state()
        for key, name in roster.items():
            state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL, name=name)
        print(f"server: ready for {', '.join(roster.values())}", flush=True)
        yield

    return enroll


def server_app() -> "ServerApp":
    """The ServerApp of every study; its code is this installation's, not what was submitted."""
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def run(grid: "Grid", context: "Context") -> None:
        from flip.coordinator.serve import Submission, serve

        kit = Kit.read(Path(os.environ[KIT_FOLDER]))
        request = json.loads(str(context.run_config[REQUEST]))
        job = Submission.from_json(request["job"])
        folder = shared_folder(Path(str(kit.setting("runs"))), request["folder"], request["marker"])
        sites = Sites(cast("HttpGrid", grid), public_keys(kit), job.timeout)
        alone = only_process_in(folder / "state", ENDING)  # an earlier part of the run may still be ending
        with alone, (folder / "log.txt").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                sites.wait(job.trains, float(request["join"]))
                serve(job, folder, sites.ask)
            except Stopped as stopped:
                raise SystemExit("the run was stopped") from stopped

    return app


def shared_folder(runs: Path, relative: str, marker: str) -> Path:
    """The run's folder, which the command line has marked. Raises StudyFailed where it is not the same folder."""
    folder = (runs / relative).resolve()
    if not folder.is_relative_to(runs.resolve()):
        raise StudyFailed(f"the run folder {relative} does not lie within the server's folder of runs")
    mark = folder / MARKER
    if not mark.is_file() or not hmac.compare_digest(mark.read_text(), marker):
        raise StudyFailed(
            f"the server's folder of runs, {runs}, is not paths.runs of the command line: set runs in the server's "
            "kit.yaml, or paths.runs, so that both are one folder"
        )
    return folder


class Stopped(BaseException):
    """The run was stopped from outside. No `Exception` and no `SystemExit`, which the loop takes for a failure and
    writes down: whoever stopped the run says how it ended."""


@dataclass
class Sites:
    """The sites of the roster as Flower's nodes.

    A node is believed to be the site whose public key it has proven to hold; what it says itself counts for nothing.
    """

    grid: "HttpGrid"
    roster: Mapping[bytes, str]
    timeout: float

    def present(self) -> dict[str, int]:
        """The node of each site that is there now."""
        nodes: Any = self.grid.get_nodes()
        return {self.roster[node.public_key]: node.node_id for node in nodes if node.public_key in self.roster}

    def wait(self, sites: Sequence[str] | Mapping[str, bool], seconds: float) -> None:
        """Wait until all these sites are there, for so many seconds at most; who is late takes part later."""
        deadline = time.monotonic() + seconds
        while not set(sites) <= set(self.present()) and time.monotonic() < deadline:
            time.sleep(LOOK)

    def ask(self, task: Task, sites: Sequence[str]) -> Iterator[Reply]:
        """Send a task to those of the sites that are there; the others count as lost this time.

        Raises Stopped once the run has been stopped.
        """
        from flwr.supercore.run import RunNotRunningException

        try:
            present = self.present()
            asked = {site: present[site] for site in sites if site in present}
            replies = Replies(self.grid, largest(task))
            yield from in_order(exchange(replies, task, asked, self.timeout), task, sites)
        except RunNotRunningException as stopped:
            raise Stopped from stopped


if __name__ == "__main__":
    main(Path(sys.argv[1]))
