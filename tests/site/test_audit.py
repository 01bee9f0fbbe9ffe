"""The second lock: what no study needs is refused in a site's process, whatever code the study names."""

import ctypes
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from flip.config.schema import Site
from flip.messages import Fault
from flip.site.admission import Place
from flip.site.audit import Forbidden, guarded
from flip.site.refusal import Refusal


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A deployed site whose home and temporary folder lie beside what is not the site's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "others.txt").write_text("another's")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    source = {"_target_": "datamodules.sources.dimse.DIMSE", "host": "127.0.0.1", "port": 4242, "cache": "pacs"}
    site = Site(root=str(tmp_path / "data"), policy={"minimum_persons": 1, "minimum_cell": 1})
    return Place("north", replace(site, sources={"images": source}), tmp_path / "home", deployed=True)


def listener() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    return server


def in_a_thread(work: Callable[[], object]) -> None:
    """Run it in a new thread, and raise here what it raised there."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed to the caller
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "a connection": lambda at: socket.create_connection(("127.0.0.1", 9)),
    "a name": lambda at: socket.getaddrinfo("example.org", 80),
    "a datagram": lambda at: socket.socket(type=socket.SOCK_DGRAM).sendto(b"row", ("127.0.0.1", 9)),
    "a local socket": lambda at: socket.socket(socket.AF_UNIX).connect("/run/docker.sock"),
    "a process": lambda at: subprocess.run([sys.executable, "-c", ""], check=False),
    "a shell": lambda at: os.system("true"),  # noqa: S605
    "posix_spawn": lambda at: os.posix_spawn("/bin/true", ["true"], {}),
    "exec": lambda at: os.execv("/bin/true", ["true"]),
    "a removed file": lambda at: (at / "others.txt").unlink(),
    "a removed folder": lambda at: (at / "data").rmdir(),
    "a moved file": lambda at: (at / "others.txt").rename(at / "home" / "mine.txt"),
    "a new folder": lambda at: (at / "new").mkdir(),
    "another's mode": lambda at: (at / "others.txt").chmod(0o777),
    "a link": lambda at: (at / "link").symlink_to(at / "home"),
    "a hard link": lambda at: os.link(at / "home", at / "hard"),
    "an open for writing": lambda at: (at / "others.txt").open("a"),
    "an open by flags": lambda at: os.open(at / "new.txt", os.O_WRONLY | os.O_CREAT),
    "a site's own data": lambda at: (at / "data" / "cohort.csv").write_text(""),
    "a truncated file": lambda at: os.truncate(at / "others.txt", 0),
    "a file relative to a folder": lambda at: os.unlink("others.txt", dir_fd=os.open(at, os.O_RDONLY)),
    "out by a link": lambda at: (at / "home" / "out").write_text(""),
    "a library by its path": lambda at: ctypes.CDLL(str(at / "others.txt")),
    "an unpickled function": lambda at: pickle.loads(b"cposix\nsystem\n."),  # noqa: S301
    "a thread": lambda at: in_a_thread(lambda: (at / "others.txt").unlink()),
    "a thread of a thread": lambda at: in_a_thread(lambda: in_a_thread(lambda: (at / "others.txt").unlink())),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_what_no_study_needs_is_refused_and_not_done(name: str, place: Place, tmp_path: Path) -> None:
    (place.home / "out").symlink_to(tmp_path / "elsewhere.txt")
    before = sorted((str(each), each.lstat().st_mode, each.lstat().st_size) for each in tmp_path.rglob("*"))
    with pytest.raises(Refusal) as refused, guarded(place) as guard:
        ATTEMPTS[name](tmp_path)
    assert refused.value.fault is Fault.REFUSED_RULE
    assert len(guard.tried) == 1
    after = sorted((str(each), each.lstat().st_mode, each.lstat().st_size) for each in tmp_path.rglob("*"))
    assert after == before


def fetched(place: Place) -> None:
    folder = Path(place.site.root) / "pacs"
    folder.mkdir()
    (folder / "study").write_text("")


def shared(place: Place) -> None:
    import torch

    torch.zeros(3).share_memory_()


def decoded(place: Place) -> None:
    from datamodules.dicom.decoder import _start

    child = _start()
    child.kill()
    child.communicate()


NEEDED: dict[str, Callable[[Place], object]] = {
    "its home": lambda place: (place.home / "state").mkdir(),
    "temporary files": lambda place: __import__("tempfile").TemporaryDirectory().cleanup(),
    "its cache": fetched,
    "nothing": lambda place: Path(os.devnull).write_text(""),
    "memory for workers": shared,
    "the process that decodes images": decoded,
    "reading": lambda place: Path(__file__).read_text(),
    "libraries of the machine": lambda place: ctypes.CDLL(None),
}


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_site_needs_itself_goes_on(name: str, place: Place) -> None:
    import torch  # noqa: F401  # before: what its import does is no study's

    with guarded(place) as guard:
        NEEDED[name](place)
    assert guard.tried == []


LOADED = """
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from flip.config.schema import Site
from flip.site.admission import Place
from flip.site.audit import guarded

home = Path(sys.argv[1])
site = Site(root=str(home), policy={"minimum_persons": 2, "minimum_cell": 1})
with guarded(Place("north", site, home, deployed=True)) as guard:
    rows = DataLoader(range(4), num_workers=1, batch_size=2)
    assert torch.equal(torch.cat(list(rows)), torch.arange(4))
assert guard.tried == []
"""


@pytest.mark.slow
def test_a_loaders_worker_goes_on(tmp_path: Path) -> None:
    # In a process of its own, as a site is: the worker is forked, and what other tests left running here could hold it.
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_servers_of_the_sites_own_sources_are_reached_at_their_port_alone(place: Place) -> None:
    with listener() as open_port:
        port = open_port.getsockname()[1]
        sources = {"images": {"host": "localhost", "port": port}}
        known = replace(place, site=replace(place.site, sources=sources))
        with guarded(known) as guard:
            socket.create_connection(("localhost", port)).close()
        assert guard.tried == []
        with pytest.raises(Refusal), guarded(place):
            socket.create_connection(("127.0.0.1", port)).close()


def test_the_backends_own_threads_go_on(place: Place, tmp_path: Path) -> None:
    asked, done = threading.Event(), threading.Event()

    def backend() -> None:
        asked.wait(10)
        (tmp_path / "backend.txt").write_text("")
        done.set()

    thread = threading.Thread(target=backend)
    thread.start()
    with guarded(place) as guard:
        asked.set()
        assert done.wait(10)
    thread.join()
    assert guard.tried == []


def taken_for_another(at: Path) -> None:
    try:
        (at / "new").mkdir()
    except OSError as error:
        raise ValueError("another") from error


def test_an_attempt_that_the_studys_code_takes_for_another_error_is_a_refusal(place: Place, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match=r"os\.mkdir"), guarded(place):
        taken_for_another(tmp_path)


def test_what_asks_first_goes_on_without_it(place: Place, tmp_path: Path) -> None:
    with guarded(place) as guard, suppress(PermissionError):
        (tmp_path / "cache").mkdir()
    assert len(guard.tried) == 1
    assert f"was kept from this, and went on: os.mkdir {tmp_path / 'cache'}" in (place.home / "site.log").read_text()


def test_nothing_is_refused_once_the_study_has_run(place: Place, tmp_path: Path) -> None:
    with guarded(place):
        pass
    (tmp_path / "new").mkdir()


def test_a_site_without_a_pacs_opens_no_port(place: Place) -> None:
    plain = replace(place, site=replace(place.site, sources={}))
    with pytest.raises(Refusal), guarded(plain):
        socket.socket().bind(("0.0.0.0", 0))
