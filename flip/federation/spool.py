"""Replies in the order of the sites, whatever the order in which they come, and never more than one in memory.

Every reply is put into a file and mapped from there, so that what came early waits on disk, and what has been used is
let go at once. The files lie in a private folder where temporary files go (`TMPDIR`): room for a reply per site.
"""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flip.files import mapped
from flip.messages import ROOM, Fault, Reply, Task
from flip.messages.wire import unpack_reply

TIMES = 4  # of what was sent: weights, and a strategy's arrays like them
BESIDE = 256 << 20  # bytes of aggregates, and of the head
Arrival = tuple[str, bytes | Path | Fault]
"""A site's name with its packed reply, as bytes or in a file that is given away, or with why there will be none."""


def in_order(arrivals: Iterator[Arrival], task: Task, sites: Sequence[str]) -> Iterator[Reply]:
    """Yield exactly one reply per site, in the order of `sites`; a site that never arrives has been lost.

    What comes for a site that was not asked, or a second time, is ignored. The arrays of a reply are mapped from disk:
    the memory that they took is given back when the next one is asked for, and they can still be read then.
    """
    with tempfile.TemporaryDirectory(prefix="flip-spool-") as folder:
        come: dict[str, Path | Fault] = {}
        pending = list(sites)
        for site, answer in arrivals:
            if site in sites and site not in come:
                come[site] = kept(answer, Path(folder) / str(len(come)), task)
            del answer  # or it would stay in memory until the next one is there
            while pending and pending[0] in come:
                yield from take(come[pending[0]], task, pending.pop(0))
        for site in pending:
            yield from take(come.get(site, Fault.LOST), task, site)


def kept(answer: bytes | Path | Fault, path: Path, task: Task) -> Path | Fault:
    """What has arrived as a file; what is longer than any reply to the task can be is none."""
    if isinstance(answer, Fault):
        return answer
    if (len(answer) if isinstance(answer, bytes) else answer.stat().st_size) > largest(task):
        if isinstance(answer, Path):
            answer.unlink()
        return Fault.INVALID
    return spool(path, [answer]) if isinstance(answer, bytes) else answer


def largest(task: Task) -> int:
    """The bytes of the largest reply to a task: arrays as large as those sent, a few times, and aggregates.

    A task whose answer is of what was sent with another one says how large that was.
    """
    sent = sum(array.nbytes for array in (*task.weights.values(), *task.state.values()))
    return TIMES * max(sent, int(task.params.get(ROOM, 0))) + BESIDE


def spool(path: Path, parts: Sequence[Any]) -> Path:
    """Put a packed message, given as its buffers, into a file."""
    with path.open("wb") as file:
        file.writelines(parts)
    return path


def take(answer: Path | Fault, task: Task, site: str) -> Iterator[Reply]:
    """The one reply that a file holds or a fault stands for; the file is removed, and its memory let go afterwards."""
    if isinstance(answer, Fault):
        yield Reply(site, task.digest, fault=answer)
        return
    try:
        blob = mapped(answer)
    except ValueError:  # an empty file
        yield Reply(site, task.digest, fault=Fault.INVALID)
        return
    finally:
        answer.unlink()
    yield read_reply(blob, task, site)
    blob.madvise(mmap.MADV_DONTNEED)


def read_reply(blob: bytes | mmap.mmap, task: Task, site: str) -> Reply:
    """Unpack what claims to be a site's reply; anything else, or another site's, is an invalid one."""
    try:
        reply = unpack_reply(blob)
    except ValueError:
        return Reply(site, task.digest, fault=Fault.INVALID)
    return reply if reply.site == site else Reply(site, task.digest, fault=Fault.INVALID)
