"""NVIDIA FLARE: every task and reply goes through FLARE's server and a FLARE client per site, on FLARE's simulator.

Three kinds of process, because FLARE takes a process over (working folder, logging, threads that do not end):

- the study's loop stays in the caller's process, with the recorder and the display;
- FLARE's server is its child (`serve`), with our controller (`components.py`);
- FLARE starts a client process per site, with our executor.

Which site a client stands for, and its file, lie beside FLARE's workspace, not in the job. Contract checked against
nvflare 2.9.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flip.federation.answer import answer_parts, load_libraries
from flip.federation.limits import Limits
from flip.federation.nvflare.bridge import Link, bound
from flip.federation.nvflare.components import TASK, Answers, answer_with, client_settings, server_settings
from flip.federation.nvflare.ports import use_quiet_ports
from flip.federation.nvflare.relay import relay_over
from flip.files import mapped
from flip.messages import Ask, Result
from flip.processes import nothing_left

LOADING = 600  # seconds in which a site's process must have started; FLARE's 60 are too few where 18 load torch at once
RELAY, EXECUTOR = f"{__name__}.relay", f"{__name__}.executor"  # all the code that FLARE's job names, and may name
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
            **server_settings(),
            "workflows": [{"id": "relay", "path": RELAY}],
        },
        "job/app/config/config_fed_client.json": client_settings(answer, timeout),
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

    use_quiet_ports()
    folder, clients = Path(sys.argv[1]), sys.argv[3:]
    BRIDGES.append(Connection(int(sys.argv[2])))
    runner = SimulatorRunner(
        job_folder=str(folder / "job"),
        workspace=str(folder / "workspace"),
        clients=",".join(clients),
        threads=len(clients),  # with fewer, FLARE starts a new process for every message
        log_config=str(folder / "logging.json"),
    )
    made = runner._generate_args

    def patient(*given: object, **named: object) -> Any:
        arguments = made(*given, **named)
        arguments.set = [f"simulator_worker_timeout={LOADING}"]
        return arguments

    runner._generate_args = patient
    runner.simulator_run_main()
    os._exit(1)  # FLARE has given up; its threads would hold the process


def relay() -> Any:
    """FLARE's controller."""
    return relay_over(BRIDGES[0])()


def executor(workspace: str, client: str) -> Any:
    """FLARE's executor at a site."""
    path = Path(workspace).parents[1] / "sites" / f"{client}.json"

    def open_site(fl_ctx: object) -> Answers:
        load_libraries()
        from flip.config.site_file import load_site
        from flip.site.silo import Silo

        name, file = json.loads(path.read_text())
        silo = Silo(name, load_site(Path(file)), Path(file).with_suffix(""), file=Path(file))
        return lambda blob: answer_parts(silo, blob if isinstance(blob, bytes) else mapped(blob))

    return answer_with(open_site)
