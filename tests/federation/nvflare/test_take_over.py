"""A run that goes on with FLARE: the job that its command line left at the server, and the rounds that it made."""

import json
from pathlib import Path

import numpy as np
import pytest

from flip.errors import StudyFailed
from flip.federation.nvflare.download import study_of
from flip.federation.nvflare.provisioned import Server
from flip.runs.folder import RunFolder
from flip.runs.recorder import Progress

STARTED = 100.0  # when the server was, in its own seconds


class Session:
    """FLARE's session with a server that has one job, as nvflare 2.9 answers.

    Args:
        place: where the job's folder lies once it is downloaded.
        submitted: when the job was.
        ends: whether the job ends by itself while FLARE is about to stop it: then it says "not running".
        stays: for how many looks more it is called running.
    """

    def __init__(self, place: Path, submitted: float = STARTED + 1, *, ends: bool = False, stays: int = 2) -> None:
        self.place, self.submitted, self.ends, self.stays = place, submitted, ends, stays
        self.told = False

    def get_job_meta(self, job_id):
        self.stays -= self.told
        return {"status": "RUNNING" if self.stays > 0 else "FINISHED:COMPLETED", "submit_time": self.submitted}

    def abort_job(self, job_id):
        from nvflare.fuel.flare_api.api_spec import InternalError

        self.told = self.ends or self.submitted > STARTED
        if self.ends or self.submitted < STARTED:
            raise InternalError(f"server internal error: Job {job_id} is not running.")

    def download_job_result(self, job_id):
        return str(self.place)


class Gone(Session):
    """Of a server that has been set up anew."""

    def get_job_meta(self, job_id):
        from nvflare.fuel.flare_api.api_spec import JobNotFound

        raise JobNotFound(f"no such job: {job_id}")


def rounds(folder: Path, number: int) -> RunFolder:
    """A run's folder with so many complete rounds."""
    made = RunFolder(folder, [])
    for each in range(number):
        made.line({"round": each, "site": "guys", "phase": "fit"})
        made.complete(Progress(each, {"w": np.full(2, float(each))}, {}, {}, None, {}))
    return made


@pytest.fixture
def home(tmp_path: Path) -> RunFolder:
    """A run that knows of two rounds, and of the job that it was."""
    made = rounds(tmp_path / "home", 2)
    (made.folder / "state" / "job.json").write_text(json.dumps({"nvflare": "0b1c"}))
    return made


def server(session: Session, timeout: float = 60.0) -> Server:
    """A server to which this session is open."""
    return Server(Path("kits/admin"), timeout, session, STARTED)


def test_the_rounds_of_a_job_that_was_still_running_are_taken_over(home, tmp_path):
    rounds(study_of(tmp_path / "download"), 5)
    server(Session(tmp_path / "download")).take_over(home.folder)
    assert (home.last_round(), len(home.lines())) == (4, 5)


def test_the_rounds_of_a_job_that_ended_while_it_was_being_stopped_are_taken_over(home, tmp_path):
    rounds(study_of(tmp_path / "download"), 5)
    server(Session(tmp_path / "download", ends=True)).take_over(home.folder)
    assert (home.last_round(), len(home.lines())) == (4, 5)


def test_a_job_that_ended_with_its_server_is_not_waited_for(home, tmp_path):
    server(Session(tmp_path / "none", STARTED - 1)).take_over(home.folder)
    assert home.last_round() == 1


def test_a_run_goes_on_at_a_server_that_has_been_set_up_anew(home, tmp_path):
    server(Gone(tmp_path / "none")).take_over(home.folder)
    assert home.last_round() == 1


def test_a_job_that_does_not_end_fails_the_study_before_its_sites_are_asked_twice(home, tmp_path, monkeypatch):
    monkeypatch.setattr("flip.federation.nvflare.provisioned.LINGER", 0.0)
    with pytest.raises(StudyFailed, match="still RUNNING at FLARE's server"):
        server(Session(tmp_path / "none", stays=10**9), timeout=0.1).take_over(home.folder)
    assert home.last_round() == 1


def test_a_server_that_takes_each_session_and_answers_nothing_is_not_asked_for_ever(tmp_path, monkeypatch):
    from nvflare.fuel.flare_api.api_spec import NoConnection

    def silent(session):
        raise NoConnection("cannot connect to server")

    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "fed_admin.json").write_text(
        json.dumps({"admin": {"host": "flare.example.org", "port": 1}})
    )
    asked = Server(tmp_path, 0.1, Session(tmp_path), STARTED)
    monkeypatch.setattr("flip.federation.nvflare.session.LINGER", 0.0)
    monkeypatch.setattr(asked, "connect", lambda: None)
    with pytest.raises(StudyFailed, match="takes a session and has not answered"):
        asked.call(silent)
