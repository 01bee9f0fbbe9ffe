"""The loop's end of the bridge to a backend's server, against a far end that the test holds."""

import json
import os
import subprocess
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer

import pytest

from flip.errors import StudyFailed
from flip.federation.nvflare.bridge import Link, bound
from flip.messages import Fault

TASK = Path("/task")
CLIENTS = {"guys": "site-1", "kings": "site-2", "thomas": "site-3"}


@pytest.fixture
def far() -> Iterator[Connection]:
    """The far end; `link(far)` has the near one."""
    here, there = Pipe()
    bound(here, 1.0)
    with here, there:
        NEAR[there] = here
        yield there
    del NEAR[there]


NEAR: dict[Connection, Connection] = {}


def link(far: Connection, timeout: float = 0.2, workers: int = 3) -> Link:
    return Link(NEAR[far], CLIENTS, timeout, workers)


def answer(far: Connection, number: int, client: str, blob: bytes, file: Path | None = None) -> None:
    far.send_bytes(json.dumps([number, client, None, str(file) if file else None]).encode())
    far.send_bytes(blob)


def questions(far: Connection) -> list[tuple[str, str]]:
    """What has come over the bridge so far: client and file of the task."""
    found = []
    while far.poll():
        _, client, task, _ = json.loads(far.recv_bytes())
        found.append((client, task))
    return found


def test_answers_come_as_they_arrive(far):
    answer(far, 1, "site-3", b"c")
    answer(far, 1, "site-1", b"a")
    answer(far, 1, "site-2", b"b")
    assert list(link(far).exchange(TASK, list(CLIENTS), 3)) == [("thomas", b"c"), ("guys", b"a"), ("kings", b"b")]


def test_each_client_is_told_of_the_task(far):
    list(link(far).exchange(TASK, list(CLIENTS), 3))
    assert questions(far) == [("site-1", "/task"), ("site-2", "/task"), ("site-3", "/task")]


def test_no_more_sites_than_workers_are_asked_at_once(far):
    answers = link(far).exchange(TASK, list(CLIENTS), 1)
    answer(far, 1, "site-1", b"a")
    assert next(answers) == ("guys", b"a")
    assert questions(far) == [("site-1", "/task")]
    answer(far, 1, "site-2", b"b")
    assert next(answers) == ("kings", b"b")
    assert questions(far) == [("site-2", "/task")]


def test_a_site_that_does_not_answer_has_run_out_of_time(far):
    answer(far, 1, "site-2", b"b")
    assert dict(link(far).exchange(TASK, ["guys", "kings"], 2)) == {"kings": b"b", "guys": Fault.TIMEOUT}


def test_a_late_answer_is_none_to_the_next_question(far):
    asked = link(far)
    assert dict(asked.exchange(TASK, ["guys"], 1)) == {"guys": Fault.TIMEOUT}
    answer(far, 1, "site-1", b"late")
    answer(far, 2, "site-1", b"new")
    assert dict(asked.exchange(TASK, ["guys"], 1)) == {"guys": b"new"}


def test_a_large_answer_lies_in_a_file_which_is_removed_when_it_is_late(far, tmp_path):
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    answer(far, 1, "site-1", b"", tmp_path / "one")
    asked = link(far)
    assert dict(asked.exchange(TASK, ["guys"], 1)) == {"guys": tmp_path / "one"}
    answer(far, 1, "site-1", b"", tmp_path / "two")
    assert dict(asked.exchange(TASK, ["guys"], 1)) == {"guys": Fault.TIMEOUT}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_an_answer_that_comes_twice_counts_once(far):
    for _ in range(2):
        answer(far, 1, "site-1", b"a")
    answer(far, 1, "site-2", b"b")
    assert list(link(far).exchange(TASK, ["guys", "kings"], 2)) == [("guys", b"a"), ("kings", b"b")]


def test_the_time_that_the_loop_takes_is_not_the_sites(far):
    answers = link(far, timeout=1.5).exchange(TASK, ["guys", "kings"], 2)
    answer(far, 1, "site-1", b"a")
    assert next(answers) == ("guys", b"a")
    subprocess.run(["sleep", "2"], check=True)  # the loop is busy with the first answer
    Timer(0.1, answer, [far, 1, "site-2", b"b"]).start()
    assert next(answers) == ("kings", b"b")


def test_a_client_that_failed_is_a_site_that_raised(far):
    answer(far, 1, "site-1", b"")
    assert dict(link(far).exchange(TASK, ["guys"], 1)) == {"guys": Fault.RAISED}


def test_a_client_whose_process_ends_is_a_lost_site(far):
    asked = link(far, timeout=60)
    with subprocess.Popen(["sleep", "60"]) as client:
        asked.processes["guys"] = os.pidfd_open(client.pid)
        answers = asked.exchange(TASK, ["guys", "kings"], 2)
        client.kill()
        assert next(answers) == ("guys", Fault.LOST)
        answer(far, 1, "site-2", b"b")
        assert next(answers) == ("kings", b"b")
    asked.close()


def test_without_its_server_every_site_is_lost(far):
    far.close()
    asked = link(far, timeout=60)
    for _ in range(2):
        assert dict(asked.exchange(TASK, list(CLIENTS), 3)) == dict.fromkeys(CLIENTS, Fault.LOST)


def test_a_server_that_reads_nothing_does_not_hold_the_loop(far):
    sites = ["guys"] * 10_000
    assert set(dict(link(far).exchange(TASK, sites, 10_000)).values()) == {Fault.TIMEOUT}


def test_sites_that_never_come_are_named(far):
    answer(far, 1, "site-1", str(os.getpid()).encode())
    asked = link(far)
    with pytest.raises(StudyFailed, match=r"kings, thomas within 0.2 s"):
        asked.meet(0.2)
    asked.close()
