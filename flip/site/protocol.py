"""What a coordinator may ask of a site in one run: the steps, their parameters, the arrays that go with them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flip.config.rules import is_sha256
from flip.contracts import VisitsSome
from flip.messages import TRACKERS, Payload, Scalar, Task
from flip.messages.applied import APPLIED
from flip.privacy import Mechanism
from flip.site.sums import PARAMS, SHAPES, unknown_sum
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    import torch

STATISTICS, EDGES = "statistics/", "edges/"  # how the names of agreed statistics and of a histogram's edges begin
MODEL = "model"  # parameter: the digest of weights trained elsewhere that the site has itself
MOST_STATISTICS = 10**6  # numbers in the agreed statistics of one task: those of the widest shipped study are 20,000
MOST_EDGES = 65  # edges of one histogram; the coordinator's have 25
MOST_ALONE = 32  # sites whose own models a run may have scored here
SCORES_A_ROUND = 2  # of the round's weights
SCORES_OF_A_MODEL = 4  # of the final or a baseline's weights: threshold and test, and both again once after a resume


@dataclass(frozen=True)
class Step:
    """One step of the protocol: in which stages it is asked, and the parameters that it may have, by type."""

    stages: Collection[str]
    params: Mapping[str, tuple[type, ...]]


STUDY = ("study",)
STEPS: Mapping[str, Step] = {
    "statistics": Step(STUDY, {}),
    "describe": Step(STUDY, {"tries": (bool,)}),
    "plan": Step(STUDY, {}),
    "begin": Step(STUDY, {MODEL: (str,)}),
    "fit": Step(("study", "alone", "fine_tuned"), {"alone": (str,), "rounds": (int,)}),
    "evaluate": Step(
        ("study", "test", "alone", "fine_tuned", "centralized", "applied"),
        {
            "split": (str,),
            "outcomes": (bool,),
            "threshold": (int, float),
            "alone": (str,),
            "pooled": (bool,),
            MODEL: (str,),
        },
    ),
    "measure": Step(STUDY, {}),
    "predict": Step(STUDY, {"pooled": (bool,)}),
    **{step: Step(STUDY, PARAMS) for step in SHAPES},
}
OF_MODELS = (("begin", "study"), ("evaluate", "applied"))
WHOLE = ("measure", "predict")  # steps that have all weights of the model
SPLITS = ("validate", "test")
AFTERWARDS = ("outcomes", "threshold")  # parameters of an evaluation after the rounds: each threshold is a question


class Form(NamedTuple):
    """An array without its numbers."""

    shape: tuple[int, ...]
    dtype: str


Forms = Mapping[str, Form]


def forms(arrays: Payload) -> dict[str, Form]:
    """Names, shapes and types of arrays."""
    return {name: Form(array.shape, array.dtype.str) for name, array in arrays.items()}


@dataclass(frozen=True)
class Expected:
    """What the tasks of a study hold.

    Attributes:
        rounds: rounds of the study; a task's round counts from 0.
        fits: different fits that one run may ask for in its rounds.
        shared: the weights that travel in the rounds.
        whole: all weights of the model.
        state: what the strategy sends with a fit.
        models: how many models trained elsewhere the study names.
        steps: those of its privacy mechanisms.
    """

    rounds: int
    fits: int
    shared: Forms
    whole: Forms
    state: Forms
    models: int = 0
    steps: Collection[str] = ()

    @classmethod
    def of(
        cls,
        strategy: FedAvg,
        module: "torch.nn.Module",
        shared: Sequence[str],
        *,
        models: int = 0,
        mechanisms: Sequence[Mechanism] = (),
    ) -> "Expected":
        """From the study's strategy and module, the names of the weights that travel, `models` and mechanisms."""
        from flip.messages.weights import to_arrays

        weights = to_arrays(module)
        travel = {name: weights[name] for name in shared}
        # a cycle that ends within a round may stop twice at one site
        some = isinstance(strategy, VisitsSome) and strategy.visits is not None
        fits = strategy.rounds * (2 if some else 1)
        sent = strategy.broadcast(strategy.start(travel)) if travel else {}
        steps = frozenset(step for each in mechanisms for step in each.steps)
        return cls(strategy.rounds, fits, forms(travel), forms(weights), forms(sent), models, steps)

    def weights(self, task: Task) -> Sequence[Forms]:
        """The forms of which the task's weights must have one."""
        if task.step in ("statistics", "describe", "plan", *SHAPES):
            return ({},)
        if task.stage in ("study", "fine_tuned") and task.step not in WHOLE:
            return (self.shared,)
        return (
            (self.whole,)
            if task.stage in ("alone", "centralized", "applied") or task.step in WHOLE
            else (self.shared, self.whole)
        )


def unknown_params(task: Task) -> Iterator[str]:
    """What is wrong with a task's parameters; its step is known."""
    known = {**STEPS[task.step].params, TRACKERS: (str,)}
    for name, value in task.params.items():
        kinds = known.get(name, ())
        truth = isinstance(value, bool) and bool not in kinds  # which is a whole number to Python
        if truth or not isinstance(value, kinds):
            yield f"parameter {name!r} of {task.step}: {_shown(value)}"
    if task.step == "evaluate" and task.params.get("split") not in SPLITS:
        yield f"split: {_shown(task.params.get('split'))}"
    chosen = task.params.get("threshold", 0)
    if isinstance(chosen, int | float) and not 0 <= chosen <= 1:
        yield f"threshold: {_shown(chosen)}"
    if (task.step, task.stage) == ("evaluate", "study"):
        yield from (f"parameter {name!r} among the rounds" for name in AFTERWARDS if name in task.params)
    if ("alone" in task.params) != (task.stage == "alone") and "alone" in known:
        yield f"parameter 'alone' in stage {task.stage}"
    if MODEL in task.params and not (is_sha256(task.params[MODEL]) and (task.step, task.stage) in OF_MODELS):
        yield f"parameter {MODEL!r} in stage {task.stage}: {_shown(task.params[MODEL])}"
    if ("rounds" in task.params) != (task.stage == "fine_tuned") and "rounds" in known:
        yield f"parameter 'rounds' in stage {task.stage}"


def unknown_state(task: Task, expected: Expected) -> Iterator[str]:
    """What of a task's state the study does not have; nothing of it is copied to find out."""
    if task.step in SHAPES:
        yield from unknown_sum(task) if task.step in expected.steps else [f"{task.step}: the study makes no sums"]
        return
    agreed = {name: array for name, array in task.state.items() if name.startswith(STATISTICS)}
    edges = {name: array for name, array in task.state.items() if name.startswith(EDGES)}
    beside = {name for name in task.state if task.step in WHOLE and name.startswith(f"{APPLIED}/")}
    known = {*agreed, *edges, *beside}
    own = forms({name: array for name, array in task.state.items() if name not in known})
    wanted = expected.state if (task.step, task.stage) == ("fit", "study") else {}
    if own != wanted:
        yield f"the strategy's arrays: {_first_other(own, wanted)}"
    if agreed and task.step == "statistics":
        yield "statistics before any were agreed on"
    if sum(array.size for array in agreed.values()) > MOST_STATISTICS or not all(map(_numbers, agreed.values())):
        yield f"agreed statistics that are no finite numbers, or more than {MOST_STATISTICS}"
    yield from (f"{_shown(name)}: sums that no numbers have" for name in agreed if _impossible(name, agreed[name]))
    if edges and (task.step != "describe" or task.params.get("tries")):
        yield f"edges with {task.step}"
    if sum(each.size for each in edges.values()) > MOST_STATISTICS:
        yield f"edges of more than {MOST_STATISTICS} numbers"
    elif not all(_numbers(each) and each.ndim == 1 and each.size <= MOST_EDGES for each in edges.values()):
        yield f"edges that are not at most {MOST_EDGES} numbers a column"
    elif not all((np.diff(each) > 0).all() for each in edges.values()):
        yield "edges that do not increase"


def _numbers(array: np.ndarray) -> bool:
    return array.dtype == np.float64 and bool(np.isfinite(array).all())


def _impossible(name: str, array: np.ndarray) -> bool:
    """Whether agreed counts are below 0, or of numbers, sums and squares no numbers have them: Cauchy and Schwarz."""
    kind = name.removeprefix(STATISTICS).partition("/")[0]
    if kind == "count":
        return bool((array < 0).any())
    if kind != "moments" or array.shape[-1:] != (3,):
        return False
    number, total, squares = np.moveaxis(array, -1, 0)
    return bool(((number < 0) | (squares < 0) | (total**2 > number * squares * (1 + 1e-6) + 1e-6)).any())


def unknown_weights(task: Task, expected: Expected) -> Iterator[str]:
    """What of a task's weights the study's model does not have; nothing of them is copied to find out."""
    if MODEL in task.params:
        if task.weights:
            yield f"weights beside the digest of those that the site has itself ({MODEL})"
        return
    if task.step == "begin":
        return  # those of a file, of which the site takes what fits; the manifest names their digest
    found, wanted = forms(task.weights), expected.weights(task)
    if found not in wanted:
        yield f"weights: {_first_other(found, wanted[0])}"


def _first_other(found: Forms, wanted: Forms) -> str:
    """The first name that is in one of two alone, or has another form there."""
    name = next(name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name))
    return f"{_shown(name)} is {found.get(name)}, expected {wanted.get(name)}"


def _shown(value: Scalar | None) -> str:
    """A value from elsewhere, for the site's own log: printable, and not long."""
    return ascii(value)[:80]
