"""NVIDIA FLARE, provisioned: the study is a job of a FLARE server, with the kits of `python -m flip deploy nvflare`.

The researcher's process submits the job through FLARE's own session (`session.py`), follows it, and brings its folder
home. What runs at the server and at the sites is in `app.py`. Contract checked against nvflare 2.9.
"""

import json
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip.coordinator.serve import Submission
from flip.errors import StudyFailed, UserError
from flip.federation.limits import timeout_problems
from flip.federation.nvflare.app import CONTROLLER, EXECUTOR, JOB, STATE, STUDY, TOPIC
from flip.federation.nvflare.components import client_settings, server_settings
from flip.federation.nvflare.download import Mirror, bring_home, take_over
from flip.federation.nvflare.session import LINGER, Session
from flip.files import write_atomic
from flip.runs.folder import COHORT, LINES, RunFolder
from flip.runs.models import GIVEN

LOOK = 0.3  # seconds between looks at a running job
REST = 1.0  # seconds until the next look at one that did not answer: FLARE's server logs each in vain
TICKET = Path("state") / "job.json"  # which job of the server's the run is, for a resume


@dataclass
class NVFlareProvisioned:
    """A provisioned FLARE server.

    Args:
        kit: the researcher's kit, `kits/admin` of `python -m flip deploy nvflare`.
        timeout: seconds that one task may take at the slowest site, that the sites have to connect, and that the server
            may be out of reach; above 0.
    """

    kit: str
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if problems := timeout_problems(self.timeout):
            raise UserError(problems)

    def submit(self, job: Submission, folder: Path) -> None:
        """Have the server run the job; see `live.LiveTransport`."""
        from nvflare.fuel.flare_api.api_spec import InternalError

        server = Server(Path(self.kit).expanduser().absolute(), self.timeout)
        server.connect()
        try:
            server.take_over(folder)
            RunFolder(folder, []).forget_unfinished()
            server.meet(job)
            number = server.begin(job, folder)
            try:
                server.follow(number, folder)
            except BaseException:
                server.abort(number)
                raise
            bring_home(server.download(number), folder)
        except InternalError as error:
            raise StudyFailed(
                f"FLARE's server failed: {error}; its log, in its kit, has the cause. Does its disk have space left?"
            ) from error
        finally:
            server.close()


class Server(Session):
    """A provisioned server that runs one job of ours."""

    def meet(self, job: Submission) -> None:
        """Wait until all sites are connected, or time is over and enough of those that train are."""
        declared = json.loads(job.manifest)["strategy"].get("min_sites")
        needed = sum(job.trains.values()) if declared is None else int(declared)
        deadline = time.monotonic() + self.timeout
        while True:
            here = {client.name for client in self.call(lambda session: session.get_connected_client_list())}
            missing = sorted(set(job.trains) - here)
            if not missing:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        words = f"not connected within federation.timeout={self.timeout:g} s: {', '.join(missing)}"
        if sum(trains for site, trains in job.trains.items() if site in here) < needed:
            raise StudyFailed(f"{words}; strategy.min_sites={needed}. Start them: python -m flip start kits/NAME")
        print(f"{words}; the study begins without", flush=True)

    def begin(self, job: Submission, folder: Path) -> str:
        """Submit the job, and note its number in the run's folder."""
        from nvflare.fuel.flare_api.api_spec import AuthorizationError, InternalError, InvalidJobDefinition

        with tempfile.TemporaryDirectory(prefix="flip-flare-") as place:
            write_job(Path(place) / TOPIC, job, folder)
            try:
                number = self.call(lambda session: session.submit_job(str(Path(place) / TOPIC)))
            except (AuthorizationError, InternalError, InvalidJobDefinition, RuntimeError) as error:
                raise StudyFailed(f"FLARE's server does not take the job: {error}") from error
        write_atomic(folder / TICKET, json.dumps({"nvflare": number}).encode())
        return str(number)

    def follow(self, number: str, folder: Path) -> None:
        """Bring home what grows, until the job has ended. Raises StudyFailed for one that FLARE only calls running."""
        from nvflare.fuel.flare_api.api_spec import InternalError, JobNotRunning, NoReply

        mirror, alive = Mirror(folder), time.monotonic()
        while True:
            try:
                mirror.look(lambda request: self.call(lambda each: each.do_app_command(number, TOPIC, request)))
                alive = time.monotonic()
            except (JobNotRunning, NoReply, InternalError):  # not yet, or no more
                if self.ended(number):
                    return
                time.sleep(REST)
            if time.monotonic() - alive > self.timeout + LINGER:
                raise StudyFailed(
                    f"FLARE calls the job {self.status(number)}, but it has not answered for "
                    f"{self.timeout + LINGER:g} s; see the log in the server's kit"
                )
            time.sleep(LOOK)

    def status(self, number: str) -> str:
        """What FLARE says of a job, such as RUNNING or FINISHED:COMPLETED. Raises JobNotFound."""
        return str(self.call(lambda session: session.get_job_meta(number))["status"])

    def submitted(self, number: str) -> float:
        """When a job was, in the server's seconds, as `since`. Raises JobNotFound."""
        return float(self.call(lambda session: session.get_job_meta(number))["submit_time"])

    def ended(self, number: str) -> bool:
        """Whether FLARE says that a job has ended."""
        return self.status(number).startswith("FINISHED:")

    def abort(self, number: str) -> None:
        """Stop a job, if the server can be told."""
        with suppress(Exception):  # what made us stop is what the user is told
            self.session.abort_job(number)

    def take_over(self, folder: Path) -> None:
        """Stop the job that the run was before, if there is one, and take over the rounds that it completed since."""
        from nvflare.fuel.flare_api.api_spec import JobNotFound

        if not (folder / TICKET).is_file():
            return
        number = json.loads((folder / TICKET).read_text()).get("nvflare", "")
        with suppress(JobNotFound):  # the server has been set up anew: what is at home is all there is
            if self.stopped(number):
                take_over(self.download(number), folder)

    def stopped(self, number: str) -> bool:
        """Stop a job, and wait until its folder can be fetched; False for one that ended with its server.

        Raises StudyFailed for one that does not end: sites may compute for it still, and its rounds would be lost.
        """
        from nvflare.fuel.flare_api.api_spec import InternalError

        if self.ended(number):
            return True
        try:
            self.call(lambda session: session.abort_job(number))
        except InternalError:  # "not running": it has ended just now, or did with its server
            if not self.ended(number) and self.submitted(number) < self.since:  # FLARE calls it running for ever
                return False
        deadline = time.monotonic() + self.timeout + LINGER
        while not self.ended(number):
            if time.monotonic() > deadline:
                raise StudyFailed(
                    f"the job that this run was before is still {self.status(number)} at FLARE's server, "
                    f"{self.timeout + LINGER:g} s after it was told to stop; resume the run once it has ended"
                )
            time.sleep(LOOK)
        return True

    def download(self, number: str) -> Path:
        """The job's folder, as FLARE leaves it in the kit."""
        return Path(self.call(lambda session: session.download_job_result(number)))


def write_job(place: Path, job: Submission, folder: Path) -> None:
    """FLARE's job: names of our two classes, the study, and what a resumed run has so far, which goes to the server."""
    sites = sorted(job.trains)
    contents: dict[str, Any] = {
        "meta.json": {
            "name": TOPIC,
            "resource_spec": {},
            "min_clients": 1,
            "deploy_map": {"server": ["server"], "site": sites},
        },
        "server/config/config_fed_server.json": {
            **server_settings(),
            "workflows": [{"id": "loop", "path": CONTROLLER}],
        },
        "site/config/config_fed_client.json": client_settings({"path": EXECUTOR}, job.timeout),
    }
    for name, content in contents.items():
        write_atomic(place / name, json.dumps(content, indent=2).encode())
    write_atomic(place / "server" / STUDY / JOB, job.to_json().encode())
    given = [path.relative_to(folder).as_posix() for path in sorted((folder / GIVEN).glob("*"))]
    for name in (LINES, COHORT, STATE, *given):
        if (folder / name).is_file():
            target = place / "server" / STUDY / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
