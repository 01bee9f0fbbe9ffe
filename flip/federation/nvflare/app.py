"""What a provisioned FLARE runs of ours: the study's loop in the server's process of a job, and a silo at each site.

- `controller`, in the job's process at the server, runs the loop (`live.serve`) in the job's own folder, and shows the
  researcher's session how far it is (`TOPIC`, a command of FLARE's to a running job).
- `executor`, in the job's process at a site, answers through the silo of the site's own file, which lies in its kit.
- `late_sites`, in the server itself, lets a site that connects late take part in the jobs that are running, and lets a
  job begin and go on without a site that cannot start, or whose process has died.

The job names the first two and nothing else; FLARE's allow-list in every kit lets it name nothing else.
"""

import base64
import logging
import os
import threading
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from flip.federation.nvflare.bridge import Link, bound
from flip.federation.nvflare.components import Answers, answer_with
from flip.federation.nvflare.relay import relay_over
from flip.federation.nvflare.starting import spare_others
from flip.federation.silo_process import SiloProcess
from flip.runs.folder import COHORT, LINES, PROGRESS

CONTROLLER, EXECUTOR = f"{__name__}.controller", f"{__name__}.executor"  # all the code that a job names, and may name
LATE_SITES = f"{__name__}.late_sites"  # a part of the server's own, which no job may name
TOPIC = "flip"  # our command to a running job
STUDY, JOB = "study", "job.json"  # the run's folder in the job's, and the file of the study in it
STATE = PROGRESS.as_posix()  # with LINES and COHORT what grows while the job runs
CHUNK = 1 << 20  # bytes that one command brings home
ENDING = 20.0  # seconds that the loop has to write its result when the job is aborted


def controller() -> Any:
    """FLARE's controller at the server: the study's loop, and what it asks of FLARE."""
    near, far = Pipe()

    class Loop(relay_over(far)):  # type: ignore[misc]
        def start_controller(self, fl_ctx: Any) -> None:
            """Begin the loop beside FLARE's own."""
            job = fl_ctx.get_job_id()
            folder = Path(fl_ctx.get_workspace().get_app_dir(job)) / STUDY
            fl_ctx.get_engine().register_app_command(TOPIC, lambda topic, request, _: chunk(folder, request))
            self.loop = threading.Thread(target=run, args=[folder], daemon=True)
            self.loop.start()

        def each_second(self, engine: Any) -> None:
            """Learn of sites that `late_sites` has brought; what fails is tried again a second later."""
            try:
                engine.sync_clients_from_main_process()
            except RuntimeError as error:
                self.logger.warning(f"the server's sites cannot be looked up: {error}")

        def stop_controller(self, fl_ctx: object) -> None:
            """The loop has ended, or gets no more answers and ends."""
            far.close()
            self.loop.join(ENDING)

    def run(folder: Path) -> None:
        from flip.coordinator.serve import Submission, serve

        try:
            job = Submission.from_json((folder / JOB).read_text())
            for end in (near, far):
                bound(end, job.timeout)
            link = Link(near, {site: site for site in job.trains}, job.timeout, len(job.trains))
            serve(job, folder, link.ask)
        except Exception:  # whatever it is, the job ends, and its log in the server's folder says why
            logging.getLogger(__name__).exception("the study ended without a result")
        finally:
            near.close()

    return Loop()


def chunk(folder: Path, request: Mapping[str, object]) -> dict[str, Any]:
    """A part of a file that grows while the job runs: its stamp (another one: another file), its size, and bytes.

    `request` holds `name` and `offset`. Only three files can be asked for; one that is not there has no stamp.
    """
    name, offset = request.get("name"), request.get("offset")
    if name not in (LINES, COHORT, STATE) or not isinstance(offset, int) or offset < 0:
        return {"stamp": "", "size": 0, "data": ""}
    try:
        with (folder / name).open("rb") as file:
            about = os.fstat(file.fileno())
            file.seek(offset)
            data = base64.b64encode(file.read(CHUNK)).decode()
    except FileNotFoundError:
        return {"stamp": "", "size": 0, "data": ""}
    return {"stamp": f"{about.st_ino}-{about.st_mtime_ns}", "size": about.st_size, "data": data}


def executor() -> Any:
    """FLARE's executor at a site. The job tells it nothing: FLARE says which site this is, and where its kit lies."""

    def open_site(fl_ctx: Any) -> Answers:
        file = Path(fl_ctx.get_workspace().get_file_path_in_root("site.yaml"))
        silo = SiloProcess(fl_ctx.get_identity_name(), file)
        silo.start()
        return silo.answer

    return answer_with(open_site)


def late_sites() -> Any:
    """A part of FLARE's server: has a site that connects while a job runs take part in it, which FLARE does not do.

    FLARE gives a job to the sites that are connected when it starts. At each sign of life of a site that a running job
    is meant for and does not have (one that comes late, or comes back), this hands it the job as FLARE would have.
    And FLARE ends a running job when one site says that its process of it ended with an error. That would put every
    study into the hands of each site; so once a job has started, the server is told to wait for no such word. The site
    counts as lost instead.
    """
    from nvflare.apis.fl_component import FLComponent

    class LateSitesComponent(LateSites, FLComponent):  # type: ignore[misc]
        def __init__(self) -> None:
            FLComponent.__init__(self)
            LateSites.__init__(self)

    return LateSitesComponent()


class LateSites:
    """The part of it that is ours; FLARE's `FLComponent` is its other base."""

    logger: logging.Logger  # FLARE's

    def __init__(self) -> None:
        self.coming = set[tuple[str, str]]()  # job and token of each site that is being handed one
        self.lock = threading.Lock()

    def handle_event(self, event_type: str, fl_ctx: Any) -> None:
        """After a sign of life of a site, when a job has started, and when the server has."""
        from nvflare.apis.event_type import EventType

        engine = fl_ctx.get_engine()
        if event_type == EventType.SYSTEM_START:
            spare_others(engine)
        if event_type == EventType.JOB_STARTED:
            for job_id in engine.job_runner.get_client_outcome_jobs():
                for client in engine.get_clients():
                    engine.job_runner.resolve_client_outcome(job_id, client.name)
        if event_type != EventType.CLIENT_HEARTBEAT_PROCESSED:
            return
        client = engine.get_client_from_name(fl_ctx.get_peer_context().get_identity_name())
        for job in list(engine.job_runner.running_jobs.values()) if client else []:
            with self.lock:
                if misses(engine, job, client) and (job.job_id, client.token) not in self.coming:
                    self.coming.add((job.job_id, client.token))
                    threading.Thread(target=self.bring, args=[engine, job, client], daemon=True).start()

    def bring(self, engine: Any, job: Any, client: Any) -> None:
        """Hand the job to the site; what fails is tried again at its next sign of life."""
        try:
            with engine.new_context() as fl_ctx:
                hand_over(engine, job, client, fl_ctx)
            self.logger.info(f"{client.name} takes part in job {job.job_id} from here")
        except RuntimeError as error:
            self.logger.warning(f"{client.name} cannot take part in job {job.job_id} yet: {error}")
        finally:
            with self.lock:
                self.coming.discard((job.job_id, client.token))


def misses(engine: Any, job: Any, client: Any) -> bool:
    """Whether a running job is meant for a site and does not have it."""
    from nvflare.apis.fl_constant import RunProcessKey

    process = engine.run_processes.get(job.job_id)
    meant = job.get_application_name(client.name) is not None
    return meant and process is not None and client.token not in process[RunProcessKey.PARTICIPANTS]


def hand_over(engine: Any, job: Any, client: Any, fl_ctx: object) -> None:
    """Give a running job to one more site, in FLARE's own steps. Raises RuntimeError if the site does not agree."""
    from nvflare.apis.fl_constant import RunProcessKey
    from nvflare.apis.job_scheduler_spec import DispatchInfo
    from nvflare.private.admin_defs import MsgHeader, ReturnCode
    from nvflare.private.fed.server.job_runner import JobRunner

    app = job.get_application_name(client.name)
    agreed, token = engine.check_client_resources(job, {client.name: {}}, fl_ctx).get(client.name, (False, ""))
    if not agreed:
        raise RuntimeError("it does not answer yet")
    admin = engine.server.admin_server
    message = JobRunner._make_deploy_message(job, job.get_application(app, fl_ctx), app, fl_ctx)
    reply = admin.send_requests_and_get_reply_dict({client.token: message}, timeout_secs=admin.timeout)[client.token]
    if reply is None or reply.get_header(MsgHeader.RETURN_CODE, ReturnCode.OK) != ReturnCode.OK:
        raise RuntimeError("it did not take the job")
    participants = engine.run_processes[job.job_id][RunProcessKey.PARTICIPANTS]
    for old in [each for each, known in participants.items() if known.name == client.name]:
        del participants[old]
    participants[client.token] = client
    engine.start_client_job(job, {client.name: DispatchInfo(app, {}, token)}, fl_ctx)
    if client.token not in participants:
        raise RuntimeError("it could not start the job")
