"""Replies in the order of the sites, whatever the order in which they come: an early one waits on disk."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flip.federation import Fault, Reply, Task
from flip.federation.wire import unpack_reply

Arrival = tuple[str, bytes | Fault]
"""A site's name with its packed reply, or with why there will be none."""


def in_order(arrivals: Iterator[Arrival], task: Task, sites: Sequence[str]) -> Iterator[Reply]:
    """Yield exactly one reply per site, in the order of `sites`; a site that never arrives has been lost.

    What comes for a site that was not asked, or a second time, is ignored.
    """
    with tempfile.TemporaryDirectory(prefix="flip-spool-") as folder:
        waiting: dict[str, Path | Fault] = {}
        done: set[str] = set()
        pending = list(sites)
        for site, answer in arrivals:
            if site in done or site in waiting or site not in sites:
                continue
            if pending and site == pending[0] and isinstance(answer, bytes):
                done.add(pending.pop(0))
                yield read_reply(answer, task, site)
            else:
                waiting[site] = (
                    answer if isinstance(answer, Fault) else spool(Path(folder), len(waiting) + len(done), answer)
                )
            while pending and pending[0] in waiting:
                site = pending.pop(0)
                done.add(site)
                yield take(waiting.pop(site), task, site)
        for site in pending:
            yield take(waiting.get(site, Fault.LOST), task, site)


def spool(folder: Path, number: int, blob: bytes) -> Path:
    """Put a packed reply on disk."""
    path = folder / f"{number}.safetensors"
    path.write_bytes(blob)
    return path


def take(waiting: Path | Fault, task: Task, site: str) -> Reply:
    """A reply back from disk, or the fault that stands for it."""
    if isinstance(waiting, Fault):
        return Reply(site, task.digest, fault=waiting)
    blob = waiting.read_bytes()
    waiting.unlink()
    return read_reply(blob, task, site)


def read_reply(blob: bytes, task: Task, site: str) -> Reply:
    """Unpack what claims to be a site's reply; anything else, or another site's, is an invalid one."""
    try:
        reply = unpack_reply(blob)
    except ValueError:
        return Reply(site, task.digest, fault=Fault.INVALID)
    return reply if reply.site == site else Reply(site, task.digest, fault=Fault.INVALID)
