"""The ways in which a run ends early: a mistake of the user, a federation that cannot go on, a full disk."""

import difflib
import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

HELD = "held"
"""The status of a run whose sites keep back what a person there has yet to release."""
EXIT = {"ok": 0, HELD: 3}
"""The exit status of a run, by the status of its result; 1 of every other, 2 of a user's mistake."""


class UserError(Exception):
    """One or several mistakes of the user, each naming its key, file or site and the remedy.

    Shown without a traceback; the process exits with status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class CanRefuse(Protocol):
    """A fault (`flip.messages.Fault`)."""

    @property
    def refused(self) -> bool:
        """Whether the site chose not to take part."""


class StudyFailed(Exception):
    """The federation could not go on; the run ends as `refused` when every fault is a refusal, else as `failed`."""

    def __init__(self, reason: str, faults: Iterable[CanRefuse] = ()) -> None:
        super().__init__(reason)
        self.faults = list(faults)

    @property
    def status(self) -> str:
        """The status of the run's result."""
        return "refused" if self.faults and all(fault.refused for fault in self.faults) else "failed"


class StudyHeld(StudyFailed):
    """What sites have answered waits there for a person to release it; the run ends as `held`, and can go on."""

    @property
    def status(self) -> str:
        """The status of the run's result."""
        return HELD


class StudyUnfit(StudyFailed):
    """What the sites have does not fit what the study asks of them; the run ends as `refused`."""

    @property
    def status(self) -> str:
        """The status of the run's result."""
        return "refused"


def disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or what one may use of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def mistakes_text(problems: Sequence[str]) -> str:
    """Mistakes of the user, one a line."""
    if len(problems) == 1:
        return f"Nothing was run. {problems[0]}"
    return "\n".join([f"Nothing was run, for {len(problems)} reasons:", *(f"  - {problem}" for problem in problems)])


Where = Callable[[str], str]
"""Where a key stands (`conf/strategy/fedavg.yaml`, `the command line`); an empty text when that is not known."""


def nowhere(key: str) -> str:
    """The `Where` of a configuration that came from no file."""
    return ""


def moved(where: Where, prefix: str, place: str) -> Where:
    """The same `Where`, but for the keys that start with `prefix`, which stand in `place`."""
    return lambda key: place if key.startswith(prefix) else where(key)


def at(key: str, where: Where) -> str:
    """A key and, in brackets, where it stands; for a mistake alone, since looking it up composes the study again."""
    place = where(key)
    return f"{key} ({place})" if place else key


def close(name: str, valid: Iterable[str]) -> str:
    """The valid name that is meant, it seems; "" where none is alike."""
    return next(iter(difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)), "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Name the closest valid name, and all of them while they are few: "did you mean 'rounds'? valid: ..."."""
    names = sorted({str(each) for each in valid})
    if not names:
        return "there is none to choose from"
    meant = close(name, names)
    hint = f"did you mean '{meant}'? " if meant else ""
    shown = names if len(names) <= 24 else [*names[:24], "..."]
    return f"{hint}valid: {', '.join(shown)}"


def several(number: int, noun: str) -> str:
    """A number with what it counts: `1 site`, `3 sites`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are: `a, b, and 3 more`."""
    return ", ".join([*names[:most], *([f"and {len(names) - most} more"] if names[most:] else [])])


def unique(problems: Iterable[str]) -> list[str]:
    """The problems in order, each once."""
    return list(dict.fromkeys(problems))
