"""A site's privacy ledger only grows: over runs, processes and crashes, and no change of its files begins it anew."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from flip.config.schema import SIMULATED, Site
from flip.messages import Fault, Task
from flip.site.admission import Place
from flip.site.ledger import FILE, MARK, Ledger, ledger_of, of_run
from flip.site.refusal import Refusal

STEP = {"noise_multiplier": 1.0, "sample_rate": 0.25, "steps": 3.0}
SECRET = bytes(range(32))


def anything(entries: object) -> None:
    """A site without a budget."""


def filled(folder: Path, number: int = 3, data: str = "") -> Ledger:
    own = Ledger(folder, data, SECRET)
    for each in range(number):
        own.reserve([STEP], f"noise {each}", run=f"run {each}", permit=anything)
    return own


def test_what_is_reserved_is_there_for_every_run_and_process_from_then_on(tmp_path):
    filled(tmp_path)
    found = Ledger(tmp_path, "", SECRET).entries()
    assert [entry["noise"] for entry in found] == ["noise 0", "noise 1", "noise 2"]
    assert [entry["steps"] for entry in of_run(found, "run 1")] == [3.0]
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in (FILE, MARK)] == [0o600] * 2


def test_the_same_noise_is_reserved_once_and_another_of_the_same_run_again(tmp_path):
    own = filled(tmp_path)
    assert len(own.reserve([STEP], "noise 1", run="another run", permit=anything)) == 3
    assert len(own.reserve([STEP, STEP], "noise 3", run="run 1", permit=anything)) == 5


def test_what_is_beyond_the_budget_leaves_no_line(tmp_path):
    own, asked = filled(tmp_path), []

    def permit(entries: list) -> None:
        asked.append(len(entries))
        raise Refusal(Fault.REFUSED_BUDGET)

    with pytest.raises(Refusal):
        own.reserve([STEP], "noise 3", run="run 3", permit=permit)
    assert (asked, len(own.entries())) == ([4], 3)
    own.reserve([STEP], "noise 2", run="run 2", permit=permit)  # it was paid for


def test_data_sets_have_a_budget_each_in_one_file(tmp_path):
    filled(tmp_path, 2, "ct")
    other = filled(tmp_path, 3, "mri")
    assert (len(other.entries()), len(Ledger(tmp_path, "ct", SECRET).entries())) == (3, 2)
    assert Ledger(tmp_path, "", SECRET).entries() == []


def rewrite(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    """A change to the lines of the ledger."""

    def apply(folder: Path) -> None:
        lines = (folder / FILE).read_text().splitlines(keepends=True)
        (folder / FILE).write_text("".join(change(lines)))

    return apply


def earlier_mark(folder: Path) -> None:
    """Cut the file, and write the mark that its last line would have, by who does not have the secret."""
    rewrite(lambda lines: lines[:1])(folder)
    mark, line = (json.loads((folder / name).read_text()) for name in (MARK, FILE))
    (folder / MARK).write_text(json.dumps({**mark, "lines": 1, "last": line["seal"]}))


TOUCHED = {
    "a number changed": rewrite(lambda lines: [lines[0].replace("3.0", "0.0"), *lines[1:]]),
    "the last line taken": rewrite(lambda lines: lines[:-1]),
    "the first line taken": rewrite(lambda lines: lines[1:]),
    "a line taken from between": rewrite(lambda lines: [lines[0], lines[2]]),
    "the last line cut": rewrite(lambda lines: [*lines[:-1], lines[-1][:20]]),
    "lines in another order": rewrite(lambda lines: lines[::-1]),
    "a line written twice": rewrite(lambda lines: [*lines, lines[-1]]),
    "a line that is none": rewrite(lambda lines: [*lines, "[]\n"]),
    "bytes that are no text": lambda folder: (folder / FILE).write_bytes(b"\xff\xfe\n"),
    "emptied": lambda folder: (folder / FILE).write_text(""),
    "removed": lambda folder: (folder / FILE).unlink(),
    "its mark removed": lambda folder: (folder / MARK).unlink(),
    "its mark emptied": lambda folder: (folder / MARK).write_text(""),
    "cut, with its mark": earlier_mark,
    "that of another secret": lambda folder: filled_anew(folder),
}


def filled_anew(folder: Path) -> None:
    """A ledger that somebody else began."""
    for name in (FILE, MARK):
        (folder / name).unlink()
    Ledger(folder, "", bytes(32)).reserve([STEP], "noise", run="run", permit=anything)


@pytest.mark.parametrize("name", TOUCHED)
def test_a_file_that_was_touched_is_refused_and_begins_nothing_anew(tmp_path, name):
    own = filled(tmp_path)
    TOUCHED[name](tmp_path)
    for _ in range(2):
        with pytest.raises(Refusal, match="privacy ledger") as refused:
            own.reserve([STEP], "noise 9", run="run", permit=anything)
        assert refused.value.fault is Fault.REFUSED_BUDGET


def test_a_line_that_a_crash_cut_off_before_it_counted_stops_nothing(tmp_path):
    own = filled(tmp_path, 1)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"noise_mul')
    assert len(own.reserve([STEP], "noise 2", run="run", permit=anything)) == 2
    assert len(own.entries()) == 2


def test_lines_that_were_written_before_their_mark_count(tmp_path):
    own = filled(tmp_path, 1)
    mark = (tmp_path / MARK).read_bytes()
    own.reserve([STEP], "noise 1", run="run", permit=anything)
    (tmp_path / MARK).write_bytes(mark)  # a crash between the two
    assert len(own.reserve([STEP], "noise 2", run="run", permit=anything)) == 3


def test_a_crash_before_the_first_line_stops_nothing(tmp_path):
    assert filled(tmp_path, 0).entries() == []
    (tmp_path / FILE).unlink()
    assert len(filled(tmp_path, 1).entries()) == 1


def reserve_many(folder: Path, first: int) -> None:
    own = Ledger(folder, "", SECRET)
    for number in range(first, first + 10):
        own.reserve([STEP], str(number), run="run", permit=anything)


def test_processes_at_once_reserve_all_of_theirs(tmp_path):
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=reserve_many, args=(tmp_path, 5 * number)) for number in range(4)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    noises = [entry["noise"] for entry in Ledger(tmp_path, "", SECRET).entries()]
    assert sorted(noises, key=int) == [str(number) for number in range(25)]


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path, monkeypatch):
    own = filled(tmp_path, 1)
    before, write = (tmp_path / FILE).read_bytes(), __import__("os").write
    monkeypatch.setattr("flip.site.ledger.os.write", lambda file, content: write(file, content[:7]))
    with pytest.raises(OSError, match="No space"):
        own.reserve([STEP], "noise 1", run="run", permit=anything)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(("secret", "again"), [(None, 1), (SIMULATED, 0)])
def test_a_new_run_goes_on_from_the_ledger_of_a_hospital_and_not_from_that_of_a_simulation(tmp_path, secret, again):
    place = Place("kings", Site(root=str(tmp_path), policy="public_data", secret=secret), tmp_path / "home")

    def task(run: str) -> Task:
        return Task(run, "study", 0, "fit", {}, {}, {}, '{"seed": 1}')

    ledger_of(place, task("first")).reserve([STEP], "noise", run="first", permit=anything)
    assert len(ledger_of(place, task("second")).entries()) == again
    assert len(ledger_of(place, task("first")).entries()) == 1


def test_a_secret_that_is_made_anew_does_not_open_the_ledger(tmp_path):
    place = Place("kings", Site(root=str(tmp_path), policy="public_data"), tmp_path / "home")
    task = Task("run", "study", 0, "fit", {}, {}, {}, '{"seed": 1}')
    ledger_of(place, task).reserve([STEP], "noise", run="run", permit=anything)
    (tmp_path / "home" / "secret").unlink()
    with pytest.raises(Refusal, match="is not as it was written"):
        ledger_of(place, task).entries()
