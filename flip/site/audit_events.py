"""Which audit events of a site's process no study needs: what it may write, load and reach, by the site's own file."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip.config.schema import SIMULATED
from flip.site.admission import Place

Arguments = tuple[Any, ...]  # of an event, as Python gives them
PATHS = {
    "os.chmod": 1, "os.chown": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1,
    "os.symlink": 2, "os.truncate": 1, "os.utime": 1, "os.setxattr": 1, "os.removexattr": 1,
}  # fmt: skip
"""Events that change files, with the number of paths that they begin with."""
PROCESSES = (
    "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "pty.spawn",
)  # fmt: skip
DECODER = [sys.executable, "-P", "-m", "datamodules.dicom.decoder"]  # the engine's own: what may crash decodes there
NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
SOCKETS = ("socket.connect", "socket.sendto", "socket.sendmsg")
WATCHED = frozenset({*PATHS, *PROCESSES, *NAMES, *SOCKETS, "open", "ctypes.dlopen", "pickle.find_class",
                     "socket.bind"})  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEVICES = ("/dev/null", "/dev/shm", "/dev/nvidia", "/proc/self/")  # torch's shared memory lies in /dev/shm
UNPICKLED = ("torch", "numpy", "collections", "multiprocessing", "datamodules.")  # between a loader and its workers
REBUILDS = ("rebuild_", "_rebuild_", "_reconstruct")  # what such a value is made by, where it is no class


@dataclass
class Guard:
    """What is allowed while one study runs, and what it tried besides.

    Attributes:
        folders: where files may be written, with all links resolved.
        hosts: the servers of the site's own sources, and their ports (0: any, where the file names none).
        tried: what was refused, in words for the site's log.
    """

    folders: tuple[str, ...]
    hosts: frozenset[tuple[str, int]] = frozenset()
    tried: list[str] = field(default_factory=list)


def guard_of(place: Place) -> Guard:
    """What is allowed at a site while it runs a study."""
    return Guard(folders_of(place), frozenset(hosts_of(place.site.sources)))


def folders_of(place: Place) -> tuple[str, ...]:
    """Where the site itself writes: its home, its caches, temporary files; simulated, also its generated cohort."""
    own = [str(place.home), tempfile.gettempdir(), place.site.cache.folder or "", *cache_folders(place)]
    secret = place.site.secret
    own += [str(Path(secret).parent)] if secret and secret != SIMULATED else []
    own += [] if place.deployed else [place.site.root]
    return tuple(os.path.realpath(each) for each in own if each)


def cache_folders(place: Place) -> Iterator[str]:
    """The folders in which the sources of the site's file keep what they fetched."""
    for source in place.site.sources.values():
        for name, value in source.items() if isinstance(source, Mapping) else ():
            if "cache" in str(name) and isinstance(value, str):
                yield os.path.join(place.site.root, value)


def hosts_of(value: object) -> Iterator[tuple[str, int]]:
    """Each server that the sources of a site's file name: `host` and `port`, or an address such as https://pacs."""
    from urllib.parse import urlsplit

    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        yield parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    elif isinstance(value, Mapping):
        if isinstance(value.get("host"), str):
            yield value["host"], int(value.get("port") or 0)
        for each in value.values():
            yield from hosts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from hosts_of(each)


def problem_of(event: str, args: Arguments, guard: Guard) -> str:
    """What is wrong with an event; empty where nothing is."""
    if event == "open":
        path, mode, flags = args
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITES)
        return f"writes {path}" if writes and not _inside(path, guard) else ""
    if event in PATHS:
        folder = args[-1] if isinstance(args[-1], int) else -1
        outside = [path for path in args[: PATHS[event]] if not _inside(path, guard, folder)]
        return f"{event} {outside[0]}" if outside else ""
    if event in PROCESSES:
        if event == "subprocess.Popen" and list(args[1]) == DECODER:
            return ""
        return f"starts a process ({event}: {args[0]!r})"
    if event == "pickle.find_class":
        module, name = args
        made = getattr(sys.modules.get(module), name, None)
        plain = isinstance(made, type) or (made is not None and not callable(made)) or name.startswith(REBUILDS)
        return "" if plain and module.startswith(UNPICKLED) else f"unpickles {module}.{name}"
    if event == "ctypes.dlopen":
        return "" if _of_the_machine(args[0]) else f"loads the library {args[0]}"
    return _outward(event, args, guard)


def _inside(path: object, guard: Guard, folder: int = -1) -> bool:
    """Whether a path lies in a folder that the site writes to; an open file was judged when it was opened."""
    if isinstance(path, int) or path is None:
        return True
    text = os.fsdecode(path)  # type: ignore[arg-type]
    if folder >= 0 and not os.path.isabs(text):
        text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    head, tail = os.path.split(os.path.abspath(text))
    real = os.path.join(os.path.realpath(head), tail)
    link = os.path.realpath(real)
    return all(
        each.startswith(DEVICES) or any(each == own or each.startswith(own + os.sep) for own in guard.folders)
        for each in (real, link)
    )


def _of_the_machine(name: object) -> bool:
    """Whether a shared library is one of the system or of Python's installed packages, not a file named elsewhere."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    if os.sep not in text:
        return True
    homes = {os.path.realpath(each) for each in (sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", *sys.path[1:])}
    real = os.path.realpath(text)
    return any(each != os.sep and real.startswith(each + os.sep) for each in homes)


def _outward(event: str, args: Arguments, guard: Guard) -> str:
    """Why a name is not looked up, a port not opened or a peer not reached; empty for the site's own sources."""
    if event in NAMES:
        return "" if args[0] is None or any(args[0] == host for host, _ in guard.hosts) else f"looks up {args[0]}"
    address = args[1] if len(args) > 1 else None
    if event == "socket.bind":
        probe = isinstance(address, tuple) and address[:2] in (("::1", 0), ("127.0.0.1", 0))  # urllib3: is there IPv6?
        return "" if guard.hosts or probe or not isinstance(address, tuple) else f"opens a port at {address}"
    if isinstance(address, str | bytes):
        return "" if _inside(address, guard) else f"{event} {address!r}"
    if not isinstance(address, tuple):
        return "" if address is None else f"{event} {address!r}"
    return "" if _known(str(address[0]), int(address[1]), guard) else f"{event} {address[0]}:{address[1]}"


def _known(host: str, port: int, guard: Guard) -> bool:
    """Whether a peer is a server of the site's own sources, by its name or one of its addresses."""
    import socket

    for name, own in guard.hosts:
        if own in (0, port):
            if host == name:
                return True
            try:
                found = {each[4][0] for each in socket.getaddrinfo(name, port, proto=socket.IPPROTO_TCP)}
            except OSError:
                continue
            if host in found:
                return True
    return False
