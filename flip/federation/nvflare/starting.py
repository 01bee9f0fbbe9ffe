"""A job's start at FLARE's server, which goes on without a site that answers otherwise than it should, or has gone.

FLARE asks each site whether it has room, gives it the job, and has it start. One that does not answer is left out; but
an answer of another kind, a word that the start failed, or a site that has gone in between ends the start, and with it
the study of all. Contract: nvflare 2.9.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.job_def import Job
    from nvflare.apis.job_scheduler_spec import DispatchInfo
    from nvflare.private.admin_defs import Message
    from nvflare.private.fed.server.message_send import ClientReply
    from nvflare.private.fed.server.server_engine import ServerEngine


def spare_others(engine: "ServerEngine") -> None:
    """Have FLARE's server take what it cannot use of a site for no answer, and a site that has gone likewise.

    Where a site could not start, the job runs without it, and it is handed the job at its next sign of life.
    """
    from nvflare.apis.fl_constant import RunProcessKey
    from nvflare.private.fed.server.message_send import ClientReply

    admin = engine.server.admin_server
    send, start = admin.send_requests, engine.start_client_job
    failed = set[tuple[str, str]]()  # the topic and the token of each request whose answer was of no use

    def send_requests(
        requests: "Mapping[str, Message]", fl_ctx: "FLContext", timeout_secs: float = 2.0, optional: bool = False
    ) -> "list[ClientReply]":
        replies: list[ClientReply] = send(requests, fl_ctx, timeout_secs=timeout_secs, optional=optional)
        for each in replies:
            asked = each.request.topic, each.client_token
            failed.discard(asked)
            if each.reply is not None and not usable(each.request.topic, each.reply):
                failed.add(asked)
                each.reply = None
        return replies

    def start_client_job(
        job: "Job", client_sites: "Mapping[str, DispatchInfo]", fl_ctx: "FLContext"
    ) -> "list[ClientReply]":
        told = {each.client_name: each for each in start(job, client_sites, fl_ctx)}
        participants = engine.run_processes[job.job_id][RunProcessKey.PARTICIPANTS]
        for token, client in list(participants.items()):
            reply = told.get(client.name)
            if client.name in client_sites and (reply is None or (reply.request.topic, token) in failed):
                del participants[token]
        return [told.get(site) or ClientReply("", site, None, None) for site in client_sites]

    admin.send_requests, engine.start_client_job = send_requests, start_client_job


def usable(topic: str, reply: object) -> bool:
    """Whether FLARE's server can go on with a site's reply to a request about a topic, whatever it says."""
    from nvflare.apis.shareable import ReservedHeaderKey, Shareable
    from nvflare.private.admin_defs import Message
    from nvflare.private.defs import ERROR_MSG_PREFIX, TrainingTopic

    if not isinstance(reply, Message) or not isinstance(reply.headers, dict):
        return False
    if topic == TrainingTopic.START_JOB:
        return not str(reply.body).startswith(ERROR_MSG_PREFIX)
    if topic == TrainingTopic.CHECK_RESOURCE:  # also where it says why not: it has no room either way
        return isinstance(reply.body, Shareable) and isinstance(reply.body.get(ReservedHeaderKey.HEADERS) or {}, dict)
    return True
