"""Sites without a transport: replies made from fixed arrays, and a round over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flip.messages import Fault, Payload, Reply, Task

Arrays = dict[str, np.ndarray]


def task(weights: Payload, state: Payload | None = None, round: int = 0) -> Task:
    return Task("run", "study", round, "fit", weights, state or {}, {}, "{}")


def reply(
    site: str, weights: Payload, examples: int = 1, state: Payload | None = None, fault: Fault | None = None
) -> Reply:
    if fault is not None:
        return Reply(site, "digest", fault=fault)
    return Reply(site, "digest", examples=examples, weights=weights, state=state or {})


@dataclass
class Sites:
    """Answers every fit with what the site's function makes of the task; writes down who was asked what."""

    answers: Mapping[str, object]
    asked: list[tuple[str, Task]] = field(default_factory=list)

    def __call__(self, asked: Task, sites: Sequence[str]) -> Iterator[Reply]:
        for site in sorted(sites):
            self.asked.append((site, asked))
            yield self.answers[site](asked)  # type: ignore[operator]


def fixed_rounds(rounds: int = 4, dtype: type = np.float32) -> tuple[Arrays, list[list[tuple[str, Arrays, int]]]]:
    """Initial weights and, by round, what three sites of 7, 11 and 2 examples return: fixed pseudo-random arrays."""
    rng = np.random.default_rng(0)
    shapes = {"net.weight": (3, 2), "net.bias": (3,), "scale": ()}
    initial = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    sizes = {"a": 7, "b": 11, "c": 2}
    answers = [
        [
            (site, {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}, size)
            for site, size in sizes.items()
        ]
        for _ in range(rounds)
    ]
    return initial, answers
