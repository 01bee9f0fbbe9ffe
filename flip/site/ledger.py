"""What privacy a site has spent on its data: a file that only grows, written before the noise that it pays for.

It lies in the site's home, not in a run's state, so that a new run, study or coordinator goes on from it. Each line is
sealed together with all before it by the site's secret, and a mark beside the file tells how many there were: a file
that was changed, cut, replaced or removed is refused, and never begun anew. Nothing is given back: a fit that breaks
off after its line was written has spent what the line says, and the same fit again, with the same noise, nothing more.

What the seal cannot show is both files removed together, or put back to an earlier copy; whoever can do that is the
owner of the machine.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flip.config.schema import SIMULATED
from flip.files import write_atomic, write_whole
from flip.messages import Fault, Task
from flip.privacy import Entry
from flip.site.admission import Place
from flip.site.chain import SEAL, START, fits, read, sealed, written
from flip.site.refusal import Refusal
from flip.site.secret import site_secret
from flip.site.state import PRIVATE

FILE, MARK = "ledger.jsonl", "ledger.mark"
DATA, RUN, NOISE = "data", "run", "noise"

Permit = Callable[[list[Entry]], None]


@dataclass(frozen=True)
class Ledger:
    """The privacy ledger of one data set of a site.

    Args:
        folder: where its two files lie.
        data: name of the data set in the site's own file; empty for a site with one.
        secret: the site's secret, which seals the lines.
    """

    folder: Path
    data: str
    secret: bytes

    def entries(self) -> list[Entry]:
        """All that was ever reserved of this data set. Raises Refusal for files that are not as the site left them."""
        with self._held() as file:
            return self._own(self._read(file))

    def reserve(self, entries: Sequence[Entry], noise: str, *, run: str, permit: Permit) -> list[Entry]:
        """Write entries down before their noise is used; returns all of this data set, these included.

        An entry holds `noise_multiplier` (deviation of the noise in units of what one person changes), `sample_rate`
        (of persons, 0 to 1) and `steps`; the release of one noised number is of rate 1 and 1 step. `noise` names the
        noise: what was reserved under it is not reserved again. `permit` is given what the data set would have spent
        with them, and raises Refusal where that is too much: then nothing is written. Other processes of the site wait.

        Raises Refusal for files that are not as the site left them, OSError for a full disk.
        """
        with self._held() as file:
            lines = self._read(file)
            before = self._own(lines)
            if not entries or noise in {entry[NOISE] for entry in before}:
                return before
            whose = {RUN: run_id(run), NOISE: noise}
            added = [{**entry, **whose} for entry in entries]
            permit([*before, *added])
            self._append(file, lines, added)
            return [*before, *added]

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The file, for this process alone; it is made, and said to have been, before its first line."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, mark = self.folder / FILE, self.folder / MARK
        held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not path.exists() and not mark.exists():
                self._write_mark(0, START)
            if not path.exists() and self._marked() > 0:
                raise _touched(f"{path} is gone")
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, PRIVATE)
            try:
                yield file
            finally:
                os.close(file)
        finally:
            os.close(held)

    def _read(self, file: int) -> list[Entry]:
        """Every line of the site, each sealed as it was written; what a crash cut off before it counted is dropped."""
        size, path = os.fstat(file).st_size, self.folder / FILE
        *whole, rest = os.pread(file, size, 0).decode("utf-8", "replace").split("\n")
        marked, seal = self._marked(), START
        lines: list[Entry] = []
        for text in whole:
            line = read(text)
            if not fits(self.secret, seal, line):
                raise _touched(f"{path}, line {len(lines) + 1}, is not as it was written")
            lines.append(line)
            seal = str(line[SEAL])
        if len(lines) < marked:
            raise _touched(f"{path} has {len(lines)} lines of {marked}")
        if rest:  # the site waited for no line that is not whole
            os.ftruncate(file, size - len(rest.encode()))
        return lines

    def _own(self, lines: list[Entry]) -> list[Entry]:
        """The entries of this data set, without what only the file needs."""
        hidden = (DATA, SEAL)
        return [{k: v for k, v in line.items() if k not in hidden} for line in lines if line[DATA] == self.data]

    def _append(self, file: int, lines: list[Entry], added: Sequence[Entry]) -> None:
        """Write lines, then the mark that says that they are there; both are on the disk when this returns."""
        seal, text = str(lines[-1][SEAL]) if lines else START, b""
        for entry in added:
            line = sealed(self.secret, seal, {**entry, DATA: self.data})
            seal, text = str(line[SEAL]), text + written(line)
        write_whole(file, text, self.folder / FILE)
        os.fsync(file)
        self._write_mark(len(lines) + len(added), seal)

    def _write_mark(self, count: int, seal: str) -> None:
        mark: Entry = {"lines": count, "last": seal}
        text = json.dumps(sealed(self.secret, MARK, mark))
        write_atomic(self.folder / MARK, text.encode(), PRIVATE)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _marked(self) -> int:
        """How many lines there are at least, by the mark."""
        path = self.folder / MARK
        if not path.exists():
            raise _touched(f"{path} is gone")
        mark = read(path.read_text(encoding="utf-8", errors="replace"))
        if not fits(self.secret, MARK, mark):
            raise _touched(f"{path} is not as it was written")
        return int(mark["lines"])


def ledger_of(place: Place, task: Task) -> Ledger:
    """The ledger of a site's data; in a simulation, whose noise protects nobody, that of the run."""
    simulated = place.site.secret == SIMULATED
    folder = place.store(task.run).folder if simulated else place.home
    return Ledger(folder, place.site.cohort or "", site_secret(place.name, place.site, place.home, task))


def run_id(run: str) -> str:
    """How the ledger names a run, whose own name comes from elsewhere."""
    return hashlib.sha256(run.encode()).hexdigest()[:16]


def of_run(entries: Sequence[Entry], run: str) -> list[Entry]:
    """Those entries of a ledger that a run has reserved."""
    return [entry for entry in entries if entry[RUN] == run_id(run)]


def _touched(why: str) -> Refusal:
    return Refusal(
        Fault.REFUSED_BUDGET,
        f"the privacy ledger: {why}; put it back as it was, with the secret that sealed it (it is never begun anew)",
    )
