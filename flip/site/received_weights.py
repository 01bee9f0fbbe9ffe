"""Whether the weights of a task can be those of the study: the coordinator does not choose what a site answers on.

One gradient, or one score, of weights made for it tells single rows. So a site takes the study's own seeded start
first, or in its place given weights that the manifest and the site's own policy name (`flip.site.given`); then those
which the strategy could have come to from the last ones that the site took, so many rounds before; and of each round
only a few. What is beyond is refused, and nothing is scaled or clipped.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flip.files import ALONE, APPLIED, CENTRALIZED, FINE_TUNED, write_atomic
from flip.messages import Fault, Payload, Task
from flip.messages.weights import change, digest
from flip.site.given import refuse_other_model, start_of
from flip.site.refusal import Refusal
from flip.site.state import PRIVATE, LocalState

if TYPE_CHECKING:
    from flip.site.admission import Loaded

KEYS = "policy.maximum_change, strategy.most_change"
STUDY = "study"  # the stage of the rounds
SETS = 3  # different weights of one round: its own, and those of a resume after a site was lost
ROUNDING = 1e-5  # relative: another processor may round the numbers of the seeded start otherwise


def receive(loaded: "Loaded", task: Task, store: LocalState) -> None:
    """Load a task's weights into the site's module. Raises Refusal, before that, for those that are not the study's."""
    Received(loaded, task, store).check()
    loaded.receive(task, store)


@dataclass(frozen=True)
class Received:
    """The weights of one task "fit" or "evaluate", at a site that has loaded the study."""

    loaded: "Loaded"
    task: Task
    store: LocalState

    def check(self) -> None:
        """Take the weights as known from now on. Raises Refusal for those that are not the study's."""
        if self.loaded.pooled:
            return  # whoever asks has the rows themselves
        if self.task.stage == APPLIED:
            refuse_other_model(self.loaded.manifest, self.task)
        elif self.task.stage in (ALONE, CENTRALIZED):
            self._baseline()
        else:
            self._final()
            self._of_round()

    def _baseline(self) -> None:
        """A model that no round gave: of this site alone, or in a simulation, where one owner has every site."""
        if self.task.step == "fit":
            self._is_start()
        elif self.loaded.deployed and digest(self.task.weights) not in known_sets(self.store).get(ALONE, []):
            raise self._refused(f"a hospital scores no other site's model; the task's stage is '{self.task.stage}'")

    def _of_round(self) -> None:
        number = self.task.rounds_behind
        strategy, known = self.loaded.strategy, known_sets(self.store)
        relayed = (self.task.step, self.task.stage) == ("fit", "study") and strategy.relays
        name = name_of(reach_of(self.loaded))
        sealed, key = digest(self.task.weights), f"{name}/{number}{'+' if relayed else ''}"
        if sealed in (*known.get(key, []), *known.get(f"{name}/{number}", [])):
            return
        if number == 0 and not relayed:
            self._is_start()
        else:
            self._is_near(number + relayed)
        if len(known.get(key, [])) >= SETS * strategy.stops:
            raise self._refused(f"round {number} already had {SETS * strategy.stops} different ones")
        keep_sets(self.store, {**known, key: [*known.get(key, []), sealed]})
        if not relayed and reach_of(self.loaded) is not None:
            self.store.save(name, number, self.task.weights)

    def _final(self) -> None:
        """What is trained further are the final weights, and the model that came of them alone is scored."""
        known, number = known_sets(self.store), self.task.rounds_behind
        tuned = known.get(FINE_TUNED, [])
        if self.task.stage == FINE_TUNED and number < (last := max(numbers(known), default=0)):
            raise self._refused(f"final ones have {last} rounds behind them, and these {number}")
        if (self.task.step, self.task.stage) == ("evaluate", FINE_TUNED):
            if tuned and tuned != [final_of(self.task)]:
                raise self._refused("this site has trained others further")
        elif self.task.step == "fit" and self.task.stage == STUDY and tuned and number >= int(tuned[0].split()[0]):
            raise self._refused("the rounds ended when the final weights were trained further")

    def _is_start(self) -> None:
        """The study's start, to the last bits."""
        start = start_of(self.loaded.manifest, self.store)
        for name, array in self.task.weights.items():
            own = start.get(name)
            if own is None or own.shape != array.shape:
                raise self._refused(f"the model has no such array '{name}'")
            largest = float(abs(own).max(initial=0.0))
            if not np.allclose(array, own, rtol=ROUNDING, atol=ROUNDING * largest):
                raise self._refused("they are not the study's own seeded start, or the given one")

    def _is_near(self, number: int) -> None:
        """Within what the rounds since the last known weights can have moved; without a bound, finite."""
        reach = reach_of(self.loaded)
        before = self.store.version(name_of(reach), number)
        last: Payload | None = {}
        if reach is not None:
            last = self.store.load(name_of(reach), number) if before is not None else None
        if last is None:
            last = start_of(self.loaded.manifest, self.store)
        moved, rounds = change(self.task.weights, last), number - (before or 0)
        limit = math.inf if reach is None else reach * rounds
        if not (math.isfinite(moved) and moved <= limit):
            raise self._refused(
                f"they moved by {moved:.4g} (root mean square) since round {before or 0}, and {rounds} rounds can move "
                f"them by {limit:.4g} ({KEYS})"
            )

    def _refused(self, why: str) -> Refusal:
        return Refusal(Fault.REFUSED_WEIGHTS, why)


def name_of(reach: float | None) -> str:
    """Under which name a site keeps what it took while a round could move the weights so far.

    One for each bound: under a tighter one nothing counts as known that was taken under another.
    """
    return f"received-{hashlib.sha256(repr(reach).encode()).hexdigest()[:8]}"


def keep_alone(store: LocalState, weights: Payload) -> None:
    """Know the model that this site trained by itself, which it then scores."""
    known = known_sets(store)
    kept = [*known.get(ALONE, []), digest(weights)][-SETS:]
    keep_sets(store, {**known, ALONE: kept})


def keep_final(store: LocalState, task: Task) -> None:
    """Know which weights this site has trained further, after the rounds."""
    keep_sets(store, {**known_sets(store), FINE_TUNED: [final_of(task)]})


def final_of(task: Task) -> str:
    """How the final weights are known: the rounds behind them, and their digest."""
    return f"{task.rounds_behind} {digest(task.weights)}"


def numbers(known: Mapping[str, list[str]]) -> list[int]:
    """The rounds behind the weights that the site took."""
    return [int(key.partition("/")[2].removesuffix("+")) for key in known if "/" in key]


def keep_sets(store: LocalState, known: Mapping[str, list[str]]) -> None:
    """Write down which weights the site took, in place of what is there."""
    write_atomic(store.folder / "received.json", json.dumps(known).encode(), PRIVATE)


def known_sets(store: LocalState) -> dict[str, list[str]]:
    """Digests of the weights that the site took in this run, by the rounds behind them."""
    path = store.folder / "received.json"
    found: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def reach_of(loaded: "Loaded") -> float | None:
    """Root mean square by which the weights sent may move in a round: as the study states, at most as the policy caps.

    None without either.
    """
    stated, cap = loaded.strategy.most_change, loaded.policy.maximum_change
    bounds = [] if stated is None else [loaded.strategy.reach(stated)]
    least = min([*bounds, *([] if cap is None else [cap])], default=None)
    return None if least is None else least * loaded.strategy.stops


def refuse_pull(loaded: "Loaded", task: Task, steps: int) -> None:
    """Raises Refusal where other arrays of the coordinator's would move the weights in one fit beyond a round's reach.

    SCAFFOLD's control is such: it is added to the gradient of every step, times the learning rate of plain SGD.
    """
    pulls = loaded.strategy.pulls(task.state)
    if not pulls or (pulled := change(pulls, {})) == 0:
        return
    from flip.site.plain_loop import configured

    made, reach = configured(loaded.module), reach_of(loaded)
    pulled *= steps * (float(made[0].param_groups[0]["lr"]) if made is not None else math.inf)
    if not (math.isfinite(pulled) and (reach is None or pulled <= reach)):
        raise Refusal(
            Fault.REFUSED_WEIGHTS,
            f"the coordinator's control would move the weights by {pulled:.4g} (root mean square) in one fit, and a "
            f"round can move them by {reach} ({KEYS})",
        )
