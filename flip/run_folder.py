"""The folder of a run: what is written when, each file whole or not at all."""

import errno
import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from flip.errors import UserError
from flip.federation import Payload, Summary
from flip.federation.record import Progress
from flip.federation.wire import join, take
from flip.weights import load_file, save_file, write_atomic

LINES, COHORT, DESCRIPTION = "rounds.jsonl", "cohort.json", "description.json"
PROGRESS = Path("state") / "round.safetensors"
RESERVE = Path("state") / "reserve"
RESERVED = 4 * 2**20  # bytes: the result, the report and the end of the log of a large study
ROUND_PHASES = ("fit", "validate")
PACKAGES = (
    "flip-engine", "torch", "pytorch-lightning", "monai", "torchmetrics", "opacus", "numpy", "pydicom", "hydra-core",
    "flwr", "nvflare",
)  # fmt: skip


class Listener(Protocol):
    """Who is told of every line as it is written: the display and the trackers."""

    def line(self, record: Mapping[str, Any]) -> None:
        """One line of `rounds.jsonl`."""


class RunFolder:
    """Writes a run's folder; the coordinator's `Recorder`.

    Args:
        folder: `runs/<name>/<time>`.
        listeners: told of every line.
    """

    def __init__(self, folder: Path, listeners: Sequence[Listener]) -> None:
        self.folder, self.listeners = folder, listeners
        folder.mkdir(parents=True, exist_ok=True)

    def line(self, record: Mapping[str, Any]) -> None:
        """Append one line to `rounds.jsonl`, and tell the listeners."""
        append_whole(self.folder / LINES, (json.dumps(record) + "\n").encode())
        for listener in self.listeners:
            listener.line(record)

    def reserve(self) -> None:
        """Keep some space of the disk for the result and the report of a run that fills it. Raises OSError."""
        path = self.folder / RESERVE
        path.parent.mkdir(exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVED)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the reserved space back."""
        (self.folder / RESERVE).unlink(missing_ok=True)

    def cohort(self, cohort: Mapping[str, Any]) -> None:
        """Write `cohort.json`."""
        self.json(COHORT, cohort)

    def description(self, job: str, edges: Payload, found: Mapping[str, Mapping[str, Summary]]) -> None:
        """Write `description.json`."""
        bins = {name: array.tolist() for name, array in edges.items()}
        self.json(DESCRIPTION, {"job": job, "edges": bins, "sites": plain_summaries(found)})

    def complete(self, progress: Progress) -> None:
        """Write what a resume needs after a round."""
        arrays = join(weights=progress.weights, state=progress.state, agreed=progress.agreed)
        head = {"round": progress.round, "best": progress.best, "privacy": progress.privacy}
        save_file(self.folder / PROGRESS, arrays, head)

    def progress(self) -> Progress | None:
        """What the last complete round left, to go on from; `rounds.jsonl` then ends with that round."""
        self.forget_unfinished()
        if self.last_round() < 0:
            return None
        arrays, head = load_file(self.folder / PROGRESS)
        weights, state, agreed = (take(arrays, group) for group in ("weights", "state", "agreed"))
        return Progress(head["round"], weights, state, agreed, head["best"], head["privacy"])

    def last_round(self) -> int:
        """The last complete round, from 0; -1 before the first."""
        path = self.folder / PROGRESS
        return int(load_file(path)[1]["round"]) if path.exists() else -1

    def forget_unfinished(self) -> None:
        """Drop the lines that the run will write again, and one that was cut off: all but those of complete rounds."""
        path, round = self.folder / LINES, self.last_round()
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        records = [(line, json.loads(line)) for line in lines if line.endswith(b"\n")]
        kept = [line for line, record in records if record["phase"] in ROUND_PHASES and record["round"] <= round]
        if len(kept) < len(lines):
            write_atomic(path, b"".join(kept))

    def result(self) -> dict[str, Any] | None:
        """What `result.json` says; None before the end of the run."""
        path = self.folder / "result.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def best(self, weights: Payload) -> None:
        """Write `weights/best.safetensors`."""
        save_file(self.folder / "weights" / "best.safetensors", weights)

    def outcomes(self, outcomes: Mapping[str, Mapping[str, Summary]]) -> None:
        """Write `outcomes.json`."""
        self.json("outcomes.json", plain_summaries(outcomes))

    def json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        write_atomic(self.folder / name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def text(self, name: str, content: str, mode: int = 0o644) -> None:
        """Write a text file with these permissions."""
        write_atomic(self.folder / name, content.encode(), mode)


def plain_summaries(by_site: Mapping[str, Mapping[str, Summary]]) -> dict[str, Any]:
    """Summaries by site and name as JSON has them."""
    return {
        site: {
            name: {"kind": s.kind.value, "values": s.values.tolist(), "persons": s.persons} for name, s in found.items()
        }
        for site, found in by_site.items()
    }


def append_whole(path: Path, line: bytes) -> None:
    """Append a line to a file, whole or not at all. Raises OSError where the disk has no room for it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(file).st_size
        if os.write(file, line) < len(line):
            os.ftruncate(file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(file)


@contextmanager
def only_process_in(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold the folder, which is made where there is none, for this process; a killed one lets go of it.

    Raises UserError where another still holds it after so many seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    text = f"{relative(folder)}: another process runs in this folder; wait for its end"
                    raise UserError(text) from error
                time.sleep(0.1)
        yield
    finally:
        os.close(held)


def provenance(study: Any, folder: Path, run: str) -> dict[str, Any]:
    """Where a run's results come from: study, code, commit, versions and hardware; nothing of a site."""
    rerun = f"python -m flip --config-dir {shlex.quote(relative(folder))} --config-name run"
    return {
        "run": run,
        "manifest_sha256": study.manifest_sha256,
        "code_sha256": study.manifest["code"],
        "git": git(Path(__file__).resolve().parents[1]),
        "versions": {"python": platform.python_version(), **installed()},
        "hardware": hardware(study.manifest["trainer"]["threads"]),
        "command": shlex.join(["python", "-m", "flip", *public_arguments(sys.argv[1:])]),
        "rerun": rerun,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": study.backend,
        "simulated": study.site_file is None,
    }


def relative(folder: Path) -> str:
    """A folder as one would type it from the working folder."""
    path = os.path.relpath(folder)
    return str(folder) if path.startswith("..") else path


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line without folders, of the sites or of this machine, and without a site's columns."""
    hidden = [
        f"{a.partition('=')[0]}=<not shown>" if a.lstrip("+").startswith(("sites.", "site_file", "paths.")) else a
        for a in arguments
    ]
    return hidden


def git(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout that the engine runs from, and whether it has changes; None outside a checkout."""
    if not (root / ".git").exists():
        return None

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = ask("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain"))} if commit else None


def installed() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(threads: int) -> dict[str, Any]:
    """Processor, cores, threads per site, and memory in GB."""
    models = [line.split(":", 1)[1].strip() for line in read_lines("/proc/cpuinfo") if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processor = models[0] if models else platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads, "memory_gb": round(pages / 1e9, 1)}


def read_lines(path: str) -> list[str]:
    """Lines of a file of the operating system; none where it has no such file."""
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
