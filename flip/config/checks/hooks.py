"""A name of a study's class that is nearly a hook's: a misspelt hook would silently be no hook."""

import difflib
from collections.abc import Iterator, Mapping

from flip.config.base_classes import base
from flip.config.targets import LIBRARIES
from flip.contracts import KINDS, hooks, is_hook

NEAR = 0.84  # share of letters in common (difflib): `metrisc` is .86 of `metrics`, `skiped` .92 of `skipped`

OURS = ("strategy", "privacy")  # kinds whose base class is the engine's own


def misspelt(kind: str, key: str, made: object) -> Iterator[str]:
    """One sentence for each public name of an object that is nearly a hook's; `key` is its place in the configuration.

    Names of the libraries' own base classes count as meant, and so does what begins with an underscore. What the
    engine asks of a `kind` stands in `flip.contracts`, and for a strategy or mechanism in its base class too.
    """
    contract = base(kind) if kind in OURS else object
    known = hooks(kind) | _public(contract)
    own = _own_names(made, contract)
    for name, owner in sorted(own.items()):
        near = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
        if near and near[0] not in own:
            yield (
                f"{key}: {owner}.{name} is nearly `{near[0]}`, which the engine asks for, and would have no effect; "
                f"name it {near[0]}, or _{name} if something else is meant"
            )


def in_part(kind: str, key: str, made: object) -> Iterator[str]:
    """One sentence for each hook of which an object has some names and lacks others: it would be no hook.

    `kind` is one of `flip.contracts.KINDS`; a class may have hooks whose names its constructor assigns, all of them.
    """
    owner = made.__name__ if isinstance(made, type) else type(made).__name__
    for hook in KINDS[kind]:
        names = _public(hook)
        lacking = sorted(name for name in names if not hasattr(made, name))
        if is_hook(hook) and 0 < len(lacking) < len(names):
            yield (
                f"{key}: {owner} has {', '.join(sorted(names - {*lacking}))} without {', '.join(lacking)}, which the "
                f"engine asks for together ({hook.__name__}), and would have no effect; add what is missing"
            )


def _own_names(made: object, contract: type) -> Mapping[str, str]:
    """The public names that a class or object has beyond its libraries' and its contract's, by owner."""
    kind = made if isinstance(made, type) else type(made)
    inherited: set[str] = set()
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        library = owner is contract or owner.__module__.split(".")[0] in (*LIBRARIES, "builtins", "abc", "typing")
        for name in _public(owner):
            if library:
                inherited.add(name)
            elif name not in inherited:
                found.setdefault(name, owner.__name__)
    if made is not kind:
        # torch keeps the modules that are assigned, such as a ModuleDict of metrics, in a table of their own
        assigned = {*vars(made), *vars(made).get("_modules", {})}
        found |= {name: kind.__name__ for name in assigned - inherited if not name.startswith("_")}
    return found


def _public(owner: type) -> set[str]:
    """The public names that a class defines or declares."""
    return {name for name in {*vars(owner), *vars(owner).get("__annotations__", {})} if not name.startswith("_")}
