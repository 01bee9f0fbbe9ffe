"""The loop's end of a bridge to a backend whose server must have a process of its own.

The bridge is a socket pair without a name, which only the two processes hold: no port, no pickle. The loop writes which
client is asked what; the server's side writes what the client answered. A task goes as the name of a file, and so does
a large answer, which is then the loop's: a message is in memory on neither side. Nothing here knows the backend.
"""

import json
import math
import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from flip.errors import StudyFailed
from flip.federation.spool import BESIDE, Arrival, in_order, largest, spool
from flip.messages import Fault, Reply, Task
from flip.messages.wire import task_parts


@dataclass
class Link:
    """What the loop asks through.

    Args:
        bridge: the near end.
        clients: by site, the backend's name of its client.
        timeout: seconds that one site may take for one answer.
        workers: sites that are asked at the same time.

    `processes` holds a descriptor of each client's process, which is ready when the process has ended. `number` marks
    a question and its answers, so that a late answer is not taken for one to the next question. `most` is how many
    bytes an answer may have, at which the server's side stops.
    """

    bridge: Connection
    clients: Mapping[str, str]
    timeout: float
    workers: int
    number: int = 0
    most: int = BESIDE
    broken: Fault | None = None
    processes: dict[str, int] = field(default_factory=dict)

    def ask(self, task: Task, sites: Sequence[str]) -> Iterator[Reply]:
        """Send a task to the named sites; one reply each, in the order of the names."""
        with tempfile.TemporaryDirectory(prefix="flip-task-") as folder:
            file, self.most = spool(Path(folder) / "task", task_parts(task)), largest(task)
            yield from in_order(self.exchange(file, sites, self.workers), task, sites)

    def meet(self, timeout: float) -> None:
        """Wait for every site's client, and learn its process. Raises StudyFailed if one does not come in time."""
        missing = dict.fromkeys(self.clients)
        for site, answer in self.exchange(None, list(self.clients), len(self.clients), timeout=timeout):
            if isinstance(answer, bytes):
                self.processes[site] = os.pidfd_open(int(answer))
                del missing[site]
        if missing:
            when = f"within {timeout} s" if self.broken is None else "before it ended"
            raise StudyFailed(f"the backend's server did not reach {', '.join(missing)} {when}; log.txt has its words")

    def exchange(
        self, task: Path | None, sites: Sequence[str], workers: int, *, timeout: float | None = None
    ) -> Iterator[Arrival]:
        """Have a packed task, or nothing, answered by the sites, `workers` at a time; yields answers as they come."""
        self.number += 1
        todo = list(sites)
        until: dict[str, float] = {}
        while todo or until:
            while todo and len(until) < workers:
                until[todo[0]] = time.monotonic() + (timeout or self.timeout)
                self._send(todo.pop(0), task)
            for site, answer in self._next(until):
                if until.pop(site, None) is not None:
                    paused = time.monotonic()
                    yield site, answer
                    paused = time.monotonic() - paused  # what the loop did meanwhile is not the sites' time
                    until = {each: limit + paused for each, limit in until.items()}

    def _send(self, site: str, task: Path | None) -> None:
        head = json.dumps([self.number, self.clients[site], str(task) if task else None, self.most])
        try:
            if self.broken is None:
                self.bridge.send_bytes(head.encode())
        except OSError as error:
            self._break(error)

    def _next(self, until: Mapping[str, float]) -> list[Arrival]:
        """What has happened to the sites that are asked: an answer, ended processes, or no time left."""
        if self.broken is not None:
            return [(site, self.broken) for site in until]
        ends = {self.processes[site]: site for site in until if site in self.processes}
        ready = wait([self.bridge, *ends], max(0.0, min(until.values()) - time.monotonic()))
        if self.bridge in ready:
            return self._receive()
        if ready:
            return [(site, Fault.LOST) for end, site in ends.items() if end in ready]
        now = time.monotonic()
        return [(site, Fault.TIMEOUT) for site, limit in until.items() if limit <= now]

    def _receive(self) -> list[Arrival]:
        """One answer, or why there is none; an empty one means that the client failed, and one to an earlier question
        is nothing.
        """
        try:
            number, client, fault, file = json.loads(self.bridge.recv_bytes())
            blob = self.bridge.recv_bytes()
        except (EOFError, OSError, ValueError) as error:  # no JSON: a message before it was cut off
            self._break(error)
            return []
        site = next(name for name, each in self.clients.items() if each == client)
        if number == self.number:
            return [(site, Fault[fault] if fault else Path(file) if file else blob or Fault.RAISED)]
        if file:
            Path(file).unlink()
        return []

    def _break(self, error: BaseException) -> None:
        """From here on no site is reached: the server has gone, or stands still."""
        self.broken = Fault.TIMEOUT if isinstance(error, BlockingIOError) else Fault.LOST

    def close(self) -> None:
        """Let go of the descriptors."""
        for process in self.processes.values():
            os.close(process)


def bound(bridge: Connection, timeout: float) -> None:
    """Let no read or write of a part of a message wait longer than `timeout`; it raises BlockingIOError then."""
    with socket.socket(fileno=os.dup(bridge.fileno())) as end:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", math.ceil(timeout), 0))
