"""At a site, on every backend: a packed task in, a packed reply out, whatever the task's bytes are."""

import mmap
from typing import TYPE_CHECKING, Any

from flip.imports import load
from flip.messages import Fault, Reply
from flip.messages.wire import reply_parts, unpack_task
from flip.site.log import site_log

if TYPE_CHECKING:
    from flip.site.silo import Silo


def load_libraries() -> None:
    """Import what a site's process needs for its first fit, torch and Lightning: seconds, once in a process.

    `flip.site.silo` imports most of it: it is imported after this.
    """
    load("flip.site.fit")


def answer_parts(silo: "Silo", blob: bytes | mmap.mmap, ended: str = "") -> list[Any]:
    """The buffers that make up the site's packed reply. Raises ValueError for bytes that hold no task.

    `ended` says how the process ended that was asked before; empty: the silo is asked.
    """
    task = unpack_task(blob)
    reply = silo.ended(task, ended) if ended else silo.answer(task)
    try:
        return reply_parts(reply)
    except (LookupError, TypeError, ValueError, AttributeError):  # of the study's code: no array or number can say it
        site_log(silo.name, silo.home).exception("the reply cannot be packed")
        return reply_parts(Reply(silo.name, task.digest, fault=Fault.RAISED))
