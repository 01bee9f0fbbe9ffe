"""What may stand where in a study: the kind of class of each place, and what Lightning's callbacks may be told.

Asked of a class before it is called, at the coordinator and again at every site, which takes a manifest for hostile.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from inspect import isclass

from flip.config.places import METRIC, texts
from flip.config.targets import LIBRARIES, OURS, TARGET

CALLBACKS = ("EarlyStopping", "ModelCheckpoint", "StochasticWeightAveraging")
"""Lightning's callbacks that a study may use: others reach files, the logger or the engine's own callbacks."""
CHECKPOINTS = "dirpath"  # of a callback: the engine puts checkpoints into the run folder, a study nowhere else


@cache
def base(kind: str) -> type:
    """The class that what stands in a place of this kind derives from."""
    import pytorch_lightning as lightning

    from flip.privacy import Mechanism
    from flip.strategies.fedavg import FedAvg

    return {
        "model": lightning.LightningModule,
        "dataset": lightning.LightningDataModule,
        "callback": lightning.Callback,
        "strategy": FedAvg,
        "privacy": Mechanism,
        "outcomes": object,
    }[kind]


def unfit(kind: str, target: str, made: object) -> str | None:
    """Why what a target names cannot stand in a place of this kind; None where it can."""
    if not isclass(made):
        return "is a function; here a class must stand"
    wanted = base(kind)
    if not issubclass(made, wanted):
        return f"is not a {_title(wanted)}; it must derive from that"
    package = target.split(".")[0]
    if kind == "outcomes" and package != "models" and package in (*LIBRARIES, *OURS):
        return "is no class of outcomes; those lie under models, or in a package of your own"
    if kind == "callback" and package in LIBRARIES and made.__name__ not in CALLBACKS:
        return f"is not a callback that a study may use; those are {', '.join(CALLBACKS)}"
    return None


def _title(wanted: type) -> str:
    package = wanted.__module__.split(".")[0]
    return f"{package if package in LIBRARIES else wanted.__module__}.{wanted.__name__}"


def callback_paths(name: str, config: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Key and refusal of each argument of a callback that names a place on the machine's disk."""
    for argument, value in config.items():
        key = f"trainer.callbacks.{name}.{argument}"
        if argument == CHECKPOINTS:
            yield key, "is the engine's to set, below the run folder; leave it out"
        elif argument == "monitor" and isinstance(value, str) and METRIC.fullmatch(value):
            continue  # a metric's name holds a slash, and is no path
        elif argument != TARGET:
            for text in texts(value):
                if "/" in text or "\\" in text or ".." in text:
                    yield key, f"{text!r} reads as a path; a callback writes below the run folder alone"
