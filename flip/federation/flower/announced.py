"""What a site may announce to the SuperLink: its own reply to a task, of the parts that ours has.

Flower believes what a message says of its sender, and takes one that replies to nothing for a task: a site could answer
in another one's name. It also takes any tree of parts, and writes out each branch anew: 14 KB stand for 2^99 parts, of
which the SuperLink's memory is full. Contract checked against flwr 1.41.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.server.superlink.linkstate import LinkState

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


def refuse_others() -> None:
    """Have the SuperLink of this process take no other announcement of a site, whose key Flower has checked."""
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.superlink.servicer.fleet import fleet_handlers

    take = fleet_handlers.push_messages

    def push_messages(request: "PushMessagesRequest", state: "LinkState") -> "PushMessagesResponse":
        if not own_reply(request):
            raise FlowerError(
                ApiErrorCode.INVALID_PROTOBUF_PAYLOAD,
                f"SuperNode {request.node.node_id} announces what is no reply of its",
            )
        return take(request=request, state=state)

    fleet_handlers.push_messages = push_messages
