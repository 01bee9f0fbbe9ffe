"""What a folder needs that several processes fill: one writer at a time, and a bound: the oldest entries make room."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

Entry = tuple[int, int, Path]  # when it was last used, ns; its size, bytes; where it is


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against other processes and threads, until the block ends or the process dies.

    The file stays: to delete it is a race.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:  # not left to closing: a process that was forked meanwhile holds the file open as well
            fcntl.flock(file, fcntl.LOCK_UN)


def least_recently_used(entries: Iterable[Entry], most: int) -> Iterator[Entry]:
    """The entries to remove, those not used for longest first, until the others hold `most` bytes or fewer."""
    entries = sorted(entries)
    total = sum(size for _, size, _ in entries)
    for entry in entries:
        if total <= most:
            return
        yield entry
        total -= entry[1]
