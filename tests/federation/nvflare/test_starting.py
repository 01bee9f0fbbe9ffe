"""The start of a job at FLARE's server, in FLARE's own steps: one site that answers badly is left out of it."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.job_scheduler_spec import DispatchInfo
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.private.admin_defs import Message, ok_reply
from nvflare.private.defs import ERROR_MSG_PREFIX, TrainingTopic
from nvflare.private.fed.server.admin import check_client_replies
from nvflare.private.fed.server.message_send import ClientReply
from nvflare.private.fed.server.server_engine import ServerEngine
from nvflare.private.scheduler_constants import ShareableHeader

from flip.federation.nvflare.starting import spare_others

SITES = {name: DispatchInfo("app", {}, name) for name in ("first", "odd", "last")}
BAD = {
    "no message": "yes",
    "no headers": SimpleNamespace(headers=7),
    "a failure": Message("reply", f"{ERROR_MSG_PREFIX}: no space"),
}


class Server(ServerEngine):
    """FLARE's server as far as it starts a job: who is there, and what each site answers."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.gone, self.logger = answers, set[str](), logging.getLogger("server")
        self.server = SimpleNamespace(admin_server=SimpleNamespace(send_requests=self.asked))
        participants = {site: SimpleNamespace(name=site, token=site) for site in SITES}
        self.run_processes = {"job": {RunProcessKey.PARTICIPANTS: participants}}

    def get_client_from_name(self, name: str) -> Any:
        return None if name in self.gone else SimpleNamespace(name=name, token=name)

    def asked(self, requests: dict[str, Any], fl_ctx: object, timeout_secs: float, optional: bool) -> list[ClientReply]:
        return [ClientReply(site, site, request, self.answers.get(site)) for site, request in requests.items()]

    def started(self) -> list[str]:
        """The sites that FLARE's check of their answers lets a job begin with. Raises RuntimeError as it does."""
        replies = self.start_client_job(SimpleNamespace(job_id="job", meta={}), SITES, None)
        check_client_replies(replies, list(SITES), "start job")
        return [each.client_name for each in replies if each.reply]

    @property
    def participants(self) -> list[str]:
        return list(self.run_processes["job"][RunProcessKey.PARTICIPANTS])


@pytest.fixture
def well() -> dict[str, Any]:
    return {site: ok_reply(topic=TrainingTopic.START_JOB) for site in SITES}


def test_all_that_answer_well_start(well):
    server = Server(well)
    spare_others(server)
    assert (server.started(), server.participants) == ([*SITES], [*SITES])


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_a_site_that_cannot_start_is_left_out_and_handed_the_job_later(answer, well):
    server = Server(well | {"odd": answer})
    spare_others(server)
    assert (server.started(), server.participants) == (["first", "last"], ["first", "last"])


def test_a_site_that_has_gone_before_the_start_is_left_out_likewise(well):
    server = Server(well)
    server.gone.add("odd")
    spare_others(server)
    assert (server.started(), server.participants) == (["first", "last"], ["first", "last"])


def test_a_site_that_does_not_answer_in_time_may_have_started(well):
    server = Server(well | {"odd": None})
    spare_others(server)
    assert (server.started(), server.participants) == (["first", "last"], [*SITES])


def of_headers(headers: object) -> Shareable:
    found = Shareable()
    found[ReservedHeaderKey.HEADERS] = headers
    return found


@pytest.mark.parametrize("body", ["yes", None, {}, of_headers(7)], ids=repr)
def test_a_site_that_answers_otherwise_whether_it_has_room_has_none(body, monkeypatch):
    message = Message(TrainingTopic.CHECK_RESOURCE, {})
    monkeypatch.setattr(Server, "_make_message_for_check_resource", lambda *_: message)
    room = Shareable()
    room.set_header(ShareableHeader.IS_RESOURCE_ENOUGH, True)
    well = {site: Message(TrainingTopic.CHECK_RESOURCE, room) for site in SITES}
    server = Server(well | {"odd": Message(TrainingTopic.CHECK_RESOURCE, body)})
    spare_others(server)
    found = server.check_client_resources(None, {site: {} for site in SITES}, None)
    assert {site: enough for site, (enough, _) in found.items()} == {"first": True, "odd": False, "last": True}


def test_where_flare_keeps_the_headers_is_where_they_are_looked_for():
    assert list(Shareable()) == [ReservedHeaderKey.HEADERS]
