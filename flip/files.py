"""Files that are whole or not there, one process at a time in a folder, the configuration's place, a run's names."""

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flip.errors import UserError, disk_full

POOLED = "pooled"  # the sites together, where a site's name stands: in results, lines and folders
ALONE = "alone"  # a model that a site trained by itself: stage of its tasks, name of its baseline
FINE_TUNED = "fine_tuned"  # the final weights, trained further at each site: stage of its tasks, name of its baseline
APPLIED = "applied"  # a model that was trained elsewhere: stage of the tasks that score it
RESCALED = "rescaled"  # metrics of the same test rows scaled the other way: `test/rescaled/pooled/accuracy`
CENTRALIZED = "centralized"  # a model trained on all sites' data in one place: phase of its lines, name of its baseline
# Of run.yaml: places on the coordinator's machine, which no report or tracker shows.
MACHINE_KEYS = ("hydra", "paths", "site_file", "resume_from", "init", "model_from", "companions")
NOT_SETTINGS = (*MACHINE_KEYS, "sites", "defaults", "tracking", "allow_targets")  # of run.yaml: without effect on it


def conf_folder() -> Path:
    """The engine's own configuration: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def append_whole(path: Path, line: bytes) -> None:
    """Append a line to a file, whole or not at all. Raises OSError where the disk has no room for it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        write_whole(file, line, path)
    finally:
        os.close(file)


def write_whole(file: int, lines: bytes, path: Path) -> None:
    """The same with a file of this path that is open for appending, and no other process appends to meanwhile."""
    before = os.fstat(file).st_size
    if os.write(file, lines) < len(lines):
        os.ftruncate(file, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def make_folder(folder: Path) -> None:
    """Make a folder of runs. Raises UserError where it cannot be made, and OSError for a full disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if disk_full(error):
            raise
        raise UserError(
            f"{relative(folder)}: the folder cannot be made ({error.strerror}: {relative(Path(error.filename))}); "
            "choose another place, as with paths.runs=/scratch/runs"
        ) from error


@contextmanager
def only_process_in(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold the folder, which is made where there is none, for this process; a killed one lets go of it.

    Raises UserError where it cannot be made, or another still holds it after so many seconds.
    """
    make_folder(folder)
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


@contextmanager
def private_files() -> Iterator[None]:
    """Have every file and folder that this process makes meanwhile be its owner's alone, modes 600 and 700."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def relative(folder: Path) -> str:
    """A folder as one would type it from the working folder."""
    path = os.path.relpath(folder)
    return str(folder) if path.startswith("..") else path


def write_atomic(path: Path, content: bytes | list[Any], mode: int = 0o644) -> None:
    """Write bytes, or buffers one after the other, to a file, whole or not at all.

    It is a temporary file beside it, flushed to disk, then renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def mapped(path: Path) -> mmap.mmap:
    """A file as memory that the operating system reads when it is touched, and may take back at any time."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
