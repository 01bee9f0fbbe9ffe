"""What every transport can be told: how long to wait, and how many sites may compute at once."""

from dataclasses import dataclass

from flip.errors import UserError


@dataclass
class Limits:
    """Settings of a transport, checked.

    Args:
        timeout: seconds that one task may take at the slowest site, above 0.
        workers: sites that compute at the same time, 1 or more.
    """

    timeout: float = 600.0
    workers: int = 2

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise UserError(f"federation.timeout={self.timeout}: must be above 0 seconds")
        if self.workers < 1:
            raise UserError(f"federation.workers={self.workers}: must be 1 or more")
