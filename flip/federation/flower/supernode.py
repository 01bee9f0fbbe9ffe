"""A site's end of a live federation over Flower: its connection to the SuperLink, and the `Silo` that answers.

One process that stays: what the site has loaded (data, model, Lightning) is there for the next task. It speaks to the
SuperLink as Flower's own SuperNode does (the Fleet API, over TLS, each request signed with the site's key), and does
two things otherwise. It runs no code that the server sends, whereas a SuperNode runs the submitted app. And it looks
for work as often as some is likely to come, whereas a SuperNode sleeps 3 s between looks and starts a process per
message. Contract checked against flwr 1.41.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.federation.flower.messages import POLL, blob_of, pause, record
from flip.federation.flower.provision import CA, KEY
from flip.federation.kit import SITE_FILE, Kit
from flip.messages.wire import pack_reply, unpack_task

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.proto.node_pb2 import Node
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from flip.site.silo import Silo

RECONNECT = 5.0  # seconds between attempts to be let in, or to find the server again
PATIENCE = 90.0  # seconds to be let in: one that was killed counts as present for 60 s, and is not let in twice
BUSY = (502, 503, 504)  # HTTP statuses that pass


class NotLetIn(Exception):
    """The server does not know this site's key, or believes that it is there already."""


def main(folder: Path) -> int:
    """Answer the server's tasks until told to end; returns the exit status. Raises UserError for a bad site's file."""
    from flip.config.site_file import load_site
    from flip.site.silo import Silo

    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    kit = Kit.read(folder)
    name, address, path = str(kit.setting("site")), str(kit.setting("address")), kit.folder / SITE_FILE
    silo, refused = Silo(name, load_site(path), path.with_suffix(""), deployed=True), None
    import_module("flip.site.trainer")  # torch and Lightning, before the first task waits for them
    print(f"{name}: looking for the server at {address}", flush=True)
    while True:
        try:
            with connection(kit, address) as link:
                print(f"{name}: connected to {address}", flush=True)
                refused = None
                link.work(silo)
        except NotLetIn:
            if refused is None:
                refused = time.monotonic()
                print(
                    f"{name}: the server at {address} does not accept this site's key. If the site was killed within "
                    "the last minute, it is let in soon. Else its public half belongs into the server's kit, as "
                    f"sites/{name}.pub, and the server is to be started again",
                    flush=True,
                )
            elif time.monotonic() - refused > PATIENCE:
                return 1
        except Unreachable as lost:
            print(f"{name}: {lost}", flush=True)
        time.sleep(RECONNECT)


class Unreachable(Exception):
    """The connection cannot be used any longer."""


@contextmanager
def connection(kit: Kit, address: str) -> Iterator["Link"]:
    """Be present at the server during the block. Raises NotLetIn, and Unreachable when the connection breaks."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
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
        alive = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)

        def beat() -> bool:
            try:
                return bool(client.SendNodeHeartbeat(alive).success)
            except HTTPError:
                return False

        heart = HeartbeatSender(beat)
        heart.start()
        try:
            yield Link(client, node)
        finally:
            heart.stop()
            with suppress(HTTPError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))


def attempt(call: Callable[[Any], Any], request: Any) -> Any:
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


@dataclass
class Link:
    """A site's presence at the server."""

    client: "FleetHttpClient"
    node: "Node"

    def work(self, silo: "Silo") -> None:
        """Answer one task after the other, for ever. Raises Unreachable."""
        idle = time.monotonic()
        while True:
            message = self.receive()
            if message is None:
                time.sleep(pause(time.monotonic() - idle))
                continue
            started = time.perf_counter()
            self.send(message, answer(silo, blob_of(message)), started)
            idle = time.monotonic()

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
        reply = Message(record(blob), reply_to=message)
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


class Refused(Exception):
    """The server refused a part of a message: its run is over."""


def required(call: Callable[[Any], Any], request: Any) -> Any:
    """A request's answer, tried as `attempt` does. Raises Refused where the server refuses it."""
    answer = attempt(call, request)
    if answer is None:
        raise Refused
    return answer


def answer(silo: "Silo", blob: bytes) -> bytes:
    """What the site answers; nothing to a message that holds no task."""
    try:
        task = unpack_task(blob)
    except ValueError as error:
        print(f"{silo.name}: a message that holds no task was ignored: {error}", flush=True)
        return b""
    return pack_reply(silo.answer(task))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
