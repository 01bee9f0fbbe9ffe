"""A `_target_` against the constructor that it names: allowed, importable, arguments known, complete, of their type."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import MISSING

from flip.config.base_classes import unfit
from flip.config.build import PARTIAL
from flip.config.bundle import PARTS
from flip.config.places import argument_refusals, nested_places, refusal
from flip.config.targets import TARGET, TargetError, resolve
from flip.errors import Where, at, nearest

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}

LISTS = (list, tuple, Sequence, Collection, Iterable)
NULL_IN_PYTHON = "None"  # a text in YAML, which says null


@dataclass(frozen=True)
class Slot:
    """A place of the configuration that holds a target.

    `given` are the arguments that the engine supplies itself, `may` those that it supplies to a class that takes them;
    with `open` it may supply further ones. `kind` is the place's kind (`flip.config.base_classes`), if the
    engine needs one; `places` are those of the list that its classes are on (`flip.config.places`), None for no list.
    """

    key: str
    config: Mapping[str, Any]
    prefixes: Sequence[str]
    given: Sequence[str] = ()
    may: Sequence[str] = ()
    open: bool = False
    kind: str = ""
    places: Sequence[str] | None = None


def bind(slot: Slot, where: Where) -> Iterator[str]:
    """Every mistake in a slot and in the targets nested in it."""
    if not isinstance(slot.config, Mapping):
        yield f"{at(slot.key, where)}: must hold {TARGET} and its arguments, not {slot.config!r}"
        return
    target = slot.config.get(TARGET)
    if not isinstance(target, str):
        yield f"{at(slot.key, where)}: has no {TARGET}; write the dotted path of a class"
        return
    if not isinstance(slot.config.get(PARTIAL, False), bool):
        yield f"{at(f'{slot.key}.{PARTIAL}', where)}: must be true or false"
    yield from _nested(slot, where)
    if reason := refusal(target, slot.prefixes, slot.places):
        yield f"{_named(slot, where)} {reason}"
        return
    try:
        made = resolve(target)
    except TargetError as error:
        yield f"{_named(slot, where)} {error}"
        return
    if slot.kind and (reason := unfit(slot.kind, target, made)):
        yield f"{_named(slot, where)} {reason}"
        return
    # A place without a list is the site's own: its file may name a folder anywhere on its machine.
    for name, reason in argument_refusals(target, slot.config) if slot.places is not None else ():
        yield f"{at(f'{slot.key}.{name}', where)}: {reason}"
    yield from _arguments(slot, made, where)


def _named(slot: Slot, where: Where) -> str:
    """A target and where it stands."""
    return f"{at(f'{slot.key}.{TARGET}', where)}: {slot.config[TARGET]}"


def _nested(slot: Slot, where: Where) -> Iterator[str]:
    for key, value in slot.config.items():
        if key not in (TARGET, PARTIAL):
            inner = replace(slot, given=(), may=(), open=False, kind="", places=nested_places(slot.places, str(key)))
            yield from _nested_in(f"{slot.key}.{key}", value, inner, where)


def _nested_in(key: str, value: object, slot: Slot, where: Where) -> Iterator[str]:
    if isinstance(value, Mapping):
        if value.get(TARGET) is not None:
            yield from bind(replace(slot, key=key, config=value), where)
            return
        for name, each in value.items():
            yield from _nested_in(f"{key}.{name}", each, slot, where)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _nested_in(f"{key}[{index}]", each, slot, where)


def _arguments(slot: Slot, made: Callable[..., Any], where: Where) -> Iterator[str]:
    """Unknown and missing arguments, and values whose type the signature rules out."""
    parameters, title = _parameters(made), slot.config[TARGET].split(".")[-1]
    if parameters is None:
        return
    settable = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in slot.config.items():
        full = f"{slot.key}.{name}"
        if name in (TARGET, PARTIAL):
            continue
        if name in (*slot.given, *slot.may):
            yield f"{at(full, where)}: is the site's to set, in its own file (sites.NAME.{name})"
        elif name in settable:
            if reason := _classless(full, value, settable[name].annotation) or wrong(value, settable[name].annotation):
                yield f"{at(full, where)}: {reason}"
        elif not anything:
            free = set(settable) - {*slot.given, *slot.may}
            left = _left(slot.key, full, where)
            yield f"{at(full, where)}: {title} has no such argument; {nearest(str(name), free)}{left}"
    if slot.config.get(PARTIAL) or slot.open:
        return
    for name, parameter in settable.items():
        if parameter.default is parameter.empty and name not in {*slot.config, *slot.given, *slot.may}:
            yield f"{at(slot.key, where)}: {title} needs {slot.key}.{name}, which is not set"
    for name in slot.given:
        if name not in settable and not anything:
            yield f"{at(slot.key, where)}: {title} must take the argument {name}, which each site's file sets"


def _left(key: str, full: str, where: Where) -> str:
    """A hint where an argument stands in another file than the class: YAML merges, so that of another class stays."""
    place, of_class = where(full), where(f"{key}.{TARGET}")
    if not place.endswith(".yaml") or place == of_class:
        return ""
    return f"; that file sets it for another class, and what {of_class} says is merged into it: start from another file"


def _parameters(made: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The constructor's parameters, with annotations as types where they can be; None where Python cannot tell."""
    for evaluate in (True, False):
        try:
            return inspect.signature(made, eval_str=evaluate).parameters
        except NameError:  # an annotation that is imported for type checkers alone
            continue
        except (TypeError, ValueError):
            return None
    return None


def _classless(key: str, value: object, wanted: object) -> str:
    """Why keys alone cannot fill a place of a class; of what a bundle has too, its keys may have taken that's place."""
    plain = not isinstance(wanted, type) or getattr(wanted, "_is_protocol", False) or isinstance(value, wanted)
    if plain or not isinstance(value, Mapping) or value.get(TARGET) is not None:
        return ""
    part = key.rpartition(".")[2]
    bundle = f", or, for a MONAI Bundle's own, set '{key}=${{bundle:{part}}}'" if part in PARTS else ""
    return f"its keys ({', '.join(map(str, value))}) name no class; write {TARGET} beside them{bundle}"


def wrong(value: object, wanted: object) -> str:
    """Why a configured value cannot be of the annotated type; empty where it may be."""
    if value == NULL_IN_PYTHON and NoneType in get_args(wanted):
        return f"{value!r} is a text; write null"
    return "" if fits(value, wanted) else f"{value!r} is the wrong type; must be {words(wanted)}"


def fits(value: object, wanted: object) -> bool:
    """Whether a configured value may be of the annotated type; true wherever the annotation says nothing simple."""
    if value == MISSING or (isinstance(value, Mapping) and value.get(TARGET) is not None):
        return True
    if get_origin(wanted) in (Union, UnionType):
        return any(fits(value, each) for each in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(each, (*arguments, Any)[1]) for each in value.values())
    if origin in LISTS:  # a text is no list of its letters
        each_of = arguments[0] if arguments and origin is not tuple else Any
        return isinstance(value, list) and all(fits(each, each_of) for each in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted) if wanted in WORDS else True


def words(wanted: object) -> str:
    """An annotation in words."""
    if get_origin(wanted) in (Union, UnionType):
        # typing keeps one object for equal unions, so the order of its members is whoever's came first
        named = sorted((words(each) for each in get_args(wanted)), key=lambda each: (each == "null", each))
        return " or ".join(named)
    if get_origin(wanted) is Literal:
        return " or ".join(map(str, get_args(wanted)))
    origin = get_origin(wanted) or wanted
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys and values"
    if origin in LISTS:
        return "a list, as in [a, b]"
    known = WORDS.get(wanted) if isinstance(wanted, type) else None
    return known or str(getattr(wanted, "__name__", wanted))
