"""The cache of fetched studies: shared by processes, safe to interrupt, bounded."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from datamodules.sources.cache import ABANDONED, IN_USE, StudyCache

SPAWN = multiprocessing.get_context("spawn")


def three(save):
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        save(name, b"x" * 100)


def never(_save):
    raise AssertionError("fetched again")


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def fetch_and_hang(folder: Path) -> None:
    """Store a part of an entry, say so, and wait to be killed."""

    def part(save):
        save("a.dcm", b"x" * 100)
        save("b.dcm", b"x" * 100)
        (folder / "ready").touch()
        signal.pause()

    StudyCache(folder, 1).get("study", part)


def fetch_counted(folder: Path) -> None:
    def counted(save):
        with (folder / "fetches").open("a") as file:
            file.write("x")
        three(save)

    assert names(StudyCache(folder, 1).get("study", counted)) == ["a.dcm", "b.dcm", "c.dcm"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_entry_is_fetched_once_and_found_again(tmp_path):
    folder = StudyCache(tmp_path, 1).get("study", three)
    assert names(folder) == ["a.dcm", "b.dcm", "c.dcm"]
    assert StudyCache(tmp_path, 1).get("study", never) == folder


def test_processes_that_want_the_same_entry_fetch_it_once(tmp_path):
    processes = [SPAWN.Process(target=fetch_counted, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert (tmp_path / "fetches").read_text() == "x"


def test_a_fetch_that_is_killed_leaves_nothing_that_counts_as_complete(tmp_path):
    process = SPAWN.Process(target=fetch_and_hang, args=(tmp_path,))
    process.start()
    wait_for(tmp_path / "ready")
    os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    assert len(list(tmp_path.glob("*.partial/files/*"))) == 2
    assert names(StudyCache(tmp_path, 1).get("study", three)) == ["a.dcm", "b.dcm", "c.dcm"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_fetch_that_fails_leaves_nothing(tmp_path):
    def failing(save):
        save("a.dcm", b"x")
        raise ConnectionError("the PACS went away")

    with pytest.raises(ConnectionError):
        StudyCache(tmp_path, 1).get("study", failing)
    assert names(tmp_path) == ["locks"]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x")])
def test_an_entry_that_lost_a_file_or_a_part_of_one_is_fetched_again(tmp_path, damage):
    damage(StudyCache(tmp_path, 1).get("study", three) / "b.dcm")
    assert names(StudyCache(tmp_path, 1).get("study", three)) == ["a.dcm", "b.dcm", "c.dcm"]


def test_the_entry_that_was_opened_longest_ago_makes_room(tmp_path):
    cache = StudyCache(tmp_path, 750e-9)  # two entries of 300 bytes
    first, second = cache.get("1", three), cache.get("2", three)
    for age, entry in ((3, second), (2, first)):
        os.utime(entry.parent, (time.time() - age * IN_USE,) * 2)
    third = cache.get("3", three)
    assert first.is_dir() and third.is_dir() and not second.exists()


def test_what_a_killed_fetch_left_long_ago_is_removed(tmp_path):
    cache, left = StudyCache(tmp_path, 1), tmp_path / "0123.partial"
    (left / "files").mkdir(parents=True)
    cache.get("young", three)
    assert left.exists()  # somebody may be fetching it
    os.utime(left / "files", (time.time() - ABANDONED - 1,) * 2)
    cache.get("old", three)
    assert not left.exists()


def test_an_entry_that_may_be_in_use_is_kept(tmp_path):
    cache = StudyCache(tmp_path, 500e-9)
    first = cache.get("1", three)
    with pytest.raises(ValueError, match="full of studies in use: raise `cache_gb`"):
        cache.get("2", three)
    assert names(first) == ["a.dcm", "b.dcm", "c.dcm"]


def test_no_name_of_an_entry_stands_in_the_file_system_and_nobody_else_reads_it(tmp_path):
    folder = StudyCache(tmp_path / "cache", 1).get("ACCESSION-17", three)
    assert "ACCESSION" not in str(folder)
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
