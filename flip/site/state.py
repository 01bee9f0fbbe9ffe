"""What a site keeps for itself between tasks: safetensors files, written atomically, versioned by run and round."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flip.config.policy import Policy
from flip.files import mapped, write_atomic
from flip.messages import Fault, Reply, Task
from flip.messages.safetensors import load_file, parts
from flip.messages.wire import reply_parts, unpack_reply
from flip.site.refusal import Refusal

PRIVATE = 0o600
KEPT = 2  # versions of each file: the last round, and the one before it for a task that is repeated
RECENT = 32  # versions that are kept besides while they are young: a coordinator may go on from a copy that lags behind
YOUNG = 60.0  # seconds; a copy lags by 3 at most, which are 30 rounds of the fastest study


def content_name(content: bytes) -> str:
    """The name of a file that is called by what is in it: 128 bits of its sha256, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


class LocalState:
    """A site's own store for one run.

    Args:
        folder: the site's `state` folder.
        run: identifier of the run; state of another run is never read.
        listed: digest of the site's list of persons who opted out: no reply is handed out that was made under another.
    """

    def __init__(self, folder: Path, run: str, listed: str = "") -> None:
        self.listed = listed
        self.folder = folder / hashlib.sha256(run.encode()).hexdigest()[:16]

    def load(self, name: str, before: int) -> dict[str, np.ndarray] | None:
        """Arrays saved under `name` in the latest round earlier than `before`; None if there never were any.

        Raises Refusal where they were dropped since: to begin anew would give other weights without a word.
        """
        rounds = [number for number in self._rounds(name) if number < before]
        if not rounds and self._dropped(name).exists():
            raise Refusal(Fault.GONE, f"no '{name}' of before round {before + 1} is kept")
        return load_file(self._path(name, max(rounds)))[0] if rounds else None

    def version(self, name: str, before: int) -> int | None:
        """The latest round earlier than `before` in which arrays were saved under `name`; None if there is none."""
        return max((number for number in self._rounds(name) if number < before), default=None)

    def save(self, name: str, round: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under `name` for this round; later rounds go, and old ones before it (`expired`)."""
        write_atomic(self._path(name, round), parts(arrays, {}), PRIVATE)
        rounds = sorted(self._rounds(name))
        for later in (number for number in rounds if number > round):
            self._path(name, later).unlink()
        if gone := expired([self._path(name, number) for number in rounds if number <= round]):
            write_atomic(self._dropped(name), b"", PRIVATE)
            for path in gone:
                path.unlink()

    def answered(self, task: Task, policy: Policy) -> Reply | None:
        """The reply that left for this task under this very policy, if there is one; None under any other."""
        path = self._reply(task, policy)
        return unpack_reply(mapped(path)) if path.exists() else None

    def has_fit(self, digest: str, policy: Policy) -> bool | None:
        """Whether the fit of this digest was answered under this very policy; None where it was under no policy."""
        if self._kept(digest, "replies", policy).exists():
            return True
        return False if any((self.folder / "replies").glob(f"{digest}.*")) else None

    def keep_reply(self, task: Task, reply: Reply, policy: Policy) -> None:
        """Keep a reply as it leaves, with the policy that it was made under, and drop old ones (`expired`)."""
        path = self._reply(task, policy)
        write_atomic(path, reply_parts(reply), PRIVATE)
        for old in expired(sorted(path.parent.glob("*.safetensors"), key=lambda each: each.stat().st_mtime_ns)):
            old.unlink()

    def _reply(self, task: Task, policy: Policy) -> Path:
        """The file of a task's reply; scores and sums are apart, or they would outnumber and drop the fits'."""
        return self._kept(task.digest, {"fit": "replies", "evaluate": "scores"}.get(task.step, "sums"), policy)

    def _kept(self, digest: str, kind: str, policy: Policy) -> Path:
        return self.folder / kind / f"{digest}.{policy.digest[:16]}{self.listed[:16]}.safetensors"

    def _dropped(self, name: str) -> Path:
        """A mark that versions of this name were dropped because newer ones are there."""
        return self.folder / f"{name}.dropped"

    def _path(self, name: str, round: int) -> Path:
        return self.folder / f"{name}.{round:06d}.safetensors"

    def _rounds(self, name: str) -> list[int]:
        return [int(path.name.split(".")[1]) for path in self.folder.glob(f"{name}.*.safetensors")]


def expired(versions: list[Path]) -> list[Path]:
    """Which versions of a file, from the oldest to the newest, are dropped: all but the last two and young ones."""
    now = time.time()
    return [
        path
        for place, path in enumerate(reversed(versions))
        if place >= KEPT and (place >= RECENT or now - path.stat().st_mtime > YOUNG)
    ]
