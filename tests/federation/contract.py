"""Holding what we use of a backend against the installed version: what is gone is named."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest


def installed(module: str) -> str:
    """The backend that a module belongs to, and its version."""
    name = module.split(".")[0]
    return f"{name} {version(name)}"


def part(module: str, name: str = "") -> Any:
    """Something of a backend's, or a failure that names it."""
    try:
        found = importlib.import_module(module)
        for each in filter(None, name.split(".")):
            found = getattr(found, each)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{installed(module)} has no {module}.{name}, which the engine uses: {error}")
    return found


def check_call(module: str, name: str, arguments: Sequence[str]) -> Any:
    """Something is there, and takes these arguments; returns it."""
    found = part(module, name)
    known = list(inspect.signature(found).parameters) if arguments else []
    gone = [argument for argument in arguments if argument not in known]
    assert not gone, f"{module}.{name} of {installed(module)} takes {known}, not {gone}"
    return found


def check_value(module: str, name: str, value: object) -> None:
    """A constant is what we rely on."""
    found = part(module, name)
    found = getattr(found, "value", found)
    assert found == value, f"{module}.{name} of {installed(module)} is {found!r}, not {value!r}"


def check_word(module: str, word: str) -> None:
    """What has no name of its own is in a module's source."""
    assert word in inspect.getsource(part(module)), f"{module} of {installed(module)} has no {word}"


def modules(package: ModuleType) -> list[ModuleType]:
    """Every module of a package of ours."""
    return [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]


def unlisted(ours: Iterable[ModuleType], listed: Iterable[tuple[str, str, Any]], backend: str) -> set[tuple[str, str]]:
    """The names that modules of ours import of a backend, and its contract does not list."""
    used = {found for module in ours for found in imports(module, backend)}
    return used - {(module, name.split(".")[0]) for module, name, _ in listed}


def imports(module: ModuleType, backend: str) -> Iterator[tuple[str, str]]:
    """The names that a module of ours imports of a backend, wherever in it."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(backend):
            yield from ((str(node.module), alias.name) for alias in node.names)
