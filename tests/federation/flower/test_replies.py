"""A reply that has been announced and does not come whole keeps nobody else's waiting."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from flip.federation.flower import replies
from flip.federation.flower.messages import exchange, record
from flip.federation.flower.replies import Replies
from flip.messages import Fault, Task

TASK = Task("run", "study", 0, "fit", {}, {}, {}, "{}")


class SuperLink:
    """A grid at a SuperLink to which each site announces its reply, and sends its parts after so many looks at them."""

    node, run = Node(node_id=1), SimpleNamespace(run_id=1)

    def __init__(self, announced: dict[str, int], looks: dict[str, int]) -> None:
        self.announced, self.looks = announced, looks
        self.parts: dict[str, tuple[str, bytes]] = {}
        self.confirmed: list[str] = []
        self._runtime_client = self

    def push_messages(self, messages: Any) -> list[str]:
        return list(self.announced)[: len(list(messages))]

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        [site] = request.message_ids
        self.announced[site] -= 1
        if self.announced[site] != 0:  # announced once alone, as by a SuperLink
            return PullAppMessagesResponse()
        reply = Message(record(site.encode()), reply_to=Message(RecordDict(), dst_node_id=1, message_type="train"))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.parts |= {number: (site, each.deflate()) for number, each in get_all_nested_objects(reply).items()}
        return PullAppMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
        )

    def PullObject(self, request: Any) -> PullObjectResponse:
        site, content = self.parts[request.object_id]
        self.looks[site] -= 1
        if self.looks[site] >= 0:
            return PullObjectResponse(object_found=True, object_available=False)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.confirmed.append(self.parts[request.message_object_id][0])


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(replies, "MOMENT", 0.05)


def answers(link: SuperLink, seconds: float = 2) -> dict[str, Any]:
    grid: Any = Replies(link)
    return dict(exchange(grid, TASK, {site: at for at, site in enumerate(link.announced)}, seconds))


def test_a_site_that_announces_its_reply_and_sends_no_more_is_late_and_nobody_else_is():
    link = SuperLink({"first": 3, "half": 1, "last": 5}, {"first": 0, "half": 10**9, "last": 0})
    assert answers(link) == {"first": b"first", "half": Fault.TIMEOUT, "last": b"last"}
    assert link.confirmed == ["first", "last"]


def test_a_reply_whose_parts_come_over_several_looks_is_put_together():
    link = SuperLink({"slow": 1}, {"slow": 8})
    began = time.monotonic()
    assert answers(link, 60) == {"slow": b"slow"}
    assert time.monotonic() - began < 60


def test_a_part_that_the_server_gave_up_loses_the_site():
    link = SuperLink({"gone": 1, "there": 2}, {"gone": 0, "there": 0})
    link.PullObject = lambda request, pull=link.PullObject: (  # type: ignore[method-assign]
        PullObjectResponse(object_found=False) if link.parts[request.object_id][0] == "gone" else pull(request)
    )
    assert answers(link) == {"gone": Fault.LOST, "there": b"there"}


def test_a_run_that_was_stopped_ends_the_study():
    link = SuperLink({"a": 1}, {"a": 0})

    def stopped(request: Any) -> None:
        raise RunNotRunningException

    link.PullObject = stopped  # type: ignore[method-assign, assignment]
    with pytest.raises(RunNotRunningException):
        answers(link)
