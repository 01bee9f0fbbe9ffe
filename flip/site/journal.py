"""The site's journal: every task that it was asked, and what left for it, in a file that only grows, over all runs.

It lies in the site's home. A line says that a task came, before the gate looks at it; another what came of it, before
the reply leaves: what has left is always there, and at a crash in between the last line may tell of a reply that did
not. A site that cannot write its journal refuses; that refusal alone stands in no line. Each line is sealed together
with the one before it under a key made of the site's secret, and the seal of the last goes with the reply: a line that
was changed breaks the chain, and lines that were cut off are missed by whoever kept the replies. What a crash tore off
in the middle of a line is dropped by the next one: no reply waited for it.

No row and no patient data are in it. Whose rows stood behind an answer is kept in files beside it as HMACs under the
same key, so that its owner can ask for a person, and nobody without the secret.
"""

import fcntl
import hashlib
import hmac
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from flip.config.schema import SIMULATED, Site
from flip.files import write_atomic, write_whole
from flip.messages import Fault, Reply, Task
from flip.messages.forms import is_whole
from flip.messages.wire import reply_parts
from flip.site.chain import SEAL, START, fits, read, sealed, written
from flip.site.secret import own_secret
from flip.site.state import PRIVATE, content_name
from flip.text import printable

FILE, PERSONS = "journal.jsonl", "persons"
NUMBER = "n"
TAIL = 2**16  # bytes at the file's end in which its last two lines are: a line has 8 KiB at most
REMEDY = "Put journal and secret back, or lay the journal aside: a new one begins, and kept heads tell of that"
ASKED, ANSWERED, REPEATED, REFUSED, FAILED = "asked", "answered", "repeated", "refused", "failed"
HELD, RELEASED, KEPT = "held", "released", "kept"  # an answer that waits for a person, and what that person says

Entry = dict[str, object]


class Broken(ValueError):
    """A line of the journal is not as the site wrote it.

    Args:
        line: the first such line, from 1.
        why: what is wrong with it.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


@dataclass
class Behind:
    """What a line says of an answer that its reply does not: of how many persons it is, of which cohort, how it came.

    Attributes:
        persons: distinct persons behind the numbers of the reply.
        cohort: name of the file of their HMACs; empty where the cohort was not read, or names nobody.
        repeated: the reply left before, and nothing was computed.
        held: digest of an answer that a person at the site has to release first; empty for all others.
    """

    persons: int = 0
    cohort: str = ""
    repeated: bool = True
    held: str = ""


@dataclass(frozen=True)
class Journal:
    """The journal of a site.

    Args:
        folder: the site's home.
        key: what seals its lines, and hides persons.
    """

    folder: Path
    key: bytes

    def asked(self, task: Task) -> None:
        """Write down that a task came. Raises OSError for a full disk, Broken for a journal that is not as it was."""
        self._add(described(task) | {"outcome": ASKED}, durable=False)

    def left(self, task: Task, reply: Reply, content: tuple[int, str], behind: Behind) -> Reply:
        """Write down what leaves, on the disk when this returns; the reply with the journal's head. Raises as `asked`.

        `content`: bytes and digest of the reply (`content_of`).
        """
        size, digest = content
        entry = described(task) | {"outcome": outcome_of(reply, repeated=behind.repeated)}
        entry |= {"fault": reply.fault.name if reply.fault else None, "numbers": numbers_of(reply)}
        entry |= {"persons": 0 if reply.fault or behind.repeated else behind.persons, "cohort": behind.cohort}
        entry |= {"bytes": size, "digest": digest} | ({"held": behind.held} if behind.held else {})
        return replace(reply, journal=self._add(entry, durable=True))

    def decided(self, decision: Entry, names: Collection[str], *, leaves: bool) -> None:
        """Write down what a person has said of what waits here. Raises as `asked`."""
        entry: Entry = {"time": now(), **decision, "outcome": RELEASED if leaves else KEPT, "fault": None}
        self._add(entry | {"numbers": {}, "persons": 0, "cohort": "", "bytes": 0, "by": sorted(names)}, durable=True)

    def of_persons(self, names: Collection[str]) -> str:
        """Keep whose rows a cohort has; returns the name of the file, which is of its content. Empty for nobody."""
        if not names:
            return ""
        content = "".join(f"{each}\n" for each in sorted({self.person(name) for name in names})).encode()
        path = self.folder / PERSONS / content_name(content)
        if not path.exists():
            write_atomic(path, content, PRIVATE)
        return path.name

    def person(self, name: str) -> str:
        """The HMAC that stands for a person, 64 hexadecimal digits."""
        return hmac.new(self.key, f"person\0{name}".encode(), hashlib.sha256).hexdigest()

    def cohorts_of(self, name: str) -> set[str]:
        """The names of the files that a person stands in. Raises Broken, of line 0, for a file that was changed."""
        found, wanted = set(), self.person(name)
        for path in sorted((self.folder / PERSONS).glob("*")):
            content = path.read_bytes()
            if content_name(content) != path.name:
                raise Broken(0, f"{PERSONS}/{path.name} is not as it was written")
            if wanted in content.decode().split("\n"):
                found.add(path.name)
        return found

    def entries(self) -> Iterator[Entry]:
        """Every whole line, in order. Raises Broken of the first that is not as it was written."""
        before = START
        path = self.folder / FILE
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
        for number, text in enumerate(lines, 1):
            entry = read(text)
            if entry.get(NUMBER) != number:
                raise Broken(number, f"is numbered {printable(entry.get(NUMBER))}: lines before it are gone or moved")
            if not fits(self.key, before, entry):
                raise Broken(number, "is not as it was written, or was sealed by another secret")
            before = str(entry[SEAL])
            yield entry

    def _add(self, entry: Entry, *, durable: bool) -> str:
        """Append a line; the head of the journal after it, `number:seal`."""
        with self._held() as file:
            number, seal = self._last(file)
            line = sealed(self.key, seal, {NUMBER: number + 1, **entry})
            write_whole(file, written(line), self.folder / FILE)
            if durable:
                os.fsync(file)
            return f"{number + 1}:{line[SEAL]}"

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The file, for this process alone; made where there is none."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        file = os.open(self.folder / FILE, flags, PRIVATE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _last(self, file: int) -> tuple[int, str]:
        """Number and seal of the last whole line; what is behind it is cut off. Raises Broken where it does not fit."""
        size = os.fstat(file).st_size
        start = max(size - TAIL, 0)
        *whole, rest = os.pread(file, size - start, start).split(b"\n")
        if rest:  # torn by a crash: no reply waited for it
            os.ftruncate(file, size - len(rest))
        if not whole:
            return 0, START
        last = read(whole[-1].decode("utf-8", "replace"))
        number = last.get(NUMBER)
        before = str(read(whole[-2].decode("utf-8", "replace")).get(SEAL)) if len(whole) > 1 else START
        if not (is_whole(number) and isinstance(number, int) and fits(self.key, before, last)):
            raise Broken(number if isinstance(number, int) else 0, f"the last line is not as it was written. {REMEDY}")
        return number, str(last[SEAL])


def journal_of(name: str, site: Site, home: Path) -> Journal:
    """The journal of a site under its secret; in a simulation, which hides nothing, under its name.

    Raises PermissionError or ValueError for a secret that is not as it must be.
    """
    secret = f"simulated: {name}".encode() if site.secret == SIMULATED else own_secret(site, home)
    return Journal(home, hmac.new(secret, b"journal", hashlib.sha256).digest())


def now() -> str:
    """The time of a line, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def described(task: Task) -> Entry:
    """What a line says of a task, whatever its fields are: they come from elsewhere."""
    return {
        "time": now(),
        "run": printable(task.run),
        "study": hashlib.sha256(str(task.manifest).encode("utf-8", "replace")).hexdigest(),
        "step": printable(task.step),
        "stage": printable(task.stage),
        "round": task.round if is_whole(task.round) else printable(task.round),
        "task": task.digest,
    }


def outcome_of(reply: Reply, *, repeated: bool) -> str:
    """How a task ended."""
    if reply.fault is not None:
        return HELD if reply.fault is Fault.HELD else REFUSED if reply.fault.refused else FAILED
    return REPEATED if repeated else ANSWERED


def content_of(reply: Reply) -> tuple[int, str]:
    """Bytes of a reply as it is packed, and their sha256; without its seconds, and without the journal's own head.

    Raises LookupError, TypeError, ValueError or AttributeError for a reply that cannot be packed.
    """
    total, size = hashlib.sha256(), 0
    for part in reply_parts(replace(reply, seconds=0.0, journal="")):
        flat = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1)
        size += flat.nbytes
        total.update(flat.view(np.uint8).data)
    return size, total.hexdigest()


def numbers_of(reply: Reply) -> Mapping[str, int]:
    """How many numbers left, by kind: only kinds of which some did."""
    summaries: Sequence[int] = [each.values.size for named in reply.summaries.values() for each in named.values()]
    weights, state = (sum(array.size for array in each.values()) for each in (reply.weights, reply.state))
    found = {"weights": weights, "state": state, "metrics": len(reply.metrics), "summaries": sum(summaries)}
    return {kind: number for kind, number in found.items() if number}
