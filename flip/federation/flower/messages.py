"""Flower's messages, in simulation and live: a task or a reply as one blob of bytes in a ConfigRecord."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flip.federation.spool import Arrival
from flip.messages import Fault, Task
from flip.messages.wire import pack_task

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

RECORD, BLOB, SITE = "flip", "blob", "site"
REQUEST = "request"  # live: the one key of the submitted app's run config
MARKER = ".submitted"  # live: in a run folder, shows that command line and server see the same folder
POLL = 0.02  # seconds between looks at arrived replies; Flower's own 0.1 is a third of a small round
RESTARTS = "The actor is restarting"  # what Ray says of a worker that a message met while it was started again
SLOWEST = 1.0  # seconds between looks when there was nothing for long


def pause(waited: float) -> float:
    """Seconds until the next look for a message, after so many without one: a fifth of them, within limits."""
    return min(max(waited / 5, POLL), SLOWEST)


def record(blob: bytes, site: str = "") -> Any:
    """A blob as Flower's message content."""
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({RECORD: ConfigRecord({BLOB: blob, SITE: site})})


def blob_of(message: "Message") -> bytes:
    """The blob that `record` put into a message; empty where there is none."""
    blob = message.content[RECORD].get(BLOB, b"") if RECORD in message.content else b""
    return blob if isinstance(blob, bytes) else b""


def exchange(grid: "Grid", task: Task, nodes: Mapping[str, int], timeout: float) -> Iterator[Arrival]:
    """Send a task to the sites' nodes and yield answers as they come; the rest have run out of time."""
    kind = {"fit": "train", "evaluate": "evaluate"}.get(task.step, "query")
    late = set(nodes)
    for site, message in deliver(grid, nodes, pack_task(task), kind, timeout):
        late.discard(site)
        yield site, blob_of(message) if message.has_content() else Fault.LOST
    for site in late:
        yield site, Fault.TIMEOUT


def deliver(
    grid: "Grid", nodes: Mapping[str, int], blob: bytes, kind: str, timeout: float
) -> "Iterator[tuple[str, Message]]":
    """Push one message per node, and yield each reply with the name that it was asked by, until the time is over.

    A message that met a worker which Ray was starting again has reached nobody, and is pushed again.
    """
    from flwr.app import Message

    started = time.monotonic()

    def push(names: Sequence[str]) -> dict[str, str]:
        left = max(1.0, started + timeout - time.monotonic())
        messages = [Message(record(blob), dst_node_id=nodes[each], message_type=kind, ttl=left) for each in names]
        return dict(zip(grid.push_messages(messages), names, strict=True))

    waiting = push(list(nodes))
    while waiting and time.monotonic() < started + timeout:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            name = waiting.pop(reply.metadata.reply_to_message_id)
            if reply.has_error() and RESTARTS in str(reply.error.reason):
                waiting |= push([name])
            else:
                yield name, reply
        if not replies:
            time.sleep(pause(time.monotonic() - started))
