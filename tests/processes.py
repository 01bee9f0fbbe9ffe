"""Which processes a command line has started, and what is left of them: seen from outside, by descent."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from flip.processes import command, held, parents, stat_fields

LOOK = 0.1  # seconds between looks, each of which costs 12 ms of a processor


class Family:
    """Watches a process and all that descend from it, also those whose parents have ended.

    A process is its number and the time of its start; a port is the number of its listening socket.
    """

    def __init__(self, process: int) -> None:
        self.processes = {(process, started(process))}
        self.ports: set[str] = set()
        self.bound: set[str] = set()  # addresses that any of them has listened on
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Family":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            self.look()

    def look(self) -> None:
        """Note the children of all whom we know, and the ports that they listen on."""
        known = {number for number, _ in self.alive()}
        for number, parent in sorted(parents().items()):  # older ones first
            if parent in known and number not in known:
                self.processes.add((number, started(number)))
                known.add(number)
        listens = listening()
        mine = {socket for number in known for socket in sockets(number)} & set(listens)
        self.ports |= mine
        self.bound |= {listens[socket] for socket in mine}

    def alive(self) -> set[tuple[int, str]]:
        """Those that have not ended."""
        return {(number, start) for number, start in self.processes.copy() if start and started(number) == start}

    def left(self, seconds: float = 20.0) -> list[str]:
        """What is left of them after so many seconds at most: processes by their command line, and ports."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (self.alive() or self.ports & set(listening())):
            time.sleep(LOOK)
        return [command(number) for number, _ in self.alive()] + sorted(self.ports & set(listening()))


def started(process: int) -> str:
    """When a process started, in ticks; empty if there is none, or only its remains."""
    with suppress(OSError, IndexError):
        entries = stat_fields(process)
        return "" if entries[0] in "ZX" else entries[19]
    return ""


def sockets(process: int) -> set[str]:
    """The numbers of a process's sockets."""
    return {each.removeprefix("socket:[").rstrip("]") for each in held(process) if each.startswith("socket:[")}


def listening() -> dict[str, str]:
    """The numbers of all sockets that listen for TCP, with the address that each is bound to, as the kernel has it."""
    return {number: address for number, (address, _) in listening_of("self").items()}


def listening_of(process: int | str) -> dict[str, tuple[str, int]]:
    """The same with their ports, in the network of a process."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            entries = line.split()
            if entries[3] == "0A":  # TCP_LISTEN
                address, port = entries[1].split(":")
                found[entries[9]] = address, int(port, 16)
    return found


LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "00000000000000000000000001000000",  # ::1
    "0000000000000000FFFF00000100007F",  # ::ffff:127.0.0.1
}
