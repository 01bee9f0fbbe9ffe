"""Flower, live: submits a study to a running SuperLink, whose ServerApp runs the loop, and follows it to its end.

What is submitted is an app of a few lines that only names code which is installed at the server, and the job as one
string. The server writes the run's folder itself: `paths.runs` is shared with it, which is shown at the start. Contract
checked against flwr 1.41.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.coordinator.serve import Submission
from flip.errors import StudyFailed, UserError
from flip.federation.flower.messages import MARKER, REQUEST
from flip.federation.flower.provision import CA, ENVIRONMENT, TOKEN
from flip.federation.kit import ADMIN, Kit
from flip.federation.limits import timeout_problems
from flip.files import only_process_in, write_atomic
from flip.runs.folder import RunFolder

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

LOOK, ASK = 0.2, 5.0  # seconds between looks at the run folder; between questions to the server
RECENT = 100  # runs at the server among which an earlier submission is looked for
AWAY = 60.0  # seconds that the server may be out of reach while a study runs there
APP = {
    "pyproject.toml": """\
[project]
name = "flip-study"
version = "1.0.0"
description = "A study of the FLIP engine; the code that runs is installed at the server."
license = { text = "Apache-2.0" }

[tool.flwr.app]
publisher = "flip"

[tool.flwr.app.components]
serverapp = "flip_study.server_app:app"
clientapp = "flip_study.client_app:app"

[tool.flwr.app.config]
request = ""
""",
    "flip_study/__init__.py": "",
    "flip_study/server_app.py": "from flip.federation.flower.server import server_app\n\napp = server_app()\n",
    # Flower wants a ClientApp named; sites of this engine load none (flip/federation/flower/supernode.py)
    "flip_study/client_app.py": "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n",
}


@dataclass
class FlowerSuperLink:
    """A running SuperLink of `python -m flip start kits/server`.

    Args:
        kit: the researcher's kit (`kits/admin`): address, certificate and token.
        runs: the folder of runs that is shared with the server; the run's folder lies in it.
        timeout: seconds that one task may take at the slowest site, above 0.
        join: seconds to wait at the start for all sites of the roster, 0 or more; who comes later takes part later.
    """

    kit: str
    runs: str
    timeout: float = 600.0
    join: float = 60.0

    def __post_init__(self) -> None:
        problems = timeout_problems(self.timeout)
        problems += [f"federation.join={self.join}: must be 0 seconds or more"] if self.join < 0 else []
        if problems:
            raise UserError(problems)
        kit = Kit.read(Path(self.kit).expanduser())
        if (kit.backend, kit.party) != ("flower", ADMIN):
            raise UserError(
                f"federation.kit={self.kit}: is a {kit.backend} kit of {kit.party}; name Flower's kit {ADMIN}"
            )
        self.address, self.folder = str(kit.setting("address")), kit.folder

    def submit(self, job: Submission, folder: Path) -> None:
        """Have the server run the job into `folder`, which lies in the folder of runs that it shares.

        Raises StudyFailed, with the remedy, when the server has no result to give. An interrupt stops the job.
        """
        runs, folder = Path(self.runs).expanduser().resolve(), folder.resolve()
        if not folder.is_relative_to(runs):
            raise StudyFailed(f"hydra.run.dir={folder}: lies outside paths.runs={runs}, which the server shares")
        marker, before = secrets.token_hex(16), stamp(folder)
        request = {"job": job.to_json(), "folder": str(folder.relative_to(runs)), "marker": marker, "join": self.join}
        write_atomic(folder / MARKER, marker.encode())
        try:
            with self.client() as client:
                stop_earlier(client, job.run)
                with only_process_in(folder / "state", AWAY):
                    RunFolder(folder, []).forget_unfinished()
                run = self.start(client, json.dumps(request))
                try:
                    details = self.follow(client, run, lambda: stamp(folder) not in (None, before))
                except BaseException:
                    stop(client, run)
                    raise
        finally:
            (folder / MARKER).unlink(missing_ok=True)
        if stamp(folder) in (None, before):
            why = details.removeprefix("ServerApp failed with exception: ") or "its own log tells more"
            raise StudyFailed(
                f"the server ended the run without a result: {why}. resume=RUN goes on from its last round"
            )

    @contextmanager
    def client(self) -> "Iterator[ControlHttpClient]":
        """A connection to the SuperLink's Control API that shows our token. Raises StudyFailed."""
        os.environ.update(ENVIRONMENT)
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
        from httpx import HTTPStatusError, TransportError

        interceptors: Any = [RuntimeVersionHttpInterceptor("flip"), Token((self.folder / TOKEN).read_text().strip())]
        authority = str(self.folder / CA)
        try:
            with ControlHttpClient.from_server_address(self.address, False, authority, interceptors) as client:
                yield client
        except TransportError as error:
            raise StudyFailed(
                f"the server at {self.address} cannot be reached: {error}. Start it there (python -m flip start "
                "kits/server), or use the kit that belongs to it"
            ) from error
        except HTTPStatusError as error:
            raise StudyFailed(
                f"the server at {self.address} refused the study (HTTP {error.response.status_code}): "
                f"federation.kit={self.kit} must be the kit {ADMIN} that was made with the server's"
            ) from error

    def start(self, client: "ControlHttpClient", request: str) -> int:
        """Submit the app; returns Flower's number of the run."""
        from flwr.cli.build import build_fab_from_files
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content = build_fab_from_files({name: text.encode() for name, text in APP.items()})[0]
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        config = user_config_to_proto({REQUEST: request})
        started = client.StartRun(StartRunRequest(fab=fab, override_config=config))
        if not started.HasField("run_id"):
            raise StudyFailed(f"the server at {self.address} did not take the study; its own log tells why")
        return int(started.run_id)

    def follow(self, client: "ControlHttpClient", run: int, done: Callable[[], bool]) -> str:
        """Wait for the run's end; returns what Flower says of it. Raises TransportError when the server stays away."""
        from flwr.proto.control_pb2 import ListRunsRequest
        from httpx import HTTPStatusError, TransportError

        seen = time.monotonic()
        while True:
            try:
                status = client.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status
                seen = time.monotonic()
            except TransportError:
                if time.monotonic() - seen > AWAY:
                    raise
            except HTTPStatusError:
                return "it was started again, and no longer knows the run"
            else:
                if status.status == "finished":
                    return str(status.details)
            asked = time.monotonic()
            while time.monotonic() < asked + ASK and not done():
                time.sleep(LOOK)
            time.sleep(LOOK)


class Token:
    """Shows the kit's token with every request."""

    def __init__(self, token: str) -> None:
        self.token = token

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Add the token to a request's headers."""
        context.request.headers["authorization"] = f"Bearer {self.token}"
        return call_next(context)


def stop(client: "ControlHttpClient", run: int) -> None:
    """Stop a run at the server, if the server can be reached."""
    from flwr.proto.control_pb2 import StopRunRequest
    from httpx import HTTPError

    with suppress(HTTPError):
        client.StopRun(StopRunRequest(run_id=run))


def stop_earlier(client: "ControlHttpClient", job: str) -> None:
    """Stop what is left at the server of an earlier submission of this job: its command line was killed."""
    from flwr.proto.control_pb2 import ListRunsRequest

    for number, run in client.ListRuns(ListRunsRequest(limit=RECENT)).run_dict.items():
        text = run.override_config[REQUEST].string if REQUEST in run.override_config else ""
        if run.status.status != "finished" and text and json.loads(json.loads(text)["job"])["run"] == job:
            stop(client, number)


def stamp(folder: Path) -> int | None:
    """When `result.json` was written; None where there is none."""
    path = folder / "result.json"
    return path.stat().st_mtime_ns if path.exists() else None
