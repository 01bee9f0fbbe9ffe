"""Tasks and replies as bytes: one safetensors blob each (arrays plus a JSON head), never pickle."""

import mmap
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from flip.messages import Fault, Reply, Task, Withheld
from flip.messages.forms import check_reply, check_task, is_number
from flip.messages.safetensors import parts, unpack
from flip.messages.summary import Summary, SummaryKind, Topic

Value = TypeVar("Value")


def join(**groups: Mapping[str, Value]) -> dict[str, Value]:
    """Groups of arrays, or of other values, as one, each name led by its group's."""
    return {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}


def take(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """One group out of what `join` put together."""
    start = f"{group}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def groups(arrays: Mapping[str, np.ndarray], *names: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by these groups. Raises ValueError for one of none of them: nobody would look at it."""
    found = {name: take(arrays, name) for name in names}
    if sum(map(len, found.values())) != len(arrays):
        raise ValueError("an array of an unknown group")
    return found


def pack_task(task: Task) -> bytes:
    """A task as one blob."""
    return b"".join(task_parts(task))


def task_parts(task: Task) -> list[Any]:
    """The buffers that make up a task's blob, to be written to a file without a copy of any array."""
    head = {"run": task.run, "stage": task.stage, "round": task.round, "step": task.step}
    head |= {"params": dict(task.params), "manifest": task.manifest}
    return parts(join(weights=task.weights, state=task.state), head)


def unpack_task(blob: bytes | mmap.mmap) -> Task:
    """The inverse of `pack_task`; its arrays are views of the blob. Raises ValueError for anything else."""
    arrays, head = unpack(blob)
    try:
        found = groups(arrays, "weights", "state")
        task = Task(weights=found["weights"], state=found["state"], **head)
    except TypeError as error:
        raise ValueError("not a task") from error
    check_task(task)
    return task


def pack_reply(reply: Reply) -> bytes:
    """A reply as one blob."""
    return b"".join(reply_parts(reply))


def reply_parts(reply: Reply) -> list[Any]:
    """The buffers that make up a reply's blob, to be written to a file without a copy of any array."""
    head: dict[str, Any] = {"site": reply.site, "task_digest": reply.task_digest, "examples": reply.examples}
    head |= {
        "metrics": dict(reply.metrics),
        "seconds": reply.seconds,
        "fault": reply.fault.name if reply.fault else None,
    }
    head |= {"fingerprint": dict(reply.fingerprint), "journal": reply.journal}
    head["withheld"] = {name: rule.name for name, rule in reply.withheld.items()}
    summaries = join(**{topic.value: named for topic, named in reply.summaries.items()})
    head["summaries"] = {name: [summary.kind.value, summary.persons] for name, summary in summaries.items()}
    values = {name: summary.values for name, summary in summaries.items()}
    return parts(join(weights=reply.weights, state=reply.state, summaries=values), head)


def unpack_reply(blob: bytes | mmap.mmap) -> Reply:
    """The inverse of `pack_reply`; its arrays are views of the blob.

    Raises ValueError for anything else, an unknown fault, topic, kind or rule included.
    """
    arrays, head = unpack(blob)
    try:
        found = groups(arrays, "weights", "state", "summaries")
        values = found.pop("summaries")
        summaries: dict[Topic, dict[str, Summary]] = {}
        for key, (kind, persons) in head.pop("summaries").items():
            topic, name = key.split("/", 1)
            summaries.setdefault(Topic(topic), {})[name] = Summary(SummaryKind(kind), values.pop(key), persons)
        if values:
            raise ValueError("an aggregate that the head does not name")
        withheld = {name: Withheld[rule] for name, rule in head.pop("withheld").items()}
        fault = head.pop("fault")
        reply = Reply(
            weights=found["weights"],
            state=found["state"],
            summaries=summaries,
            withheld=withheld,
            fault=None if fault is None else Fault[fault],
            **head,
        )
        check_reply(reply)
        if not is_number(reply.seconds):
            raise ValueError("seconds")
        return reply
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError("not a reply") from error
