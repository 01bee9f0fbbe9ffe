"""Which code a study may name: the allowed prefixes, and finding what a `_target_` names.

A manifest reaches a site from elsewhere, so a target is taken for hostile: it must be public, under an allowed prefix,
and defined there too (`models.x.os.system` is not), and a class; of libraries and of the engine's own packages one that
is listed for its place (`flip.config.places`). In packages that the owner of the machine has allowed
it may be a function, in `models` one that takes no arguments (`models.body_composition.prado_2008`), and nowhere else.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from flip.errors import nearest

STUDY_TARGETS = (
    "models.", "datamodules.", "flip.strategies.", "flip.privacy.", "torch.nn.", "torch.optim.", "monai.networks.",
    "monai.losses.", "monai.metrics.", "monai.transforms.", "torchmetrics.", "pytorch_lightning.callbacks.",
)  # fmt: skip
"""Where the classes lie that a study may name unless the owner of the machine allows more."""
COORDINATOR_TARGETS = (*STUDY_TARGETS, "flip.federation.", "flip.tracking.")
"""What the coordinator's own configuration may name."""
LIBRARIES = ("torch", "monai", "torchmetrics", "pytorch_lightning")  # compared by version, not by digest
OURS = ("flip", "models", "datamodules")
TARGET = "_target_"
PREFIX_OR_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\.|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)


class TargetError(Exception):
    """A target that cannot be used; the text says why and names the nearest valid one."""


def targets(config: object) -> list[str]:
    """Every target named in a configuration, sorted, each once."""
    found: set[str] = set()
    if isinstance(config, Mapping):
        if isinstance(config.get(TARGET), str):
            found.add(config[TARGET])
        for value in config.values():
            found.update(targets(value))
    elif isinstance(config, list | tuple):
        for value in config:
            found.update(targets(value))
    return sorted(found)


def prefix_problems(key: str, value: object) -> list[str]:
    """What is wrong with a list of prefixes and classes; a text would be taken for a list of letters."""
    remedy = "write the dotted path of a package and a dot, as in [my_package.]"
    if not isinstance(value, list | tuple):
        return [f"{key}: {value!r} must be a list of prefixes; {remedy}"]
    bad = [each for each in value if not isinstance(each, str) or not PREFIX_OR_CLASS.fullmatch(each)]
    return [f"{key}: {each!r} is not a prefix; {remedy}" for each in bad]


def name_refusal(target: str, allowed: Sequence[str]) -> str | None:
    """Why a target's name is refused, before anything of it is imported; None when it is allowed.

    `allowed` are prefixes, which end in a dot, and classes by their whole name.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return "is not the dotted path of a class, such as models.segmentation.Segmentation"
    if any(part.startswith("_") for part in parts):
        return "names something private"
    if target not in allowed and not target.startswith(tuple(each for each in allowed if each.endswith("."))):
        return (
            f"is outside the allowed prefixes ({', '.join(allowed)}); the machine's owner may add one to allow_targets"
        )
    return None


def resolve(target: str) -> Callable[..., Any]:
    """Import the class or function that a target names. Raises TargetError, with the cause, where it names neither."""
    reason = name_refusal(target, [target.split(".")[0] + "."])
    if reason is not None:
        raise TargetError(reason)
    home, found = _walk(target)
    if not inspect.isclass(found) and not (inspect.isfunction(found) and _may_be_called(target, found)):
        raise TargetError(f"is not a class; {nearest(target.split('.')[-1], _classes(home))}")
    defined = f"{found.__module__}.{found.__qualname__}"
    if not defined.startswith(_base(target)):
        raise TargetError(f"is defined elsewhere, as {defined}; name that, if it is allowed")
    return found


def _may_be_called(target: str, function: Callable[..., Any]) -> bool:
    """Whether a study may name a function: of `models` one without arguments, which a study cannot lead astray."""
    package = target.split(".")[0]
    return not inspect.signature(function).parameters if package == "models" else package not in (*LIBRARIES, *OURS)


def _base(target: str) -> str:
    """The allowed prefix under which the target's definition must lie as well."""
    fitting = [prefix for prefix in COORDINATOR_TARGETS if target.startswith(prefix)]
    return max(fitting, key=len, default=target.split(".")[0] + ".")


def _walk(target: str) -> tuple[ModuleType, Any]:
    """The last module on the way to a target, and what the target names there; never steps into a foreign module."""
    parts = target.split(".")
    module = _import(parts[0])
    for index, part in enumerate(parts[1:], start=1):
        name = ".".join(parts[: index + 1])
        found = getattr(module, part, None)
        if found is None or (isinstance(found, ModuleType) and found.__name__ != name):
            if index == len(parts) - 1 and hasattr(module, "__path__") and part not in _modules(module):
                raise TargetError(f"has no such class; {nearest(part, _classes(module))}")
            if not hasattr(module, "__path__") or (found is None and part not in _modules(module)):
                names = _modules(module) if index < len(parts) - 1 else _classes(module)
                raise TargetError(f"'{part}' is not in {module.__name__}; {nearest(part, names)}")
            found = _import(name)
        if index == len(parts) - 1:
            return module, found
        if not isinstance(found, ModuleType):
            raise TargetError(f"'{name}' is not a module")
        module = found
    return module, module


def _import(name: str) -> ModuleType:
    """Import a module, naming what went wrong inside it."""
    if name not in sys.modules and "." not in name and PathFinder.find_spec(name) is None:
        raise TargetError(f"no package '{name}' is installed")
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module's own code raises is the cause to be named
        raise TargetError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def _modules(module: ModuleType) -> list[str]:
    return [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))]


def _classes(module: ModuleType) -> list[str]:
    """Public classes that a module offers as its own."""
    top = module.__name__.split(".")[0]
    members = (
        (name, value) for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")
    )
    return [name for name, value in members if value.__module__.split(".")[0] == top]
