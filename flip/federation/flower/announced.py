"""What a site may announce to the SuperLink: its own reply to a task, of the parts that ours has.

Flower believes what a message says of its sender, and takes one that replies to nothing for a task: a site could answer
in another one's name. It also takes any tree of parts, and writes out each branch anew: 14 KB stand for 2^99 parts, of
which the SuperLink's memory is full. Contract checked against flwr 1.41.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.server.superlink.linkstate import InMemoryLinkState, LinkState
    from flwr.supercore.object_store import ObjectStore

GRACE = 10.0  # seconds after a task's time in which a reply that has come whole is still being fetched
PARTS = 3  # of a reply: the message, its record of records, and the record that holds the blob


def own_reply(request: "PushMessagesRequest") -> bool:
    """Whether a site announces one reply, in its own name, of a chain of parts."""
    from flwr.common.constant import SUPERLINK_NODE_ID

    if (len(request.messages_list), len(request.message_object_trees)) != (1, 1):
        return False
    told, tree = request.messages_list[0].metadata, request.message_object_trees[0]
    return (
        (told.src_node_id, told.dst_node_id) == (request.node.node_id, SUPERLINK_NODE_ID)
        and bool(told.reply_to_message_id)
        and told.message_id == tree.object_id
        and is_chain(tree)
    )


def is_chain(tree: "ObjectTree") -> bool:
    """Whether a tree of parts has no branches, at most `PARTS` parts, and none of them twice."""
    seen = [tree.object_id]
    while tree.children and len(seen) <= PARTS:
        if len(tree.children) > 1:
            return False
        tree = tree.children[0]
        seen.append(tree.object_id)
    return len(seen) == len(set(seen)) <= PARTS


@dataclass
class Announcements:
    """The replies that sites have announced: what a SuperLink of ours takes of them, and until when it keeps any part.

    `take` is Flower's own handler. A reply that has not been fetched by the end of its task's time is dropped then: the
    time that it says of itself counts for nothing, and parts that come later belong to nothing that is kept.
    """

    take: "Callable[[PushMessagesRequest, LinkState], PushMessagesResponse]"
    kept: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def push_messages(self, request: "PushMessagesRequest", state: "InMemoryLinkState") -> "PushMessagesResponse":
        """Flower's handler, for what a site may announce. Raises FlowerError for anything else."""
        from flwr.supercore.error import ApiErrorCode, FlowerError

        with self.lock:
            self.drop_late(state)
            if not own_reply(request) or known_otherwise(request.message_object_trees[0], state.object_store):
                raise FlowerError(
                    ApiErrorCode.INVALID_PROTOBUF_PAYLOAD,
                    f"SuperNode {request.node.node_id} announces what is no reply of its",
                )
            if task := state.message_ins_store.get(request.messages_list[0].metadata.reply_to_message_id):
                until = task.metadata.created_at + task.metadata.ttl + GRACE
                self.kept[request.message_object_trees[0].object_id] = until
            return self.take(request, state)

    def drop_late(self, state: "InMemoryLinkState") -> None:
        """Drop what nobody will fetch any more; of what was fetched there is nothing left."""
        for number in [number for number, until in self.kept.items() if until < time.time()]:
            del self.kept[number]
            state.object_store.delete(number)


def known_otherwise(tree: "ObjectTree", store: "ObjectStore") -> bool:
    """Whether a part of a tree is there already with other parts below it, such as a task's.

    What is announced below it then would belong to nothing, and stay when all else is dropped.
    """
    below: list[ObjectTree] = [tree]
    while below:
        part = below.pop()
        if part.object_id in store and store.get_object_tree(part.object_id) != part:
            return True
        below.extend(part.children)
    return False


def refuse_others() -> None:
    """Have the SuperLink of this process take no other announcement of a site, whose key Flower has checked."""
    from flwr.superlink.servicer.fleet import fleet_handlers

    fleet_handlers.push_messages = Announcements(fleet_handlers.push_messages).push_messages  # type: ignore[assignment]
