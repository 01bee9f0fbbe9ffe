"""What a coordinator may ask of a site for a sum over sites: the steps' arrays, and how often each step in a run.

What the steps do is the mechanism's (`flip.privacy.secure`); here stands what passes the gate.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

import numpy as np

from flip.messages import ROOM, Task
from flip.privacy.secure.at_site import AGREED, LOST, PRESENT, SAID, SHARES
from flip.privacy.secure.keys import SIGNATURE, SIGNED
from flip.privacy.secure.session import HIDDEN, STEPS

NAMES = ("session", "fit")
PARAMS: Mapping[str, tuple[type, ...]] = {**dict.fromkeys(NAMES, (str,)), ROOM: (int,)}
LONGEST = 64  # characters of a parameter: a digest's
MOST_SITES = 256  # in a sum: the shares of all for all are 10 MB then
TRIES = 3  # at the sum of a round: its own, and those of a coordinator that was started again
SHAPES: Mapping[str, Mapping[str, tuple[int | None, ...]]] = {
    "keys": {},
    "shares": {SAID: (SIGNED,)},
    "masked": {SHARES: (None, HIDDEN)},
    "survivors": {PRESENT: (1,), LOST: (1,)},
    "unmask": {PRESENT: (1,), LOST: (1,), AGREED: (SIGNATURE,)},
}
"""By step the groups of its arrays, and the shape of each array in one; None: any length up to that of the sites."""


def unknown_sum(task: Task) -> Iterator[str]:
    """What of a task the step of a sum does not have; its step is one of a sum's."""
    for name in NAMES:
        if not 0 < len(str(task.params.get(name, ""))) <= LONGEST:
            yield f"parameter {name!r} of {task.step}: not there, or too long"
    groups, names = SHAPES[task.step], 0
    for name, array in task.state.items():
        group, names = name.partition("/")[0], names + 1
        if group not in groups or not name.partition("/")[2]:
            yield f"an array {ascii(name)[:80]} with {task.step}"
        elif array.dtype != np.uint8 or not _fits(array.shape, groups[group]):
            yield f"{ascii(name)[:80]} of another form"
    if names > MOST_SITES * max(1, len(groups)):
        yield f"{names} names of sites in a sum, at most {MOST_SITES}"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    sizes = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(size <= MOST_SITES if own is None else size == own for size, own in sizes)


def sum_slots(task: Task) -> list[tuple[str, str, int]]:
    """Under which names a step of a sum is counted, as which question, and the most of them in a run.

    A step of one try is asked once, also where a site has several processes.

    A round is opened once. What counts as the same question is the same sum, over the same sites of the same fit, with
    whichever keys: one over other sites could be subtracted from it.
    """
    if task.step != STEPS[-1]:
        step, session = f"{task.step}/{task.round}", str(task.params["session"])
        return [(step, task.digest, TRIES), (f"{step}/{session}", task.digest, 1)]
    opened = json.dumps([task.params["fit"], sorted(name for name in task.state if name.startswith(f"{PRESENT}/"))])
    return [(f"{task.step}/{task.round}", hashlib.sha256(opened.encode()).hexdigest(), 1)]
