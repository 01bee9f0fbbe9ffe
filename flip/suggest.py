"""The words of an error message: the nearest valid name, and the kind of value that a key takes."""

import difflib
from collections.abc import Callable, Iterable

Where = Callable[[str], str]
"""Where a key stands (`conf/strategy/fedavg.yaml`, `the command line`); an empty text when that is not known."""


def nowhere(key: str) -> str:
    """The `Where` of a configuration that came from no file."""
    return ""


def moved(where: Where, prefix: str, place: str) -> Where:
    """The same `Where`, but for the keys that start with `prefix`, which stand in `place`."""
    return lambda key: place if key.startswith(prefix) else where(key)


def at(key: str, where: Where) -> str:
    """A key and, in brackets, where it stands."""
    place = where(key)
    return f"{key} ({place})" if place else key


def nearest(name: str, valid: Iterable[str]) -> str:
    """Name the closest valid name, and all of them while they are few: "did you mean 'rounds'? valid: ..."."""
    names = sorted({str(each) for each in valid})
    if not names:
        return "there is none to choose from"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    shown = names if len(names) <= 24 else [*names[:24], "..."]
    return f"{hint}valid: {', '.join(shown)}"


def unique(problems: Iterable[str]) -> list[str]:
    """The problems in order, each once."""
    return list(dict.fromkeys(problems))
