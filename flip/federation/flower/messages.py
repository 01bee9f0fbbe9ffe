"""Flower's messages, in simulation and live: a task or a reply as one blob of bytes in a ConfigRecord."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flip.federation.spool import Arrival
from flip.messages import Fault, Task
from flip.messages.wire import pack_task
from flip.text import printable

if TYPE_CHECKING:
    from flwr.app import Message

RECORD, BLOB, SITE = "flip", "blob", "site"
REQUEST = "request"  # live: the one key of the submitted app's run config
MARKER = ".submitted"  # live: in a run folder, shows that command line and server see the same folder
POLL = 0.02  # seconds between looks at arrived replies; Flower's own 0.1 is a third of a small round
RESTARTS = "The actor is restarting"  # what Ray says of a worker that a message met while it was started again
SLOWEST = 1.0  # seconds between looks when there was nothing for long


class Carrier(Protocol):
    """What is used of Flower's grid for one task."""

    def push_messages(self, messages: "Iterable[Message]") -> Iterable[str]:
        """Send messages; their numbers."""

    def pull_messages(self, message_ids: Iterable[str]) -> "Iterable[Message]":
        """The replies that have come to messages."""


def pause(waited: float) -> float:
    """Seconds until the next look for a message, after so many without one: a fifth of them, within limits."""
    return min(max(waited / 5, POLL), SLOWEST)


def record(blob: bytes, word: str = "") -> Any:
    """A blob as Flower's message content, with a word beside it: the site's name in a reply of the simulation."""
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({RECORD: ConfigRecord({BLOB: blob, SITE: word})})


def blob_of(message: "Message") -> bytes:
    """The blob that `record` put into a message; empty where there is none."""
    blob = message.content[RECORD].get(BLOB, b"") if RECORD in message.content else b""
    return blob if isinstance(blob, bytes) else b""


def exchange(
    grid: Carrier, task: Task, nodes: Mapping[str, int], timeout: float, *, restarts: bool = False
) -> Iterator[Arrival]:
    """Send a task to the sites' nodes and yield answers as they come; the rest have run out of time."""
    kind = {"fit": "train", "evaluate": "evaluate"}.get(task.step, "query")
    late = set(nodes)
    for site, message in deliver(grid, nodes, pack_task(task), kind, timeout, restarts=restarts):
        late.discard(site)
        yield site, blob_of(message) if message is not None and message.has_content() else Fault.LOST
    for site in late:
        yield site, Fault.TIMEOUT


def deliver(
    grid: Carrier, nodes: Mapping[str, int], blob: bytes, kind: str, timeout: float, *, restarts: bool = False
) -> "Iterator[tuple[str, Message | None]]":
    """Push one message per node, and yield each reply with the name that it was asked by, until the time is over.

    None stands for a reply that cannot be read.

    With `restarts` a message that met a worker which Ray was starting again has reached nobody, and is pushed again; a
    live site's error says what the site likes. The word beside the blob is one that nobody can guess: Flower names a
    part by its content, and who could tell what will be asked might announce it first, with parts that never come.
    """
    from flwr.app import Message

    started, word = time.monotonic(), secrets.token_hex()

    def push(names: Sequence[str]) -> dict[str, str]:
        left = max(1.0, started + timeout - time.monotonic())
        messages = [Message(record(blob, word), dst_node_id=nodes[each], message_type=kind, ttl=left) for each in names]
        return dict(zip(grid.push_messages(messages), names, strict=True))

    waiting = push(list(nodes))
    while waiting and time.monotonic() < started + timeout:
        before = dict(waiting)
        for number, name in before.items():
            if time.monotonic() >= started + timeout:
                break  # what is pulled from here on has run out of time at the server too
            for reply in pulled(grid, number):
                waiting.pop(number, None)
                if restarts and reply is not None and reply.has_error() and RESTARTS in str(reply.error.reason):
                    waiting |= push([name])
                else:
                    yield name, reply
        if waiting == before:
            time.sleep(pause(time.monotonic() - started))


def pulled(grid: Carrier, number: str) -> "list[Message | None]":
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
