"""Flower's messages, in simulation and live: a task or a reply as one blob of bytes in a ConfigRecord."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flip.federation.spool import Arrival
from flip.messages import Fault, Task
from flip.messages.wire import pack_task
from flip.text import printable

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
        yield site, blob_of(message) if message is not None and message.has_content() else Fault.LOST
    for site in late:
        yield site, Fault.TIMEOUT


def deliver(
    grid: "Grid", nodes: Mapping[str, int], blob: bytes, kind: str, timeout: float
) -> "Iterator[tuple[str, Message | None]]":
    """Push one message per node, and yield each reply with the name that it was asked by, until the time is over.

    None stands for a reply that cannot be read.

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
        replies = [(name, reply) for number, name in waiting.items() for reply in pulled(grid, number)]
        arrived = {name for name, _ in replies}
        waiting = {number: name for number, name in waiting.items() if name not in arrived}
        for name, reply in replies:
            if reply is not None and reply.has_error() and RESTARTS in str(reply.error.reason):
                waiting |= push([name])
            else:
                yield name, reply
        if not replies:
            time.sleep(pause(time.monotonic() - started))


def pulled(grid: "Grid", number: str) -> "list[Message | None]":
    """The reply to one message, if it has come; None in its place where it cannot be read.

    A site announces its reply, sends the parts, and may take them back or send others: what Flower makes of that is an
    error of any kind, which would end the study of all if replies were pulled together. Raises what says that the run
    itself is over.
    """
    from flwr.app import Message
    from flwr.supercore.run import RunNotRunningException

    try:
        return [reply if isinstance(reply, Message) else None for reply in grid.pull_messages([number])]
    except RunNotRunningException:
        raise
    except Exception as error:  # of that site's making: it is lost this time, and the log says why
        print(f"a reply could not be read: {printable(repr(error))}", flush=True)
        return [None]
