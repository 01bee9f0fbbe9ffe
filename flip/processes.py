"""Nothing of a run is left behind: one folder for its temporary files, and an end for every process that it started.

Every process that the run starts inherits a mark in its environment; whoever has the mark, or a file of the folder
open, belongs to the run. A watcher, a process of its own, does what the run itself does at its end, should the run be
killed before it comes to that. The watcher runs this file alone: no import but the standard library's.
"""

import multiprocessing
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "FLIP_RUN_MARK"
GRACE = 10.0  # seconds that killed processes have to be gone
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


@contextmanager
def nothing_left() -> Iterator[Path]:
    """Give the block a folder for temporary files; afterwards end what it started, and remove the folder.

    A signal that comes while this is done waits. The same happens when this process is killed. The folder has a short
    name, since Ray's sockets lie in it, whose paths hold 107 bytes; it lies where temporary files of this process
    otherwise would (TMPDIR, or /tmp).
    """
    from flip.signals import deferred  # not at the top: the watcher finds no package

    outside = os.path.dirname(os.environ["TMPDIR"]) if MARK in os.environ else None  # of the block around this one
    mark, folder = secrets.token_hex(16), Path(tempfile.mkdtemp(prefix="flip-", dir=outside))
    before = dict(os.environ), tempfile.tempdir
    with watcher(mark, folder):
        os.environ |= {MARK: mark, "TMPDIR": str(folder)}
        tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            with deferred():
                tempfile.tempdir = before[1]
                forget(folder, before[0])
                multiprocessing.current_process()._config["tempdir"] = None  # type: ignore[attr-defined] # it lay in ours
                clear(mark, folder)


def forget(folder: Path, before: Mapping[str, str]) -> None:
    """Take out of the environment what names a folder: its own marks, and what libraries note of their files in it."""
    for name in [MARK, *(each for each, value in os.environ.items() if str(folder) in value)]:
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


@contextmanager
def watcher(mark: str, folder: Path) -> Iterator[None]:
    """Start the watcher, and end it after the block. It has no mark and no place in the folder, nor in our session."""
    here = os.pidfd_open(os.getpid())
    try:
        watching = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", __file__, str(here), mark, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            pass_fds=[here],
            start_new_session=True,
        )
    finally:
        os.close(here)
    try:
        yield
    finally:
        watching.kill()
        watching.wait()


def watch(process: int, mark: str, folder: Path) -> None:
    """Wait for the end of a process, given by a descriptor, and clear up after it."""
    select.select([process], [], [])
    clear(mark, folder)


def clear(mark: str, folder: Path) -> None:
    """Kill what belongs to a run until nothing is found twice, as one may just have started another; then the files."""
    deadline, quiet, since = time.monotonic() + GRACE, 0, began(os.getpid())
    while quiet < 2 and time.monotonic() < deadline:
        others = [each for each in running() if each != os.getpid() and began(each) >= since]  # older is no run's own
        found = [process for process in others if kill(process, mark, folder)]
        quiet = 0 if found else quiet + 1
        if found:
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def end(title: str) -> None:
    """Kill those processes of the innermost block whose command line is this title."""
    mark, folder = os.environ[MARK], Path(os.environ["TMPDIR"])
    for process in running():
        if command(process) == title:
            kill(process, mark, folder)


def kill(process: int, mark: str, folder: Path) -> bool:
    """Kill a process if it belongs to a run; returns whether it does."""
    try:
        descriptor = os.pidfd_open(process)  # from here on the number means this process, or none
    except OSError:
        return False
    try:
        found = belongs(process, mark, folder)
        if found:
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return found
    finally:
        os.close(descriptor)


def belongs(process: int, mark: str, folder: Path) -> bool:
    """Whether a process was started with the mark, or has a file of the folder open (Ray's overwrite their marks)."""
    return has_variable(process, MARK, mark) or any(file.startswith(f"{folder}{os.sep}") for file in held(process))


def has_variable(process: int, name: str, value: str) -> bool:
    """Whether a process was started with a variable of this value in its environment."""
    with suppress(OSError):  # it has ended, or is another user's
        return f"{name}={value}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return False


def held(process: int) -> Iterator[str]:
    """What a process holds open: paths of files, and words such as `socket:[4711]`."""
    with suppress(OSError):  # it has ended, or is another user's
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):  # closed since
                yield os.readlink(file)


def command(process: int) -> str:
    """The command line of a process, its words apart by spaces; empty for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    return ""


def stat_fields(process: int) -> list[str]:
    """The fields of /proc/<process>/stat after the name, state and parent first (proc(5) from 3). Raises OSError."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def began(process: int) -> int:
    """When a process was started, in clock ticks since the machine was; 0 for one that has ended."""
    with suppress(OSError, IndexError):
        return int(stat_fields(process)[19])
    return 0


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for process in running():
        with suppress(OSError, IndexError):  # it has ended
            found[process] = int(stat_fields(process)[1])
    return found


def descendants(process: int) -> set[int]:
    """The processes that came of one: its children, theirs, and so on."""
    known, found = parents(), {process}
    while more := {child for child, parent in known.items() if parent in found} - found:
        found |= more
    return found - {process}


@contextmanager
def every(seconds: float, look: Callable[[], object]) -> Iterator[None]:
    """Call something again and again during the block, so many seconds apart, in a thread of its own."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, as only Linux has it. Raises OSError."""
    import ctypes  # the watcher has no use for it

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it has ended, in the midst of a fit too."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:  # it ended before the kernel was told
        os._exit(1)


def running() -> list[int]:
    """The numbers of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
