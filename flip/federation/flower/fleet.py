"""A site's presence at the SuperLink, over Flower's Fleet API: TLS, and each request signed with the site's key.

Contract checked against flwr 1.41.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flip.federation.flower.messages import POLL, record
from flip.federation.flower.provision import CA, KEY
from flip.federation.kit import Kit

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.proto.node_pb2 import Node
    from flwr.supernode.fleet_http_client import FleetHttpClient

RECONNECT = 5.0  # seconds between attempts to be let in, or to find the server again
BUSY = (502, 503, 504)  # HTTP statuses that pass


class NotLetIn(Exception):
    """The server does not know this site's key, or believes that it is there already."""


class Unreachable(Exception):
    """The connection cannot be used any longer."""


class Refused(Exception):
    """The server refused a part of a message: its run is over."""


@contextmanager
def connection(kit: Kit, address: str) -> Iterator["Link"]:
    """Be present at the server during the block. Raises NotLetIn, and Unreachable when the connection breaks."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
    from httpx import HTTPError

    private: Any = load_ssh_private_key((kit.folder / KEY).read_bytes(), None)
    signing = NodeAuthHttpInterceptor(private, private.public_key())
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    with FleetHttpClient.from_server_address(address, False, str(kit.folder / CA), [version, signing]) as client:
        present = ActivateNodeRequest(
            public_key=public_key_to_bytes(private.public_key()), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        activated = attempt(client.ActivateNode, present)
        if activated is None:
            raise NotLetIn
        node = Node(node_id=activated.node_id)
        heart = HeartbeatSender(partial(beat, client, node))
        heart.start()
        try:
            yield Link(client, node)
        finally:
            heart.stop()
            with suppress(HTTPError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))


def beat(client: "FleetHttpClient", node: "Node") -> bool:
    """One sign of life; returns whether it arrived."""
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from httpx import HTTPError

    alive = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
    try:
        return bool(client.SendNodeHeartbeat(alive).success)
    except HTTPError:
        return False


@dataclass
class Link:
    """A site's presence at the server."""

    client: "FleetHttpClient"
    node: "Node"

    def receive(self) -> "Message | None":
        """The next message, or None when there is none, or it can no longer be had."""
        from flwr.app import Message
        from flwr.common.serde import message_from_proto
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from flwr.supercore.inflatable.inflatable_protobuf_utils import (
            make_confirm_message_received_fn_protobuf,
            make_pull_object_fn_protobuf,
        )
        from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_and_inflate_object_from_tree

        found = attempt(self.client.PullMessages, PullMessagesRequest(node=self.node))
        if found is None:
            raise Unreachable("the server no longer knows this site; trying to be let in again")
        if not found.messages_list:
            return None
        run, tree = message_from_proto(found.messages_list[0]).metadata.run_id, found.message_object_trees[0]
        pull = make_pull_object_fn_protobuf(partial(required, self.client.PullObject), self.node, run)
        confirm = make_confirm_message_received_fn_protobuf(
            partial(required, self.client.ConfirmMessageReceived), self.node, run
        )
        try:
            message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message, initial_backoff=POLL)
        except (Refused, ObjectPullError):
            return None
        message.metadata.__dict__["_message_id"] = tree.object_id  # as Flower's own app process does
        return message

    def send(self, message: "Message", blob: bytes, started: float) -> None:
        """Reply to a message; a reply that comes too late, or to a run that is over, is dropped by the server."""
        from flwr.app import Message
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )
        from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
        from flwr.supercore.inflatable.inflatable_utils import ObjectPushError, push_objects
        from flwr.supercore.task_identity import TaskIdentity

        run = message.metadata.run_id
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, self.node.node_id, 0
        reply = Message(record(blob, secrets.token_hex()), reply_to=message)  # else who guesses it announces it first
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            request = PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[time.perf_counter() - started],
            )
            accepted = attempt(self.client.PushMessages, request)
            if accepted is None:
                return
            push = make_push_object_fn_protobuf(
                partial(required, self.client.PushObject), self.node, run, accepted.session_id
            )
            with suppress(Refused, ObjectPushError):
                push_objects(get_all_nested_objects(reply), push, object_ids_to_push=set(accepted.objects_to_push))


def attempt(call: Callable[[Any], Any], request: object) -> Any:
    """A request's answer, tried again while the network or the server is away; None where the server refuses it.

    Raises Unreachable for a server that cannot prove who it is.
    """
    from httpx import HTTPStatusError, TransportError

    while True:
        try:
            return call(request)
        except HTTPStatusError as error:
            if error.response.status_code not in BUSY:
                return None
        except TransportError as error:
            if "certificate" in str(error).lower():
                raise Unreachable(f"the server's certificate is not that of this kit ({CA}): {error}") from error
        time.sleep(RECONNECT)


def required(call: Callable[[Any], Any], request: object) -> Any:
    """A request's answer, tried as `attempt` does. Raises Refused where the server refuses it."""
    answer = attempt(call, request)
    if answer is None:
        raise Refused
    return answer
