"""What every transport can be told: how long to wait, and how many sites may compute at once."""

from dataclasses import dataclass

from flip.errors import UserError

STARTING = 600.0  # Ray, or FLARE with a few sites, takes 10 to 20 s on 2 free cores, minutes where others use them


def timeout_problems(timeout: float) -> list[str]:
    """What is wrong with a transport's `timeout`."""
    return [f"federation.timeout={timeout}: must be above 0 seconds"] if timeout <= 0 else []


@dataclass
class Limits:
    """Settings of a transport, checked.

    Args:
        timeout: seconds that one task may take at the slowest site, above 0.
        workers: sites that compute at the same time, 1 or more.
    """

    timeout: float = 600.0
    workers: int = 2

    @property
    def starting(self) -> float:
        """Seconds that a backend's processes may take to start, however short a task may be."""
        return max(self.timeout, STARTING)

    def __post_init__(self) -> None:
        if problems := timeout_problems(self.timeout):
            raise UserError(problems)
        if self.workers < 1:
            raise UserError(f"federation.workers={self.workers}: must be 1 or more")
