"""The types of the fields of a task and of a reply: what comes from elsewhere may be anything that JSON can say."""

import math
import re
from collections.abc import Mapping

from flip.messages import Reply, Task
from flip.messages.summary import Summary, Topic

LONGEST_NAME = 1000  # characters of a parameter, a metric, a column's level
MOST_WHOLE = 2**53  # the largest of the whole numbers that a float64 holds exactly: JSON's know no end
MOST_ROUNDS = 10**6
HEX = re.compile("[0-9a-f]{64}")
HEAD = re.compile("([1-9][0-9]{0,14}):([0-9a-f]{64})")  # of a site's journal: the number of its entries, and a seal


def check_task(task: Task) -> None:
    """Raises ValueError for a field that is of another type than `Task` says, or out of its range."""
    named = all(map(is_name, (task.run, task.stage, task.step))) and isinstance(task.manifest, str)
    numbered = is_whole(task.round) and 0 <= task.round <= MOST_ROUNDS
    if not (named and numbered and is_flat(task.params)):
        raise ValueError("not a task")


def check_reply(reply: Reply) -> None:
    """Raises ValueError for a field that is of another type than `Reply` says; numbers may be NaN or infinite.

    `seconds` are not looked at: they are for the record alone.
    """
    named = all(map(is_name, (reply.site, reply.task_digest)))
    numbered = is_whole(reply.examples)
    scored = isinstance(reply.metrics, Mapping) and all(map(is_name, reply.metrics))
    withheld = isinstance(reply.withheld, Mapping) and all(map(is_name, reply.withheld))
    if not (named and numbered and scored and withheld and all(map(is_number, reply.metrics.values()))):
        raise ValueError("not a reply")
    if not (isinstance(reply.fingerprint, Mapping) and all(map(is_print, reply.fingerprint.items()))):
        raise ValueError("not a reply")
    if not (isinstance(reply.journal, str) and (not reply.journal or HEAD.fullmatch(reply.journal))):
        raise ValueError("not a reply")
    for topic, summaries in reply.summaries.items():
        if not (isinstance(topic, Topic) and all(map(is_name, summaries)) and all(map(is_sum, summaries.values()))):
            raise ValueError("not a reply")


def is_name(value: object) -> bool:
    """Whether a value is a text that is short enough to name something."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def is_whole(value: object) -> bool:
    """Whether a value is a whole number that a float64 holds exactly, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_WHOLE


def is_number(value: object) -> bool:
    """Whether a value is a number that can be computed with, and no truth value."""
    return isinstance(value, float) or is_whole(value)


def is_flat(params: object) -> bool:
    """Whether parameters are flat scalars by name, no number of them NaN or infinite."""
    return isinstance(params, Mapping) and all(
        is_name(name) and (is_name(value) or isinstance(value, bool) or (is_number(value) and math.isfinite(value)))
        for name, value in params.items()
    )


def is_print(item: tuple[object, object]) -> bool:
    """Whether an entry is a fingerprint: one of two names, and 64 hexadecimal digits."""
    part, value = item
    return part in ("data", "file") and isinstance(value, str) and HEX.fullmatch(value) is not None


def is_sum(summary: Summary) -> bool:
    """Whether the persons behind an aggregate are a number, 0 or more."""
    return is_whole(summary.persons) and summary.persons >= 0
