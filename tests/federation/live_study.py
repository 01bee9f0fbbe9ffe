"""A federation of a server and hospitals on tiny heart disease, and studies that run on it while things go wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from flip.federation.peers import public_key
from flip.files import write_atomic
from tests.cohorts.heart import write_tiny_heart
from tests.commands import Finished, flip
from tests.disks import can_mount, tmpfs
from tests.federation.attempts import LEAST, TOLD
from tests.federation.compromised_site import Compromised, compromise
from tests.federation.live import Deployment, free_port, until
from tests.studies import SMALL_HEART

SITES = ("cleveland", "hungarian", "va")
COMPROMISED, SMALL_DISK = "hungarian", "va"
ROSTER = f"sites=[{','.join(SITES)}]"
STUDY = ("experiment=heart_disease", ROSTER, *SMALL_HEART)
BACKENDS = {"flower": "flower_superlink", "nvflare": "nvflare_provisioned"}
PATIENCE = 240.0  # seconds that anything here may take on a busy machine
TRACKER = """
import time


class Silent:
    def start(self, run):
        pass

    def line(self, record):
        time.sleep(0.1)  # a study without end leaves the processors to others

    def finish(self, run, result):
        pass
"""
BENT = """
from pathlib import Path

from tests.federation.attempts import bend_server

bend_server(Path({0!r}), "va", "cleveland")
"""
TRACKED = ("allow_targets=[mine.]", "tracking.mine._target_=mine.Silent")
"""A study whose numbers go to a tracker that could send them anywhere; the hospitals permit this one."""


@dataclass(frozen=True)
class Federation:
    """A server and its hospitals, each in a place of its own.

    Attributes:
        parties: their places and processes.
        root: folder of all that lies on this machine: `kits`, `runs`, `data`, what parties print in `said`.
        backend: "flower" or "nvflare".
        compromised: what controls the site COMPROMISED.
        small_disks: the folders that a test may fill, each a disk of its own; none where nobody may mount one.
        port: the server's.
    """

    parties: Deployment
    root: Path
    backend: str
    compromised: Compromised
    small_disks: Mapping[str, Path]
    port: int

    def start(self, *parties: str) -> None:
        """Start parties."""
        for party in parties:
            folder = {COMPROMISED: self.compromised.folder, "server": self.root / "hostile"}.get(party)
            path = os.pathsep.join([str(folder or ""), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
            before = len(self.parties.said(party))
            self.parties.start(party, self.root / "kits" / party, PYTHONPATH=path, **{LEAST: "1"})
            if (party, self.backend) == ("server", "flower"):  # whose command line does not wait for it
                until(
                    lambda before=before: "server: ready" in self.parties.said("server")[before:], PATIENCE, "no server"
                )

    def begin(self, *more: str, rounds: int = 1, timeout: int = 90) -> "Study":
        """A study that has written down something of `rounds` rounds; `timeout` in seconds is enough to load torch."""
        kit = f"federation.kit={self.root / 'kits' / 'admin'}"
        before = set(self.folders())
        words = [
            *STUDY,
            "strategy.min_sites=1",
            f"federation={BACKENDS[self.backend]}",
            kit,
            f"federation.timeout={timeout}",
            *more,
        ]
        path = os.pathsep.join([str(self.root / "own"), os.environ.get("PYTHONPATH", "")])
        study = Study(self, self.parties.begin(self.root, *words, PYTHONPATH=path), before)
        until(lambda: study.round() + 1 >= rounds or study.process.poll() is not None, PATIENCE, "nothing began")
        assert study.process.poll() is None, study.finish()
        return study

    def resume(self, study: "Study") -> "Study":
        """A study that goes on and has written down a further round."""
        reached = study.round()
        resumed = replace(study, process=self.parties.begin(self.root, f"resume={study.folder}"))
        until(lambda: resumed.round() > reached or resumed.process.poll() is not None, PATIENCE, "nothing went on")
        assert resumed.process.poll() is None, resumed.finish()
        return resumed

    @contextmanager
    def owner_writes(self, site: str, rules: Mapping[str, object]) -> Iterator[None]:
        """The owner of a site adds rules to its policy, in one write, and at the end puts the file back."""
        file = self.root / "kits" / site / "site.yaml"
        before = file.read_bytes()
        values = yaml.safe_load(before)
        write_atomic(file, yaml.safe_dump({**values, "policy": {**values["policy"], **rules}}).encode())
        try:
            yield
        finally:
            write_atomic(file, before)

    def attempts(self) -> dict[str, str | None]:
        """Have the server make every attempt to loosen the policy of `va`, in the next round; what it was told."""
        told = self.root / TOLD
        told.parent.mkdir()
        until(told.exists, PATIENCE, "no attempt was made")
        found: dict[str, str | None] = json.loads(told.read_text())
        return found

    def folders(self) -> list[Path]:
        """The folders of all runs."""
        return [path.parent for path in self.root.glob("runs/*/*/run.yaml")]

    def ledger(self, site: str) -> list[dict[str, Any]]:
        """What the one ledger of a site has, over all studies."""
        path = self.root / "kits" / site / "site" / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def expected(self, *more: str) -> dict[str, Any]:
        """The result of the same study with `federation=inprocess`."""
        folder = self.root / "here" / str(len(list(self.root.glob("here/*"))))
        words = [*STUDY, "federation=inprocess", f"paths.data_dir={self.root / 'data'}", f"hydra.run.dir={folder}"]
        ended = flip(self.root, *words, *more)
        assert ended.status == 0, ended.err
        return result_in(folder)


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
        """What is written down of the fits, of one site or all."""
        path = self.folder / "rounds.jsonl" if self.folder else None
        text = path.read_text() if path and path.exists() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [each for each in found if each["phase"] == "fit" and site in (None, each["site"])]

    def round(self) -> int:
        """The last round that anything is written of, from 0; -1 before the first."""
        return max((each["round"] for each in self.lines()), default=-1)

    def await_fault(self, site: str, *faults: str | None) -> None:
        """Wait for one of these of a site in a round that has not begun yet. Fails where the study has ended."""
        now = self.round()

        def happened() -> bool:
            found = any(each["round"] > now and each["fault"] in faults for each in self.lines(site))
            assert found or self.process.poll() is None, self.finish()
            return found

        until(happened, PATIENCE, f"{site}: no {faults} after round {now}; {self.lines(site)[-3:]}")

    def finish(self) -> Finished:
        """Wait for the end."""
        return self.federation.parties.finish(self.process, self.federation.root)

    @property
    def result(self) -> dict[str, Any]:
        """Its result, once it has ended."""
        assert self.folder is not None
        return result_in(self.folder)


def result_in(folder: Path) -> dict[str, Any]:
    """The result that lies in a run's folder."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def introduce(kits: Path) -> None:
    """Have each hospital write the others' keys into its file, as they hand them over."""
    files = {site: kits / site / "site.yaml" for site in SITES}
    keys = {site: public_key(file) for site, file in files.items()}
    for site, file in files.items():
        peers = {name: key for name, key in keys.items() if name != site}
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "peers": peers}))


def goes_on(study: Study, federation: Federation, words: list[str]) -> None:
    """Resume a study, and hold its result against that of one that nothing befell."""
    resumed = federation.parties.flip(federation.root, f"resume={study.folder}")
    assert resumed.status == 0, resumed.out + resumed.err
    assert [each for each in study.lines() if each["fault"]] == []
    expected = federation.expected(*words)
    # No two live runs have the same noise: it is made with the secrets of the sites, and for this run.
    same = () if "privacy=dp_sgd" in words else ("digest", "metrics")
    for key in ("status", "rounds", "privacy", *same):
        assert study.result[key] == expected[key], key


@contextmanager
def live_federation(backend: str, root: Path) -> Iterator[Federation]:
    """A federation whose kits are made, and of which nobody is started yet."""
    data = write_tiny_heart(root / "data")
    with ExitStack() as stack:
        parties = stack.enter_context(Deployment(root / "said", ["server", *SITES]))
        port = free_port()
        made = [f"out={root / 'kits'}", f"host={parties.address()}", f"port={port}"]
        made += [f"runs={root / 'runs'}"] if backend == "flower" else []
        subprocess.run([sys.executable, "-m", "flip", "deploy", backend, ROSTER, *made], check=True, cwd=root)
        (root / "runs").mkdir()
        for site in SITES:
            table = str(data / "uci_heart" / f"processed.{site}.data")
            rules = {"minimum_persons": 2, "minimum_cell": 1, "persons_per_parameter": 0, "maximum_rounds": 10**6}
            rules |= {"approval": "none", "trackers": ["mine.Silent"]}
            values = {"root": table, "person": "row", "policy": rules}
            (root / "kits" / site / "site.yaml").write_text(yaml.safe_dump(values))
        introduce(root / "kits")
        for folder, name, text in (("hostile", "sitecustomize", BENT.format(str(root))), ("own", "mine", TRACKER)):
            (root / folder).mkdir()
            (root / folder / f"{name}.py").write_text(text)
        disks = {"site": root / "kits" / SMALL_DISK / "site", "runs": root / "runs", "server": root / "kits" / "server"}
        for folder in disks.values() if can_mount() else []:
            folder.mkdir(exist_ok=True)
            stack.enter_context(tmpfs(folder, megabytes=128))  # FLARE logs and keeps each job
        stack.callback(parties.stop_all)  # before their disks go
        yield Federation(parties, root, backend, compromise(root / "compromised"), disks if can_mount() else {}, port)
