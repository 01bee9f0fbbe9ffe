"""Sites that fail, each in a real process, while the study goes on: one study per backend, of which all tests look.

Five sites in ten rounds. `bad` does something else wrong in each of the first eight; `victim` is killed in the midst of
round 2; `late` does not answer the first question, and stands still in round 9; `full` has no space on its disk in the
first two rounds. At `well` the coordinator makes every attempt to loosen a policy in the third round (`attempts.py`).
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flip.messages import Fault
from flip.messages.model_file import load_model
from tests.disks import can_mount, fill, tmpfs
from tests.federation.attempts import ATTEMPTS, LEAST
from tests.federation.backends import FLARE, FLOWER, FORKED, ONE, Backend, each
from tests.federation.faulty_site import Faulty, Running
from tests.processes import LOOPBACK

BAD = ["raise", "nan", "inf", "shape", "missing", "dtype", "old", "twice"]
ROUNDS = 10
MARKER = "MARKER-OF-THIS-SITE"
TOLD = "attempts.json"


@dataclass
class Ended:
    """A study that has ended."""

    backend: Backend
    study: Faulty
    running: Running
    status: int
    left: list[str]

    def faults(self, site: str, phase: str = "fit") -> list[str | None]:
        """What was written down of a site, by round."""
        return self.running.faults(site, phase)


def plan(backend: Backend) -> dict[str, dict[int, str]]:
    """By site, what it does wrong in which round (from 0)."""
    bad = [misdeed for misdeed in BAD if misdeed != "twice" or backend.messages]
    sites = {"bad": dict(enumerate(bad)), "full": {}, "late": {}, "victim": {}, "well": {}}
    return sites | ({"late": {8: "hang"}, "victim": {1: "hang"}} if backend.apart else {})


@pytest.fixture(scope="module", params=each(ONE, FORKED, FLOWER, FLARE, fast=[], long=[FLARE]))
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """The study on one backend."""
    backend: Backend = request.param
    with ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t")))  # for the sockets of Ray
        study = Faulty(tmp_path_factory.mktemp("faults"), short / "f", plan(backend))
        home = study.home("full")
        if can_mount():
            stack.enter_context(tmpfs(home, megabytes=1))
            fill(home)
        tracked = f"{{_target_: faulty.parts.Attempting, site: well, other: late, tells: {study.folder / TOLD}}}"
        words = [f"strategy.rounds={ROUNDS}", f"tracking.attempts={tracked}"]
        running = stack.enter_context(study.running(*backend.overrides, *words, **{LEAST: "1"}))
        if backend.apart:
            study.withhold("late", running.process.pid)
            running.wait(lambda: running.faults("late", "statistics"))
            study.hand_over("late")
            running.kill("victim")
        running.wait(lambda: len(running.faults("full")) > 1)
        (home / "filler").unlink(missing_ok=True)
        if backend.apart:
            running.wait(lambda: len(running.faults("late")) > 8)
            running.release("late")
        status = running.end()
        yield Ended(backend, study, running, status, running.family.left())


def test_the_study_goes_on_to_its_end(ended: Ended) -> None:
    assert ended.status == 0, ended.running.err
    assert (ended.running.result["status"], ended.running.result["rounds"]) == ("ok", ROUNDS)
    assert ended.faults("well") == [None] * ROUNDS
    weights = load_model(ended.study.run).weights
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in weights.values())


def test_a_site_that_raises_is_left_out_of_the_round_and_comes_back(ended: Ended) -> None:
    assert ended.faults("bad")[0] == "RAISED"
    assert ended.faults("bad")[-1] is None


def test_what_the_site_raised_is_in_its_own_log_and_nowhere_else(ended: Ended) -> None:
    files = [path for path in ended.study.run.rglob("*") if path.is_file()]
    named = [path for path in files if MARKER.encode() in path.read_bytes()]
    assert named == [ended.study.home("bad") / "site.log"]
    assert MARKER not in ended.running.text("out") + ended.running.err


@pytest.mark.parametrize("misdeed", ["nan", "inf"])
def test_numbers_that_are_not_finite_are_left_out(misdeed: str, ended: Ended) -> None:
    assert ended.faults("bad")[BAD.index(misdeed)] == "NOT_FINITE"


@pytest.mark.parametrize("misdeed", ["shape", "missing", "dtype"])
def test_arrays_of_another_form_are_left_out(misdeed: str, ended: Ended) -> None:
    assert ended.faults("bad")[BAD.index(misdeed)] == "INVALID"


def test_a_reply_for_an_old_round_is_left_out(ended: Ended) -> None:
    assert ended.faults("bad")[BAD.index("old")] == "INVALID"


def test_replies_that_come_twice_count_once(ended: Ended) -> None:
    if not ended.backend.messages:
        pytest.skip("a reply is what a call returns, which happens once")
    assert (ended.study.home("bad") / "sent twice").exists()
    assert ended.faults("bad")[BAD.index("twice") :] == [None] * (ROUNDS - BAD.index("twice"))
    assert ended.faults("bad", "test") == [None]


def test_no_attempt_loosens_the_policy_of_a_site(ended: Ended) -> None:
    """After each of them its file is as before, and in every round it has answered (see above)."""
    found = json.loads((ended.study.folder / TOLD).read_text())
    assert found == {name: fault for name, (_, fault) in ATTEMPTS.items()}


def test_each_site_asked_has_one_line_a_round(ended: Ended) -> None:
    lines = [(line["round"], line["phase"], line["site"]) for line in ended.running.lines()]
    assert len(lines) == len(set(lines))


def test_a_site_killed_in_mid_round_is_lost(ended: Ended) -> None:
    if not ended.backend.apart:
        pytest.skip("the site's process is the coordinator's: see resume")
    after = [None] if ended.backend.returns else ["LOST"]
    assert ended.faults("victim") == [None, "LOST", *after * (ROUNDS - 2)]


def test_a_site_slower_than_the_timeout_is_left_out_and_comes_back(ended: Ended) -> None:
    if not ended.backend.apart:
        pytest.skip("the coordinator's process is busy with the site itself")
    assert ended.faults("late")[8:] == ["TIMEOUT", None]


def test_a_site_that_joins_late_takes_part_from_then_on(ended: Ended) -> None:
    if not ended.backend.apart:
        pytest.skip("the coordinator's process is busy with the site itself")
    assert ended.faults("late", "statistics") == ["TIMEOUT"]
    assert ended.faults("late")[:8] == [None] * 8


def test_a_site_whose_disk_is_full_is_left_out_until_it_has_space(ended: Ended) -> None:
    if not can_mount():
        pytest.skip("a disk can be mounted by root alone")
    assert ended.faults("full")[:2] == ["DISK", "DISK"]
    assert ended.faults("full")[-1] is None


def test_the_report_names_who_was_missing_and_why(ended: Ended) -> None:
    found = {(line["site"], line["fault"]) for line in ended.running.lines() if line["fault"]}
    assert found
    for site, fault in found:
        row = f"<tr><td>{site}</td>"
        rows = [part.split("</tr>")[0] for part in ended.running.report.split(row)[1:]]
        assert any(escaped(Fault[fault].value) in part for part in rows), (site, fault)


def escaped(text: str) -> str:
    return text.replace("'", "&#39;")


def test_nothing_is_left(ended: Ended) -> None:
    assert ended.left == []
    assert ended.study.temporary_files() == []


def test_nobody_outside_this_machine_could_reach_any_of_its_processes(ended: Ended) -> None:
    assert ended.running.family.bound <= LOOPBACK
    assert bool(ended.running.family.bound) == (ended.backend in (FLOWER, FLARE))


def test_every_line_on_disk_is_whole(ended: Ended) -> None:
    assert all(json.loads(line) for line in (ended.study.run / "rounds.jsonl").read_text().splitlines())
