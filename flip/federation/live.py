"""A live federation: the loop runs in the backend's server, and the command line follows it and brings its folder home.

What a site and a server hold of the code is installed there; what travels is a `Job`.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flip.federation import Ask

if TYPE_CHECKING:
    from flip.run_folder import Listener

LOOK = 0.2  # seconds between looks at the lines that have come


@dataclass(frozen=True)
class Job:
    """What the server's app gets of a study; no folder and no site's file stands in it.

    Attributes:
        run: identifier of the run, kept when it is resumed.
        manifest: the study as canonical JSON.
        trains: by site, whether it trains or is only tested on.
        alone: also train each site by itself, for comparison.
        timeout: seconds that one task may take at the slowest site.
        job: train, check or statistics (`flip.config.Job`).
    """

    run: str
    manifest: str
    trains: Mapping[str, bool]
    alone: bool
    timeout: float
    job: str = "train"

    def to_json(self) -> str:
        """The job as one string."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The inverse. Raises ValueError for anything else."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError("not a job") from error


class LiveTransport(Protocol):
    """A federation backend whose server runs the loop."""

    def submit(self, job: Job, folder: Path) -> None:
        """Have the server run the job; when this returns, what `serve` wrote there is in `folder`.

        An earlier part of the same run that the server still runs is stopped first; then the lines of rounds that were
        not completed are dropped. While the job runs, whole lines of `rounds.jsonl` come home as they are written.
        What `folder` holds of an earlier part (`state/round.safetensors`, `rounds.jsonl`, `cohort.json`) is at the
        server when it begins. Raises StudyFailed, with the remedy, when the server has no result to give. An interrupt
        stops the job.
        """
        ...


def serve(job: Job, folder: Path, ask: Ask) -> None:
    """At the server: run the study into `folder`, from its last complete round where it holds one.

    A study that fails, or that names code which this server does not have or does not allow, says so in `result.json`.
    """
    from flip.coordinating import Ending, coordinator, no_result, program
    from flip.run_folder import RunFolder
    from flip.silo import configure_torch

    started, manifest, files = time.perf_counter(), json.loads(job.manifest), RunFolder(folder, [])
    if refused := unfit(manifest):
        files.json("result.json", no_result(refused, 0.0))
        return
    configure_torch(int(manifest["trainer"]["threads"]))
    loop = coordinator(job.run, manifest, text=job.manifest, trains=job.trains, files=files, alone=job.alone)
    Ending(files, loop, lambda: program(job.job, loop)(ask), "RUN").reach(started)


def unfit(manifest: Mapping[str, Any]) -> str:
    """Why this server does not run a study: code that it does not allow, or of another version; empty if it does."""
    from flip.targets import STUDY_TARGETS, code_digest, refusal, targets

    named = targets(manifest)
    if refused := sorted(target for target in named if refusal(target, STUDY_TARGETS) is not None):
        return f"the study names {refused[0]}, which the server does not allow"
    if manifest["code"] != code_digest(named):
        return "the server has another version of the engine or of the study's code; install the same on both"
    return ""


@contextmanager
def followed(folder: Path, listeners: "Sequence[Listener]") -> Iterator[None]:
    """Tell the listeners of every line that comes into `rounds.jsonl` during the block."""
    from flip.run_folder import LINES

    path, over = folder / LINES, threading.Event()
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

    def watch() -> None:
        while not over.wait(LOOK):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell()


def is_live(federation: Mapping[str, Any]) -> bool:
    """Whether these settings name a backend whose server runs the loop: its sites hold their own files."""
    from flip.targets import TARGET, TargetError, resolve

    target = federation.get(TARGET)
    if not isinstance(target, str) or not target.startswith("flip.federation."):
        return False
    try:
        return hasattr(resolve(target), "submit")
    except TargetError:
        return False  # `checking.check` names the mistake
