"""Whether what a callback watches can be there when it looks."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING

from flip.config.study import Target
from flip.config.targets import LIBRARIES
from flip.errors import nearest

if TYPE_CHECKING:
    import pytorch_lightning as lightning

    from flip.contracts.model import TrainableModule


NO_VALIDATION = "watches validation data, and no site has any; declare a validation split"


def watched(callbacks: "Sequence[lightning.Callback]", model: "TrainableModule") -> list[str]:
    """One sentence for each callback that watches a value which the model does not log in training or validation.

    What it logs are `loss` and each of its metrics as `val/NAME`; a model of one's own may log more, by names that
    stand in its code.
    """
    logged = {"loss", *(f"val/{name}" for name in getattr(model, "metrics", {}))}
    own = {
        text for kind in type(model).__mro__ if kind.__module__.split(".")[0] not in LIBRARIES for text in _texts(kind)
    }
    found = []
    for callback in callbacks:
        name = getattr(callback, "monitor", None)
        if name is not None and name not in logged | own:
            kind = type(callback).__name__
            found.append(
                f"trainer.callbacks: {kind} watches {name}, which the model does not log; {nearest(name, logged)}"
            )
    return found


def watching_validation(callbacks: Mapping[str, Target | None], *, stops: bool) -> list[str]:
    """The keys of a study that need validation data at some site; `stops`: `strategy.stop` is one."""
    watch = [name for name, each in callbacks.items() if each and str(each.get("monitor", "")).startswith("val/")]
    return [*(["strategy.stop"] if stops else []), *(f"trainer.callbacks.{name}" for name in watch)]


def _texts(kind: type) -> Iterator[str]:
    """Every text in the code of a class's own methods."""
    functions = [inspect.unwrap(each) for each in vars(kind).values() if inspect.isfunction(each)]
    codes = [function.__code__ for function in functions]
    for code in codes:
        for each in code.co_consts:
            if isinstance(each, CodeType):
                codes.append(each)
            elif isinstance(each, str):
                yield each
