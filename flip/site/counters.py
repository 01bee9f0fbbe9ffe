"""How often a site was asked what: files that only grow, kept through crashes and safe under several processes."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from flip.files import write_whole
from flip.site.state import PRIVATE


@dataclass(frozen=True)
class Counter:
    """The questions that were asked, by slot, one line of JSON each.

    Args:
        path: the file, which is made with its first line, readable by its owner alone.
    """

    path: Path

    def take(self, slot: str, question: str, most: int) -> bool:
        """Whether a question may be asked: it was before, or its slot has room, and then it is on disk already.

        At most `most` different questions fit into a slot. Raises OSError where the disk has no room for the line.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            asked = self._asked(slot)
            if question in asked:
                return True
            if len(asked) >= most:
                return False
            # a line that a crash cut off is ended first: what it asked was not answered
            line = f"\n{json.dumps([slot, question])}\n".encode()
            write_whole(file, line, self.path)
            os.fsync(file)
            return True
        finally:
            os.close(file)

    def _asked(self, slot: str) -> set[str]:
        start = json.dumps([slot])[:-1] + ", "
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return {json.loads(line)[1] for line in lines if line.startswith(start) and line.endswith("]")}
