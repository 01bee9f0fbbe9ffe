"""Sites' replies at the SuperLink, pulled so that one which does not come whole keeps no other site's waiting.

Contract checked against flwr 1.41.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flip.federation.flower.messages import POLL

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.superlink.grid.http_grid import HttpGrid

MOMENT = 1.0  # seconds that one look waits for parts, which mostly come within a few hundredths of the announcement


@dataclass
class Announced:
    """A reply of which the SuperLink knows the parts that it will have, by number, and those that have come."""

    number: str
    parts: list[str]
    come: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Replies:
    """What is used of Flower's grid for one task.

    A site announces its reply and then sends the parts. The grid's own `pull_messages` waits until all are there, for
    two hours, and meanwhile looks for nobody's reply: one site that fails in between would have all others be late.
    One of more than `most` bytes raises ValueError. What does not come whole in time the SuperLink drops.
    """

    grid: "HttpGrid"
    most: int
    announced: dict[str, Announced] = field(default_factory=dict)

    def push_messages(self, messages: "Iterable[Message]") -> Iterable[str]:
        """Send messages; their numbers."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> "list[Message]":
        """The reply to the one message that is named, or nothing as long as it has not come whole.

        Raises what Flower raises for one that will not come.
        """
        from flwr.app import Message
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
        from httpx import HTTPError

        [asked] = message_ids
        reply = self.announced.get(asked) or self._look(asked)
        if reply is None or not self._whole(reply):
            return []
        message = inflate_object_from_contents(reply.number, reply.come)
        del self.announced[asked]
        received = ConfirmMessageReceivedRequest(
            node=self.grid.node, run_id=self.grid.run.run_id, message_object_id=reply.number
        )
        with suppress(HTTPError):  # it is here; the server drops it later
            self.grid._runtime_client.ConfirmMessageReceived(received)
        if not isinstance(message, Message):
            raise TypeError(f"a reply that is a {type(message).__name__}")
        message.metadata.__dict__["_message_id"] = reply.number  # as the grid does
        return [message]

    def _look(self, asked: str) -> Announced | None:
        """The announcement of a reply, which the SuperLink gives away once."""
        from flwr.proto.runtime_pb2 import PullAppMessagesRequest
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

        found = self.grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=[asked]))
        for message, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            if message.metadata.reply_to_message_id == asked:
                parts = [each.object_id for each in iterate_object_tree(tree)]
                self.announced[asked] = Announced(message.metadata.message_id, parts)
        return self.announced.get(asked)

    def _whole(self, reply: Announced) -> bool:
        """Pull the parts that have come, for a moment; whether all have."""
        from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
        from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

        pull = make_pull_object_fn_protobuf(self.grid._runtime_client.PullObject, self.grid.node, self.grid.run.run_id)
        until = time.monotonic() + MOMENT
        for part in reply.parts:
            while part not in reply.come:
                try:
                    reply.come[part] = pull(part)
                except ObjectUnavailableError:
                    if time.monotonic() > until:
                        return False
                    time.sleep(POLL)
            if sum(map(len, reply.come.values())) > self.most:
                raise ValueError(f"a reply of more than {self.most} bytes")
        return True
