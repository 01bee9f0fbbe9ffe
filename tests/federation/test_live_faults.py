"""Faults of a live federation, injected from outside: signals to a party's processes, an interface taken down."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from os import kill
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from markupsafe import escape

from flip.federation import Fault
from tests.commands import Finished, flip
from tests.federation.live import Deployment, free_port, until
from tests.studies import SMALL_HEART
from tests.tiny_heart import write_tiny_heart

pytestmark = pytest.mark.slow

SITES = ("cleveland", "hungarian", "va")
ROSTER = f"sites=[{','.join(SITES)}]"
BACKENDS = {"flower": "flower_superlink", "nvflare": "nvflare_provisioned"}
# A process that stands still sends no heartbeats either: FLARE takes it for lost after 20 s, Flower 38 to 60 s later.
SLOW = {"flower": ("TIMEOUT", "LOST"), "nvflare": ("LOST",)}
LONG = "strategy.rounds=60"
PATIENCE = 240.0  # seconds that anything here may take on a busy machine


@dataclass(frozen=True)
class Federation:
    """A server and its hospitals, each in a place of its own; `expected` is what `inprocess` makes of LONG."""

    parties: Deployment
    root: Path
    backend: str
    expected: dict[str, Any]

    def start(self, *parties: str) -> None:
        """Start parties, and wait until the server has them."""
        for party in parties:
            self.parties.start(party, self.root / "kits" / party)

    def arguments(self, *more: str) -> list[str]:
        kit = f"federation.kit={self.root / 'kits' / 'admin'}"
        chosen = ["experiment=heart_disease", ROSTER, *SMALL_HEART, f"federation={BACKENDS[self.backend]}", kit]
        return [*chosen, "federation.timeout=45", *more]

    def begin(self, *more: str) -> "Study":
        """A study that has come to its second round."""
        before = set(self.folders())
        study = Study(self, self.parties.begin(self.root, *self.arguments(*more)), before)
        until(lambda: study.round() >= 1, PATIENCE, "the study did not begin")
        return study

    def folders(self) -> list[Path]:
        return [path.parent for path in self.root.glob("runs/*/*/run.yaml")]


@dataclass(frozen=True)
class Study:
    """A study that runs."""

    federation: Federation
    process: "subprocess.Popen[str]"
    before: set[Path]

    @property
    def folder(self) -> Path | None:
        """The run's folder, once there is one."""
        return next((each for each in self.federation.folders() if each not in self.before), None)

    def lines(self, site: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "rounds.jsonl" if self.folder else None
        text = path.read_text() if path and path.exists() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [each for each in found if each["phase"] == "fit" and site in (None, each["site"])]

    def round(self) -> int:
        return max((each["round"] for each in self.lines()), default=-1)

    def await_fault(self, site: str, fault: str | None) -> None:
        """Wait for this of a site in a round that has not begun yet."""
        now = self.round()
        until(
            lambda: any(each["round"] > now and each["fault"] == fault for each in self.lines(site)),
            PATIENCE,
            f"{site}: no {fault} after round {now}; {self.lines(site)[-3:]}",
        )

    def finish(self) -> Finished:
        return self.federation.parties.finish(self.process, self.federation.root)


@pytest.fixture(scope="module", params=BACKENDS)
def federation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp(request.param)
    data = write_tiny_heart(root / "data")
    here = flip(root, "experiment=heart_disease", ROSTER, *SMALL_HEART, LONG, "federation=inprocess",
                f"paths.data_dir={data}", "hydra.run.dir=here")  # fmt: skip
    assert here.status == 0, here.err
    with Deployment(root / "said", ["server", *SITES]) as parties:
        made = [f"out={root / 'kits'}", f"host={parties.address()}", f"port={free_port()}"]
        made += [f"runs={root / 'runs'}"] if request.param == "flower" else []
        subprocess.run([sys.executable, "-m", "flip.deploy", request.param, ROSTER, *made], check=True, cwd=root)
        (root / "runs").mkdir()
        for site in SITES:
            table = str(data / "uci_heart" / f"processed.{site}.data")
            values = {"root": table, "policy": {"minimum_persons": 1, "minimum_cell": 1}}
            (root / "kits" / site / "site.yaml").write_text(yaml.safe_dump(values))
        expected = json.loads((root / "here" / "result.json").read_text())
        running = Federation(parties, root, request.param, expected)
        running.start("server", *SITES)
        yield running


@pytest.fixture(scope="module")
def study(federation: Federation) -> Iterator[Study]:
    """A study without end, in which one site after the other meets its fault."""
    begun = federation.begin("strategy.rounds=100000")
    yield begun
    if begun.process.poll() is None:
        begun.process.send_signal(signal.SIGINT)
        begun.finish()


def test_a_site_that_is_killed_is_lost_and_takes_part_again_when_it_is_back(study, federation):
    federation.parties.kill("va")
    until(lambda: study.lines("va")[-1]["fault"] in ("LOST", "TIMEOUT"), PATIENCE, "the killed site was not missed")
    federation.start("va")
    study.await_fault("va", None)


def test_a_site_that_is_slower_than_the_timeout_is_left_out_of_the_round(study, federation):
    stopped = federation.parties.processes("hungarian")
    for process in stopped:
        kill(process, signal.SIGSTOP)
    try:
        until(lambda: study.lines("hungarian")[-1]["fault"] in SLOW[federation.backend], PATIENCE, "nobody was late")
    finally:
        for process in stopped:
            kill(process, signal.SIGCONT)
    study.await_fault("hungarian", None)


def test_a_network_that_is_down_for_ten_seconds_costs_no_site(study, federation):
    if not federation.parties.separate:
        pytest.skip("this machine lets us make no network namespaces")
    before = len(study.lines("cleveland"))
    federation.parties.network("cleveland", up=False)
    down = monotonic()
    until(lambda: monotonic() - down >= 10, 11)
    federation.parties.network("cleveland", up=True)
    study.await_fault("cleveland", None)
    assert [each["fault"] for each in study.lines("cleveland")[before:] if each["fault"]] == []


def test_the_report_names_who_was_missing_and_why(study, federation):
    study.process.send_signal(signal.SIGINT)
    ended = study.finish()
    assert ended.status != 0
    report = (study.folder / "report.html").read_text()
    missing = {(each["site"], each["fault"]) for each in study.lines() if each["fault"]}
    assert {site for site, _ in missing} >= {"va", "hungarian"}
    assert [fault for _, fault in missing if str(escape(Fault[fault].value)) not in report] == []


@pytest.mark.parametrize("number", range(2))
def test_a_server_that_was_killed_is_started_again_and_the_run_goes_on_to_the_same_weights(number, federation):
    study = federation.begin(LONG)
    federation.parties.kill("server")
    federation.start("server")
    ended = study.finish()
    assert ended.status == 1, ended.out + ended.err
    resumed = federation.parties.flip(federation.root, f"resume={study.folder}")
    assert resumed.status == 0, resumed.out + resumed.err
    result = json.loads((study.folder / "result.json").read_text())
    assert result["digest"] == federation.expected["digest"]
    assert result["metrics"] == federation.expected["metrics"]


def test_without_enough_sites_the_run_fails_and_names_who_is_missing(federation):
    study = federation.begin("strategy.rounds=100000", "strategy.min_sites=3")
    federation.parties.kill("va")
    ended = study.finish()
    federation.start("va")
    assert ended.status == 1
    result = json.loads((study.folder / "result.json").read_text())
    assert result["status"] == "failed"
    assert "va: " in result["reason"]
    assert (study.folder / "state" / "round.safetensors").exists()
