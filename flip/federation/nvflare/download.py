"""How a run's folder is fetched from FLARE's server: what grows while the job runs, and all of it at the end.

The server is not trusted with the researcher's disk: only files of a run's folder are taken, no link is followed, and
no file is larger than `MOST`.
"""

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip.errors import StudyFailed
from flip.federation.nvflare.app import CHUNK, STATE, STUDY
from flip.files import append_whole
from flip.runs.folder import COHORT, DESCRIPTION, LINES, PLAN, RunFolder

MOST = 64 << 30  # bytes of one file; eight thousand million weights of 64 bits
WEIGHTS = ("weights/last.safetensors", "weights/best.safetensors")
WHOLE = (*WEIGHTS, "outcomes.json", COHORT, DESCRIPTION, PLAN, STATE, LINES, "result.json")  # the result is the last
Fetch = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Mirror:
    """The files of a running job that are fetched as they grow.

    Args:
        folder: the run's folder at home; what it holds of `rounds.jsonl` is how the server's begins.
    """

    folder: Path
    stamps: dict[str, str] = field(default_factory=dict)

    def look(self, fetch: Fetch) -> None:
        """Bring home what is new. A state comes whole, after the lines of its rounds, or not at all."""
        with self.whole(STATE, fetch) as state, self.whole(COHORT, fetch) as cohort:
            if cohort:
                self.keep(COHORT, *cohort)
            self.lines(fetch)
            if state:
                self.keep(STATE, *state)

    def keep(self, name: str, coming: Path, stamp: str) -> None:
        """A file has been fetched whole."""
        coming.replace(self.folder / name)
        self.stamps[name] = stamp

    @contextmanager
    def whole(self, name: str, fetch: Fetch) -> Iterator[tuple[Path, str] | None]:
        """A file that is always replaced whole, and its stamp; None if it is as it was, or changes meanwhile."""
        answer, complete = fetch({"name": name, "offset": 0}), False
        stamp = answer["stamp"]
        if not stamp or stamp == self.stamps.get(name):
            yield None
            return
        coming = (self.folder / name).with_name(f".{Path(name).name}.coming")
        coming.parent.mkdir(parents=True, exist_ok=True)
        try:
            with coming.open("wb") as file:
                while answer["stamp"] == stamp:
                    part = piece(answer)
                    file.write(part)
                    if file.tell() > MOST:
                        raise StudyFailed(f"FLARE's server sent a {name} of more than {MOST} bytes")
                    complete = file.tell() >= answer["size"]
                    if complete or not part:
                        break
                    answer = fetch({"name": name, "offset": file.tell()})
                file.flush()
                os.fsync(file.fileno())
            yield (coming, stamp) if complete else None
        finally:
            coming.unlink(missing_ok=True)

    def lines(self, fetch: Fetch) -> None:
        """The whole lines that are new in `rounds.jsonl`."""
        path = self.folder / LINES
        while True:
            here = path.stat().st_size if path.exists() else 0
            answer = fetch({"name": LINES, "offset": here})
            new = piece(answer).rpartition(b"\n")
            if not new[1]:
                return
            if here + len(new[0]) > MOST:
                raise StudyFailed(f"FLARE's server sent a {LINES} of more than {MOST} bytes")
            append_whole(path, new[0] + new[1])


def piece(answer: Mapping[str, Any]) -> bytes:
    """The bytes of one answer. Raises StudyFailed for more than was asked for."""
    data = base64.b64decode(answer["data"], validate=True)
    if len(data) > CHUNK or not 0 <= answer["size"] <= MOST:
        raise StudyFailed("FLARE's server sent more than it was asked for")
    return data


def bring_home(download: Path, folder: Path) -> None:
    """Move a run's files out of a downloaded job, the result last. Raises StudyFailed where there is no result."""
    study = study_of(download)
    try:
        if not (study / "result.json").is_file():
            raise StudyFailed(
                "the job ended without a result; its log, in the folder 'jobs' of the server's kit, has the cause"
            )
        for name in WHOLE:
            take(study, name, folder)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def take_over(download: Path, folder: Path) -> None:
    """Take the rounds that a job completed and that have not been fetched: lines first, then the state."""
    study = study_of(download)
    try:
        there, here = RunFolder(study, []), RunFolder(folder, [])
        if there.last_round() > here.last_round():
            there.forget_unfinished()
            for name in (COHORT, LINES, STATE):
                take(study, name, folder)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def study_of(download: Path) -> Path:
    """Where a run's folder lies in a job that FLARE has downloaded."""
    return download.resolve() / "workspace" / "app_server" / STUDY


def take(study: Path, name: str, folder: Path) -> None:
    """Move a file of the server's, if it is one, and no link and no folder on its way within the study is one."""
    source = study / name
    if source.resolve() != source.absolute() or not source.is_file():
        return
    if source.stat().st_size > MOST:
        raise StudyFailed(f"FLARE's server sent a {name} of more than {MOST} bytes")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, folder / name)
