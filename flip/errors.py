"""The ways in which a run ends early: a mistake of the user, a federation that cannot go on, a full disk."""

import errno
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """One or several mistakes of the user, each naming its key, file or site and the remedy.

    Shown without a traceback; the process exits with status 2.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class StudyFailed(Exception):
    """The federation could not go on; the run ends as `refused` when every fault is a refusal, else as `failed`."""

    def __init__(self, reason: str, faults: Iterable[Any] = ()) -> None:
        super().__init__(reason)
        self.faults = list(faults)

    @property
    def status(self) -> str:
        """The status of the run's result."""
        return "refused" if self.faults and all(fault.refused for fault in self.faults) else "failed"


def disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or what one may use of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
