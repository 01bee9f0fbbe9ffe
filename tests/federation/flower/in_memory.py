"""Flower's own SuperLink without a network: its state, and the handlers that its two interfaces call."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from flwr.app import Message
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.message.message import Metadata
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from flip.federation.flower.messages import record

HANDLERS = {
    "PullMessages": runtime_handlers.pull_messages,
    "PullObject": runtime_handlers.pull_object,
    "ConfirmMessageReceived": runtime_handlers.confirm_message_received,
    "PushMessages": runtime_handlers.push_messages,
    "PushObject": runtime_handlers.push_object,
}


@dataclass
class Announcement:
    """A message that a site has announced, and the session in which it may send the parts."""

    site: int
    message: Message
    session: str


@dataclass
class SuperLink:
    """A SuperLink with sites and a run, and the grid of the run's ServerApp.

    `asked` has the number of the message that a site was sent last. The check that the run is under way is left out.
    """

    names: tuple[str, ...]
    nodes: dict[str, int] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        store = ObjectStoreFactory()
        self.state: Any = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), store).state()
        for name in self.names:
            key = name.encode().ljust(32, b".")
            self.nodes[name] = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 30, name=name)
            self.state.activate_node(self.nodes[name], 30)
        self.run = self.state.create_run(
            "f", "1", "h", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        grid: Any = HttpGrid(token="x")
        grid._run = SimpleNamespace(run_id=self.run)
        grid._client = SimpleNamespace(**{name: self.called(name) for name in HANDLERS})
        self.grid = SimpleNamespace(
            node=grid.node, run=grid._run, _runtime_client=grid._client, push_messages=self.pushing(grid)
        )
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = self.run, SUPERLINK_NODE_ID, 0

    def called(self, name: str) -> Any:
        """What the client of the interface for the server's own processes does."""
        return lambda request: HANDLERS[name](request, self.state, SimpleNamespace(run_id=self.run))

    def pushing(self, grid: Any) -> Any:
        """The grid's own way to push messages; their numbers are kept."""

        def push(messages: Any) -> list[str]:
            numbers = list(grid.push_messages(messages := list(messages)))
            by_node = {node: name for name, node in self.nodes.items()}
            self.asked |= {by_node[each.metadata.dst_node_id]: at for each, at in zip(messages, numbers, strict=True)}
            return numbers

        return push

    def announce(self, site: str, blob: bytes, *, tree: Any = None, **otherwise: Any) -> Announcement:
        """A site announces a reply, `otherwise` than it should where that is given."""
        told = {
            "src_node_id": self.nodes[site], "dst_node_id": SUPERLINK_NODE_ID, "reply_to_message_id": self.asked[site],
        }  # fmt: skip
        task, at = self.state.message_ins_store.get(self.asked[site]), time.time()
        left = task.metadata.created_at + task.metadata.ttl - at if task else 1.0  # as Flower has it of a reply
        common = {"message_id": "", "group_id": "", "ttl": left, "message_type": "train", "created_at": at}
        message = make_message(Metadata(run_id=self.run, **(common | told | otherwise)), record(blob))
        message.metadata.__dict__["_message_id"] = otherwise.get("message_id") or message.object_id
        request = PushMessagesRequest(
            node=Node(node_id=self.nodes[site]),
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree or get_object_tree(message)],
        )
        taken = fleet_handlers.push_messages(request=request, state=self.state)
        return Announcement(self.nodes[site], message, taken.session_id)

    def send(self, announced: Announcement) -> list[bool]:
        """The site sends the parts; whether each was taken."""
        return [
            fleet_handlers.push_object(
                PushObjectRequest(
                    node=Node(node_id=announced.site), run_id=self.run, session_id=announced.session,
                    object_id=number, object_content=part.deflate(),
                ),
                self.state,
            ).stored
            for number, part in get_all_nested_objects(announced.message).items()
        ]  # fmt: skip
