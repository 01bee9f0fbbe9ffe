"""Faults of a live federation, injected from outside: signals, an interface taken down, full disks, a compromised site.

One study without end, in which one site after the other meets its fault, in the order of this file; then studies that
end early. Kits, processes and network are those of hospitals (`live_study.py`); `hungarian` is a machine that
somebody else controls.
"""

import json
import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from os import kill
from pathlib import Path
from time import monotonic

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from markupsafe import escape

from flip.__main__ import main
from flip.deploy.approve import public
from flip.messages import Fault
from flip.processes import command
from tests.disks import fill
from tests.federation.attempts import ATTEMPTS
from tests.federation.compromised_site import MARKER
from tests.federation.live import until
from tests.federation.live_protection import MECHANISMS, protected
from tests.federation.live_study import (
    COMPROMISED,
    PATIENCE,
    SMALL_DISK,
    TRACKED,
    Federation,
    Study,
    goes_on,
    live_federation,
)  # fmt: skip
from tests.processes import LOOPBACK, listening_of, sockets
from tests.runs.test_resume import STUDIES, killed_on

pytestmark = pytest.mark.slow

# Who has died or stands still sends no heartbeats. FLARE takes it for lost after 20 s, Flower 38 to 60 s later.
SILENT = {"flower": ("TIMEOUT", "LOST"), "nvflare": ("LOST",)}
ENDLESS = "strategy.rounds=100000"
TWO = f"~sites.{COMPROMISED}"  # are enough where a study is killed: each hospital starts processes for each run of it
ROUNDS = 40  # of a study that is killed by its half: a round takes 0.1 s and more, and is seen 0.3 s later


@pytest.fixture(scope="class")
def federation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """The server and two of its sites; `va` is late."""
    with live_federation(request.cls.backend, tmp_path_factory.mktemp(request.cls.backend)) as found:
        found.start("server", "cleveland", COMPROMISED)
        yield found


@pytest.fixture(scope="class")
def study(federation: Federation) -> Iterator[Study]:
    """A study without end, in which one site after the other meets its fault."""
    soon = ["federation.join=1"] if federation.backend == "flower" else []
    begun = federation.begin(ENDLESS, *soon, *TRACKED, timeout=60)  # in which a killed process loads torch again
    yield begun
    if begun.process.poll() is None:
        begun.process.send_signal(signal.SIGINT)
        begun.finish()


def listens(federation: Federation, party: str) -> set[tuple[str, int]]:
    """The addresses and ports that the processes of a party listen on, as the kernel of its own network has them."""
    found = set()
    for process in federation.parties.processes(party):
        own = sockets(process)
        found |= {place for number, place in listening_of(process).items() if number in own}
    return found


class LiveFaults:
    """The faults, for one backend; a test class inherits it, so that backends can be tested at the same time."""

    backend: str

    def test_a_site_that_joins_late_takes_part_from_then_on(self, study, federation):
        study.await_fault("va", "LOST")
        assert {each["fault"] for each in study.lines("va")} == {"LOST"}
        federation.start("va")
        study.await_fault("va", None)

    @pytest.mark.parametrize(
        ("misdeed", "fault"),
        [
            ("raise", "RAISED"), ("nan", "NOT_FINITE"), ("inf", "NOT_FINITE"), ("shape", "INVALID"),
            ("missing", "INVALID"), ("dtype", "INVALID"), ("old", "INVALID"), ("slow", "TIMEOUT"), ("half", "TIMEOUT"),
        ],
    )  # fmt: skip
    def test_a_site_that_answers_badly_is_left_out_of_the_round_and_comes_back_and_costs_no_other(
        self, misdeed, fault, study, federation
    ):
        if (misdeed, federation.backend) == ("half", "nvflare"):
            pytest.skip("FLARE announces no small reply before it sends it")
        before = len(study.lines())
        with federation.compromised.doing(misdeed):
            study.await_fault(COMPROMISED, fault)
        study.await_fault(COMPROMISED, None)
        assert {each["fault"] for each in study.lines()[before:] if each["site"] != COMPROMISED} == {None}

    def test_a_hospital_listens_to_its_own_machine_alone_and_the_server_on_the_one_port_of_its_kits(
        self, study, federation
    ):
        for site in ("cleveland", COMPROMISED):
            assert {address for address, _ in listens(federation, site)} <= LOOPBACK
        outside = {port for address, port in listens(federation, "server") if address not in LOOPBACK}
        assert outside <= {federation.port}
        assert federation.port in {port for _, port in listens(federation, "server")}

    def test_replies_that_come_twice_count_once(self, study, federation):
        before, sent = len(study.lines(COMPROMISED)), federation.compromised.sent_twice()
        with federation.compromised.doing("twice"):
            until(lambda: federation.compromised.sent_twice() >= sent + 3, PATIENCE, "nothing was sent twice")
            study.await_fault(COMPROMISED, None)
        assert {each["fault"] for each in study.lines(COMPROMISED)[before:]} == {None}
        told = [(each["round"], each["site"]) for each in study.lines()]
        assert len(told) == len(set(told))

    def test_a_site_whose_disk_is_full_is_left_out_until_it_has_space(self, study, federation):
        if not federation.small_disks:
            pytest.skip("a disk can be mounted by root alone")
        fill(federation.small_disks["site"])
        study.await_fault(SMALL_DISK, "DISK")
        (federation.small_disks["site"] / "filler").unlink()
        study.await_fault(SMALL_DISK, None)

    def test_a_site_whose_process_is_killed_says_so_and_one_that_is_killed_whole_is_lost_until_it_is_back(
        self, study, federation
    ):
        [computes] = [each for each in federation.parties.processes("va") if "silo_process" in command(each)]
        before = len(study.lines("va"))
        kill(computes, signal.SIGKILL)
        ended = lambda: "ENDED" in [each["fault"] for each in study.lines("va")[before:]]  # noqa: E731  # in one round alone
        until(ended, PATIENCE, "its process did not end")
        study.await_fault("va", None)
        federation.parties.kill("va")
        study.await_fault("va", *SILENT[federation.backend])
        federation.start("va")
        study.await_fault("va", None)

    def test_a_site_that_stands_still_is_left_out_until_it_goes_on(self, study, federation):
        stopped = federation.parties.processes("va")
        for process in stopped:
            kill(process, signal.SIGSTOP)
        try:
            until(lambda: study.lines("va")[-1]["fault"] in SILENT[federation.backend], PATIENCE, "nobody was late")
        finally:
            for process in stopped:
                kill(process, signal.SIGCONT)
        study.await_fault("va", None)

    def test_a_network_that_is_down_for_ten_seconds_costs_no_site(self, study, federation):
        if not federation.parties.separate:
            pytest.skip("this machine lets us make no network namespaces")
        before = len(study.lines("cleveland"))
        federation.parties.network("cleveland", up=False)
        down = monotonic()
        until(lambda: monotonic() - down >= 10, 11)
        federation.parties.network("cleveland", up=True)
        study.await_fault("cleveland", None)
        assert [each["fault"] for each in study.lines("cleveland")[before:] if each["fault"]] == []

    def test_no_attempt_loosens_the_policy_of_a_hospital_that_takes_part_again_once_it_is_over(self, study, federation):
        assert federation.attempts() == {name: fault for name, (_, fault) in ATTEMPTS.items()}
        study.await_fault("va", None)

    def test_a_hospital_whose_person_has_signed_for_the_study_takes_part_until_that_is_revoked(self, study, federation):
        key, site = federation.root / "ada.pem", federation.root / "kits" / "va" / "site.yaml"
        private = Ed25519PrivateKey.generate()
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        with federation.owner_writes("va", {"approval": {"keys": {"ada": public(private)}}}):
            study.await_fault("va", "REFUSED_APPROVAL")
            terms = ["--reason", "test", "--ethics", "none", "--expires", "2099-12-31", "--name", "ada"]
            assert main(["site", "approve", str(study.folder), str(site), "--key", str(key), *terms]) == 0
            study.await_fault("va", None)
            [approval] = (site.parent / "approvals").glob("*.json")
            assert main(["site", "revoke", str(approval)]) == 0
            study.await_fault("va", "REFUSED_APPROVAL")
        study.await_fault("va", None)

    def test_the_report_names_who_was_missing_and_why(self, study, federation):
        study.process.send_signal(signal.SIGINT)
        ended = study.finish()
        assert (ended.status, study.result["status"]) == (128 + signal.SIGINT, "interrupted"), ended.out + ended.err
        assert MARKER not in ended.out + ended.err
        report = (study.folder / "report.html").read_text()
        missing = {(each["site"], each["fault"]) for each in study.lines() if each["fault"]}
        assert {fault for _, fault in missing} >= {"RAISED", "NOT_FINITE", "INVALID", "TIMEOUT"}
        rows = re.findall("<tr>.*?</tr>", report, re.DOTALL)
        for site, fault in missing:
            assert any(site in row and str(escape(Fault[fault].value)) in row for row in rows), (site, fault)

    def test_what_a_site_raised_is_at_that_site_and_nowhere_else(self, study, federation):
        """Looked for after the study's end, in all that lies anywhere but in what controls the compromised site."""
        ours = federation.compromised.folder
        files = [Path(folder) / name for folder, _, names in os.walk(federation.root) for name in names]
        named = []
        for path in (each for each in files if each.is_file() and not each.is_relative_to(ours)):
            with suppress(FileNotFoundError):  # FLARE removes a job's folder once it has kept it
                named += [path] if MARKER.encode() in path.read_bytes() else []
        assert named
        assert [path for path in named if not path.is_relative_to(federation.root / "kits" / COMPROMISED)] == []

    def test_a_run_ends_with_the_same_weights_though_its_server_and_then_its_command_line_are_killed(self, federation):
        """The server at a random moment, the command line once the resumed run has gone on by a round."""
        words = [*STUDIES[killed_on(f"live {self.backend}")], f"strategy.rounds={ROUNDS}", TWO]
        study = federation.begin(*words, rounds=random.randint(1, ROUNDS // 2))
        federation.parties.kill("server")
        federation.start("server")
        ended = study.finish()
        assert ended.status == 1, ended.out + ended.err
        resumed = federation.resume(study)
        resumed.process.kill()
        assert (resumed.finish().status, resumed.round() + 1 < ROUNDS) == (-signal.SIGKILL, True)
        goes_on(resumed, federation, words)

    def test_hospitals_make_secure_sums_of_one_digest_and_pay_for_noise_by_one_ledger(self, federation, tmp_path):
        for mechanism in MECHANISMS[self.backend]:
            protected(federation, mechanism, tmp_path / mechanism)

    def test_without_enough_sites_the_run_fails_and_names_who_is_missing(self, federation):
        study = federation.begin(ENDLESS, TWO, "strategy.min_sites=2", rounds=2)  # so that one is complete
        federation.parties.kill("va")
        ended = study.finish()
        federation.start("va")
        assert ended.status == 1
        assert study.result["status"] == "failed"
        assert "va: " in study.result["reason"]
        assert (study.folder / "state" / "round.safetensors").exists()

    @pytest.mark.parametrize("disk", ["runs", "server"])
    def test_a_study_whose_coordinator_has_no_space_left_fails_and_says_so(self, disk, federation):
        """With Flower the server's own disk holds no run; with FLARE the run lies at the server, and comes home.

        FLARE's server without space may be unable to hand out what its loop says of it; then the server is named.
        """
        if not federation.small_disks:
            pytest.skip("a disk can be mounted by root alone")
        if (federation.backend, disk) == ("flower", "server"):
            pytest.skip("the run's folder is on the shared disk alone")
        study = federation.begin(ENDLESS, TWO)
        fill(federation.small_disks[disk])
        ended = study.finish()
        (federation.small_disks[disk] / "filler").unlink()
        assert ended.status == 1, ended.out + ended.err
        assert study.result["status"] == "failed"
        full, server = "no space is left on the disk", "Does its disk have space left?"
        assert full in study.result["reason"] or (disk == "server" and server in study.result["reason"])
        assert "Traceback" not in ended.out + ended.err
        assert (study.folder / "report.html").exists()
        lines = [json.loads(line) for line in (study.folder / "rounds.jsonl").read_text().splitlines()]
        assert all(each["fault"] is None for each in lines)


class TestFlower(LiveFaults):
    backend = "flower"


class TestNVFlare(LiveFaults):
    backend = "nvflare"
