"""A live federation: the loop runs in the backend's server, and the command line follows it and fetches its folder.

What a site and a server hold of the code is installed there; what travels is a `Submission`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flip.coordinator.serve import Submission
from flip.processes import every

if TYPE_CHECKING:
    from flip.runs.folder import Listener

LOOK = 0.2  # seconds between looks at the lines that have come


class LiveTransport(Protocol):
    """A federation backend whose server runs the loop."""

    def submit(self, job: Submission, folder: Path) -> None:
        """Have the server run the job; when this returns, what `serve` wrote there is in `folder`.

        An earlier part of the same run that the server still runs is stopped first; then the lines of rounds that were
        not completed are dropped. While the job runs, whole lines of `rounds.jsonl` are fetched as they are written.
        What `folder` holds of an earlier part (`state/round.safetensors`, `rounds.jsonl`, `cohort.json`) is at the
        server when it begins. Raises StudyFailed, with the remedy, when the server has no result to give. An interrupt
        stops the job.
        """
        ...


@contextmanager
def followed(folder: Path, listeners: "Sequence[Listener]") -> Iterator[None]:
    """Tell the listeners of every line that comes into `rounds.jsonl` during the block."""
    from flip.runs.folder import LINES

    path = folder / LINES
    seen = path.stat().st_size if path.exists() else 0

    def tell() -> None:
        nonlocal seen
        if not path.exists():
            return
        seen = min(seen, path.stat().st_size)  # lines of a round that is repeated are dropped when a run goes on
        with path.open("rb") as file:
            file.seek(seen)
            whole = file.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            for listener in listeners:
                listener.line(json.loads(line))
        seen += len(whole) + 1 if whole else 0

    try:
        with every(LOOK, tell):
            yield
    finally:
        tell()
