"""Holding what we use of FLARE against the installed version: what is gone is named."""

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest

Call = tuple[str, str, Sequence[str]]
"""A module of FLARE's, what we call in it, and the arguments that we give."""
Value = tuple[str, str, object]
"""A module of FLARE's, a constant in it, and the value that we rely on."""
INSTALLED = f"nvflare {version('nvflare')}"


def flare(module: str, name: str = "") -> Any:
    """Something of FLARE's, or a failure that names it."""
    try:
        found = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{INSTALLED} has no {module}.{name}, which the engine uses: {error}")
    return found


def check_call(module: str, name: str, arguments: Sequence[str]) -> None:
    """A class or function is there and takes these arguments."""
    parameters = inspect.signature(flare(module, name)).parameters
    gone = [argument for argument in arguments if argument not in parameters]
    assert not gone, f"{module}.{name} of {INSTALLED} takes {list(parameters)}, not {gone}"


def check_value(module: str, name: str, value: object) -> None:
    """A constant is what we rely on."""
    found = flare(module, name)
    found = getattr(found, "value", found)
    assert found == value, f"{module}.{name} of {INSTALLED} is {found!r}, not {value!r}"


def check_word(module: str, word: str) -> None:
    """What has no name of its own is in a module's source."""
    assert word in inspect.getsource(flare(module)), f"{module} of {INSTALLED} has no {word}"


def unlisted(ours: Iterable[ModuleType], listed: Iterable[Call | Value]) -> set[tuple[str, str]]:
    """The names that modules of ours import of FLARE, and no contract lists."""
    imports = [found for each in ours
               for found in re.findall(r"from (nvflare[\w.]+) import ([\w, ]+)", inspect.getsource(each))]  # fmt: skip
    used = {(module, name.strip()) for module, names in imports for name in names.split(",")}
    return used - {(module, name.split(".")[0]) for module, name, _ in listed}
