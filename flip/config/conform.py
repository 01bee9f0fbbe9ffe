"""Values held against the schema's dataclasses: unknown keys, missing keys and wrong types, all at once."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flip.errors import Where, at, nearest

UNSET = "???"
Schema = TypeVar("Schema")


def conform(values: Mapping[Any, Any], schema: type[Schema], key: str, where: Where, problems: list[str]) -> Schema:
    """An instance of the schema's dataclass with these values; what does not fit goes to `problems`."""
    hints, typed = _typed(schema)  # type: ignore[arg-type] # a class is hashable, whatever mypy says of a type variable
    for name in values:
        if name not in hints:
            problems.append(f"{at(_join(key, name), where)}: no such key; {nearest(str(name), hints)}")
    fitted: dict[str, Any] = {}
    for name, hint in hints.items():
        if name not in values or values[name] == UNSET:
            continue
        full, value = _join(key, name), values[name]
        inner = get_args(hint)[-1] if get_origin(hint) is dict else None
        if is_dataclass(hint) or is_dataclass(inner):
            if not isinstance(value, Mapping):
                problems.append(f"{at(full, where)}: must hold keys and values, not {value!r}")
            elif is_dataclass(hint):
                fitted[name] = conform(value, hint, full, where, problems)  # type: ignore[arg-type]
            else:
                fitted[name] = _conform_each(value, inner, full, where, problems)
            continue
        if value == "None" and type(None) in get_args(hint):
            problems.append(f"{at(full, where)}: 'None' is a text; write null")
            continue
        try:
            typed[name] = value
            held = typed[name]
            fitted[name] = OmegaConf.to_container(held) if isinstance(held, DictConfig | ListConfig) else held
        except OmegaConfBaseException:
            problems.append(f"{at(full, where)}: {value!r} is the wrong type; must be {_words(hint)}")
    return schema(**fitted)


@cache
def _typed(schema: type) -> tuple[dict[str, Any], DictConfig]:
    """The types of a schema, and a node that converts to them: made once, since every site has the same schema."""
    return get_type_hints(schema), OmegaConf.structured(schema)


def _conform_each(
    values: Mapping[Any, Any], schema: Any, key: str, where: Where, problems: list[str]
) -> dict[str, Any]:
    each = {}
    for name, value in values.items():
        full = _join(key, name)
        if isinstance(value, Mapping):
            each[str(name)] = conform(value, schema, full, where, problems)
            required = {f.name for f in fields(schema) if f.default == UNSET and f.default is not MISSING}
            problems += [_unset(_join(full, missing), where) for missing in sorted(required - set(value))]
        else:
            problems.append(f"{at(full, where)}: must hold the keys of a site, not {value!r}")
    return each


def _unset(key: str, where: Where) -> str:
    hint = ", or choose an experiment: experiment=NAME" if key in ("dataset", "model", "name") else ""
    if key.split(".")[-1] == "policy":
        hint = ": public_data for public or synthetic data, or {minimum_persons: 50, minimum_cell: 5}"
    return f"{at(key, where)}: has no value; set it, as in {key}=...{hint}"


def _names(schema: Any) -> list[str]:
    return [each.name for each in fields(schema)]


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _words(hint: object) -> str:
    """A type of the schema in words."""
    known = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if hint in known:
        return known[hint]
    if get_origin(hint) is dict:
        return "keys and values"
    if get_origin(hint) is list:
        return "a list, as in [a, b]"
    if get_args(hint):
        return " or ".join(_words(each) for each in get_args(hint))
    assert isinstance(hint, type) and issubclass(hint, Enum)
    return "one of " + ", ".join(each.value for each in hint)


def _missing(values: Mapping[str, object], key: str, where: Where) -> list[str]:
    return [_unset(full, where) for full, value in _leaves(values, key) if value == UNSET]


def unresolved(node: DictConfig | ListConfig, where: Where, key: str = "") -> list[str]:
    """One sentence for each `${...}` that does not resolve."""
    problems: list[str] = []
    names: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    for name in names:
        full = _join(key, name) if isinstance(node, DictConfig) else f"{key}[{name}]"
        if full == "hydra" or OmegaConf.is_missing(node, name):
            continue
        try:
            value = node[name]
        except OmegaConfBaseException as error:
            reason = _first_line(error).removeprefix("UserError raised while resolving interpolation: ")
            problems.append(f"{at(full, where)}: cannot be resolved: {reason}")
            continue
        if (
            isinstance(value, DictConfig | ListConfig)
            and not value._is_none()
            and not OmegaConf.is_interpolation(node, name)
        ):
            problems += unresolved(value, where, full)
    return problems


def _leaves(value: object, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for name, each in value.items() for leaf in _leaves(each, _join(key, name))]
    if isinstance(value, list):
        return [leaf for index, each in enumerate(value) for leaf in _leaves(each, f"{key}[{index}]")]
    return [(key, value)]
