"""Tasks and replies as bytes: one safetensors blob each (arrays plus a JSON head), never pickle."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flip.federation import Fault, Payload, Reply, Summary, SummaryKind, Task
from flip.weights import pack, unpack


def join(**groups: Payload) -> dict[str, np.ndarray]:
    """Groups of arrays as one, each name led by its group's."""
    return {f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def take(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """One group out of what `join` put together."""
    start = f"{group}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def pack_task(task: Task) -> bytes:
    """A task as one blob."""
    head = {"run": task.run, "stage": task.stage, "round": task.round, "step": task.step}
    head |= {"params": dict(task.params), "manifest": task.manifest}
    return pack(join(weights=task.weights, state=task.state), head)


def unpack_task(blob: bytes) -> Task:
    """The inverse of `pack_task`. Raises ValueError for anything else."""
    arrays, head = unpack(blob)
    try:
        return Task(weights=take(arrays, "weights"), state=take(arrays, "state"), **head)
    except TypeError as error:
        raise ValueError("not a task") from error


def pack_reply(reply: Reply) -> bytes:
    """A reply as one blob."""
    head: dict[str, Any] = {"site": reply.site, "task_digest": reply.task_digest, "examples": reply.examples}
    head |= {
        "metrics": dict(reply.metrics),
        "seconds": reply.seconds,
        "fault": reply.fault.name if reply.fault else None,
    }
    head["summaries"] = {name: [summary.kind.value, summary.persons] for name, summary in reply.summaries.items()}
    values = {name: summary.values for name, summary in reply.summaries.items()}
    return pack(join(weights=reply.weights, state=reply.state, summaries=values), head)


def unpack_reply(blob: bytes) -> Reply:
    """The inverse of `pack_reply`. Raises ValueError for anything else, an unknown fault or kind included."""
    arrays, head = unpack(blob)
    try:
        values = take(arrays, "summaries")
        summaries = {
            name: Summary(SummaryKind(kind), values[name], int(persons))
            for name, (kind, persons) in head.pop("summaries").items()
        }
        fault = head.pop("fault")
        return Reply(
            weights=take(arrays, "weights"),
            state=take(arrays, "state"),
            summaries=summaries,
            fault=Fault[fault] if fault else None,
            **head,
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a reply") from error
