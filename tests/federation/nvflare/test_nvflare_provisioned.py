"""FLARE, provisioned: the kits, and a federation of separate processes with mutual TLS."""

import json
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flip.coordinator.serve import Submission
from flip.errors import StudyFailed, UserError
from flip.federation.kit import Kit
from flip.federation.nvflare import provision as deploy
from flip.federation.nvflare import resources
from flip.federation.nvflare.app import CHUNK, CONTROLLER, EXECUTOR, chunk
from flip.federation.nvflare.download import Mirror, bring_home, study_of
from flip.federation.nvflare.provisioned import NVFlareProvisioned, write_job
from flip.messages.summary import Summary, SummaryKind, Topic
from flip.runs.folder import RunFolder
from tests.cohorts.heart import write_tiny_heart
from tests.commands import Finished, flip
from tests.federation.contract import part
from tests.federation.live import Deployment, free_port
from tests.processes import LOOPBACK, listening_of, sockets
from tests.studies import SMALL_HEART

SITES = ["cleveland", "va"]
ROSTER = f"sites=[{','.join(SITES)}]"

# The kits


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits of a federation that is not started."""
    out = tmp_path_factory.mktemp("kits") / "kits"
    deploy.prepare(["guys", "kings"], out, host="flare.example.org", port=9443)
    return out


def test_each_party_gets_a_folder_of_its_own_that_its_owner_alone_can_read(kits):
    assert sorted(path.name for path in kits.iterdir()) == ["admin", "authority", "guys", "kings", "server"]
    for path in [kits, *kits.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_key_of_a_party_is_in_another_folder_and_that_of_the_root_is_in_one_of_its_own(kits):
    keys = [path.read_bytes() for path in kits.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert len(keys) == len(set(keys)) == 5
    assert {path.parent.name for path in kits.rglob("root.key")} == {"authority"}
    assert len({path.read_bytes() for path in kits.rglob("rootCA.pem")}) == 1


def test_the_server_wants_a_certificate_of_everyone_and_is_where_it_was_said_to_be(kits):
    server = json.loads((kits / "server" / "startup" / "fed_server.json").read_text())["servers"][0]
    client = json.loads((kits / "guys" / "startup" / "fed_client.json").read_text())
    admin = json.loads((kits / "admin" / "startup" / "fed_admin.json").read_text())["admin"]
    assert {server["connection_security"], client["client"]["connection_security"], admin["connection_security"]} == {
        "mtls"
    }
    assert client["servers"][0]["service"]["target"] == "flare.example.org:9443"
    assert (admin["host"], admin["port"]) == ("flare.example.org", 9443)


def test_a_kit_takes_signed_jobs_alone_and_lets_them_name_our_two_classes(kits):
    for party in ("server", "guys"):
        startup = next((kits / party / "startup").glob("fed_*.json"))
        assert json.loads(startup.read_text())["require_signed_jobs"] is True
    for made in (resources.server_resources(kits / "server"), resources.site_resources()):
        assert made["class_allow_list"] == [CONTROLLER, EXECUTOR]
        assert made["class_list_enforcement_mode"] == "enforce"


@pytest.mark.parametrize("party", ["server", "guys"])
def test_nobody_may_bring_code_or_run_commands(kits, party):
    rights = json.loads((kits / party / "local" / "authorization.json").read_text())["permissions"]
    assert list(rights) == ["lead"]
    assert not {"byoc", "shell_commands", "operate", "clone_job"} & set(rights["lead"])


def test_every_part_that_a_kit_names_is_there(kits):
    def paths(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key == "path":
                yield value
            elif isinstance(value, dict | list):
                yield from paths(value)

    named = [*paths(resources.server_resources(kits)), *paths(resources.site_resources()), CONTROLLER, EXECUTOR]
    assert len(named) > 8
    for path in named:
        module, _, name = path.rpartition(".")
        assert callable(part(module, name) if module.startswith("nvflare") else getattr(import_module(module), name))


def test_a_partys_own_processes_meet_by_its_certificate(kits):
    deploy.children(Kit.read(kits / "server"))
    config = json.loads((kits / "server" / "local" / "comm_config.json").read_text())
    assert config["internal"]["resources"] == {"host": "localhost", "connection_security": "mtls"}


def test_all_that_a_server_stores_lies_in_its_kit(kits):
    text = json.dumps(resources.server_resources(kits / "server"))
    folders = [str(kits / "server" / name) for name in ("snapshots", "jobs")]
    assert re.findall(r'"(/[^"]+)"', text) == [*folders, str(kits / "server")]  # the last: the roster's


def test_a_site_sends_no_log(kits):
    made = resources.site_resources()
    assert made["allow_log_streaming"] is False
    assert "log" not in json.dumps(made["components"]).lower()


def test_kits_are_made_whole_or_not_at_all(tmp_path):
    for wrong in ({"port": 0}, {"host": "no host"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            deploy.prepare(["guys"], tmp_path / "kits", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_site_is_not_started_before_its_file_is_filled_in_nor_as_public_data(kits):
    with pytest.raises(UserError, match="root"):
        deploy.children(Kit.read(kits / "guys"))
    path = kits / "kings" / "site.yaml"
    path.write_text(yaml.safe_dump({"root": "/data", "policy": "public_data"}))
    with pytest.raises(UserError, match="public_data"):
        deploy.children(Kit.read(kits / "kings"))


def test_what_a_killed_process_left_is_gone_when_the_kit_is_started_again(kits):
    left = kits / "server" / "tmp" / "flip-spool-1"
    left.mkdir(parents=True)
    deploy.children(Kit.read(kits / "server"))
    assert list((kits / "server" / "tmp").iterdir()) == []


def test_a_researchers_kit_is_not_started(kits):
    with pytest.raises(UserError, match=r"federation\.kit="):
        deploy.children(Kit.read(kits / "admin"))


# The job, and what comes home of it


JOB = Submission("run", '{"strategy": {"min_sites": 2}}', {"guys": True, "kings": False}, False, 9.0)


def test_a_job_holds_names_of_our_classes_and_the_study(tmp_path):
    (tmp_path / "run").mkdir()
    write_job(tmp_path / "job", JOB, tmp_path / "run")
    files = {str(path.relative_to(tmp_path / "job")) for path in (tmp_path / "job").rglob("*") if path.is_file()}
    assert files == {
        "meta.json", "server/config/config_fed_server.json", "server/study/job.json",
        "site/config/config_fed_client.json",
    }  # fmt: skip
    assert Submission.from_json((tmp_path / "job" / "server" / "study" / "job.json").read_text()) == JOB
    texts = "".join((tmp_path / "job" / name).read_text() for name in files)
    assert set(re.findall(r"flip\.[\w.]+", texts)) == {CONTROLLER, EXECUTOR}


def test_what_a_resumed_run_has_goes_to_the_server_and_to_no_site(tmp_path):
    folder = RunFolder(tmp_path / "run", []).folder
    for name in ("rounds.jsonl", "cohort.json", "state/round.safetensors", "log.txt", "sites/guys.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    write_job(tmp_path / "job", JOB, folder)
    study = tmp_path / "job" / "server" / "study"
    brought = {str(path.relative_to(study)) for path in study.rglob("*") if path.is_file()}
    assert brought == {"job.json", "rounds.jsonl", "cohort.json", "state/round.safetensors"}
    assert [path.name for path in (tmp_path / "job" / "site").rglob("*") if path.is_file()] == [
        "config_fed_client.json"
    ]


def test_only_what_grows_can_be_asked_for_of_a_running_job(tmp_path):
    (tmp_path / "rounds.jsonl").write_text("x")
    (tmp_path / "result.json").write_text("x")
    assert chunk(tmp_path, {"name": "rounds.jsonl", "offset": 0})["size"] == 1
    for wrong in ("result.json", "../rounds.jsonl", "/etc/passwd", None):
        assert chunk(tmp_path, {"name": wrong, "offset": 0}) == {"stamp": "", "size": 0, "data": ""}
    assert chunk(tmp_path, {"name": "rounds.jsonl", "offset": -1})["stamp"] == ""


def test_lines_come_home_whole_and_a_large_state_in_parts(tmp_path):
    there, here = RunFolder(tmp_path / "there", []).folder, RunFolder(tmp_path / "here", []).folder
    (there / "rounds.jsonl").write_text('{"a": 1}\n{"b"')
    state = bytes(range(256)) * (CHUNK // 100)
    (there / "state").mkdir()
    (there / "state" / "round.safetensors").write_bytes(state)
    mirror = Mirror(here)
    mirror.look(lambda request: chunk(there, request))
    assert (here / "rounds.jsonl").read_text() == '{"a": 1}\n'
    assert (here / "state" / "round.safetensors").read_bytes() == state
    with (there / "rounds.jsonl").open("a") as file:
        file.write(": 2}\n")
    asked: list[Any] = []
    mirror.look(lambda request: asked.append(request) or chunk(there, request))
    assert (here / "rounds.jsonl").read_text() == '{"a": 1}\n{"b": 2}\n'
    assert {"name": "state/round.safetensors", "offset": CHUNK} not in asked  # it has not changed


def test_a_state_that_changes_while_it_comes_home_is_left_for_the_next_look(tmp_path):
    there, here = tmp_path / "there", RunFolder(tmp_path / "here", []).folder
    path = there / "state" / "round.safetensors"

    def replaced(state: bytes) -> None:
        path.with_suffix(".new").write_bytes(state)
        path.with_suffix(".new").replace(path)

    def fetch(request):
        if request["offset"] == CHUNK:
            replaced(b"b" * (2 * CHUNK))
        return chunk(there, request)

    path.parent.mkdir(parents=True)
    replaced(b"a" * (2 * CHUNK))
    mirror = Mirror(here)
    mirror.look(fetch)
    assert list((here / "state").iterdir()) == []
    mirror.look(lambda request: chunk(there, request))
    assert (here / "state" / "round.safetensors").read_bytes() == b"b" * (2 * CHUNK)


def test_a_server_that_promises_more_and_sends_nothing_is_not_asked_for_ever(tmp_path):
    Mirror(tmp_path).look(lambda request: {"stamp": "1", "size": 10, "data": ""})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_server_that_sends_more_than_was_asked_for_is_not_believed(tmp_path):
    def fetch(request):
        return {"stamp": "1", "size": 1 << 50, "data": ""}

    with pytest.raises(StudyFailed, match="more than it was asked for"):
        Mirror(tmp_path).look(fetch)


def test_what_a_job_told_of_the_cohorts_comes_home(tmp_path):
    there, here = RunFolder(study_of(tmp_path / "download"), []), tmp_path / "here"
    counts = {"count/persons": Summary(SummaryKind.COUNT, np.array([30.0]), 30)}
    there.description("check", {}, {"guys": {Topic.DESCRIPTION: counts}})
    there.json("result.json", {"status": "ok"})
    told = (there.folder / "description.json").read_text()
    bring_home(tmp_path / "download", here)
    assert (here / "description.json").read_text() == told


def test_of_a_downloaded_job_only_files_of_a_run_come_home_and_no_link_is_followed(tmp_path):
    study, here = study_of(tmp_path / "download"), tmp_path / "here"
    (study / "weights").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (study / "result.json").write_text("{}")
    (study / "run.yaml").write_text("another study")
    (study / "outcomes.json").symlink_to(tmp_path / "secret")
    (study / "weights" / "last.safetensors").write_text("weights")
    (study / "state").symlink_to(tmp_path)
    (tmp_path / "round.safetensors").write_text("secret")
    bring_home(tmp_path / "download", here)
    assert {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()} == {
        "result.json", "weights/last.safetensors",
    }  # fmt: skip
    assert not (tmp_path / "download").exists()


def test_a_job_without_a_result_fails_the_study(tmp_path):
    study_of(tmp_path / "download").mkdir(parents=True)
    with pytest.raises(StudyFailed, match="without a result"):
        bring_home(tmp_path / "download", tmp_path / "here")


def test_without_a_kit_the_study_fails_and_says_how_to_make_one(tmp_path):
    with pytest.raises(StudyFailed, match=r"flip deploy nvflare"):
        NVFlareProvisioned(str(tmp_path / "none")).submit(JOB, tmp_path)


def test_a_timeout_that_cannot_work_is_refused():
    with pytest.raises(UserError, match=r"federation\.timeout=0"):
        NVFlareProvisioned("kits/admin", timeout=0)


# A federation of separate processes


@dataclass(frozen=True)
class Federation:
    """A running FLARE, with hospitals that each hold their own data.

    `work` is the researcher's folder; `expected` and `described` are what `federation=inprocess` made of the same data,
    by training and by `job=statistics`.
    """

    parties: Deployment
    root: Path
    work: Path
    expected: dict[str, Any]
    described: dict[str, Any]

    def kit(self, party: str) -> Path:
        return self.root / "kits" / party

    def arguments(self, *more: str) -> list[str]:
        settings = [f"federation.kit={self.kit('admin')}", "federation.timeout=180"]
        return [
            "experiment=heart_disease",
            ROSTER,
            *SMALL_HEART,
            "strategy.min_sites=1",
            "federation=nvflare_provisioned",
            *settings,
            *more,
        ]

    def study(self, *more: str) -> Finished:
        return self.parties.flip(self.work, *self.arguments(*more))

    def start(self, *parties: str) -> None:
        for party in parties:
            self.parties.start(party, self.kit(party))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("federation")
    data, work = write_tiny_heart(root / "data"), root / "work"
    for site in SITES:
        table = data / "uci_heart" / f"processed.{site}.data"
        table.write_text(f"{planted(site)},1,4,140,200,0,0,140,1,1.0,?,?,?,2\n" + table.read_text())
    work.mkdir()
    here = ["experiment=heart_disease", ROSTER, *SMALL_HEART, f"paths.data_dir={data}", "federation=inprocess"]
    expected, described = flip(work, *here).result, flip(work, *here, "job=statistics").description
    with Deployment(root / "said", ["server", *SITES]) as parties:
        made = [f"out={root / 'kits'}", f"host={parties.address()}", f"port={free_port()}"]
        subprocess.run([sys.executable, "-m", "flip", "deploy", "nvflare", ROSTER, *made], check=True, cwd=root)
        homes = {site: root / f"marker-home-{site}" for site in SITES}
        for site, home in homes.items():
            home.mkdir()
            (data / "uci_heart" / f"processed.{site}.data").rename(home / "table.data")
            values = {
                "root": str(home / "table.data"),
                "person": "row",
                "policy": {"minimum_persons": 2, "minimum_cell": 1, "persons_per_parameter": 0, "approval": "none"},
            }
            text = f"# marker-file-{site}\n{yaml.safe_dump(values)}"
            (root / "kits" / site / "site.yaml").write_text(text)
        for party in parties.parties:
            if parties.separate:
                others = [site for site in SITES if site != party]
                parties.hide(party, *(homes[site] for site in others), *(root / "kits" / site for site in others))
        running = Federation(parties, root, work, expected, described)
        running.start("server", *SITES)
        yield running


def planted(site: str) -> str:
    """An age of a patient of the site, as no other text is."""
    return f"51.{SITES.index(site) + 1}71717"


def markers(site: str) -> list[bytes]:
    """What stands in the site's own files and must stand nowhere else."""
    return [f"marker-home-{site}".encode(), f"marker-file-{site}".encode(), planted(site).encode()]


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, and every file in one that is a zip archive."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path / name, archive.read(name)


def listening(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.mark.slow
def test_the_weights_are_those_of_inprocess_and_nothing_of_a_site_is_anywhere_else(federation):
    ran = federation.study()
    assert ran.status == 0, ran.out + ran.err
    assert ran.result["digest"] == federation.expected["digest"]
    assert ran.result["metrics"] == federation.expected["metrics"]
    seconds = [float(each) for each in re.findall(r"round \d+/\d+ .* ([\d.]+) s", ran.out)]
    assert len(seconds) == 3
    assert min(seconds[1:]) <= 2, seconds  # one of the two may wait for other processes
    folders = [ran.runs[-1], federation.parties.work, *(federation.root / "kits").iterdir()]
    looked = 0
    for folder in folders:
        for path, content in [*contents(folder), *[(folder, (ran.out + ran.err).encode())]]:
            looked += 1
            for site in SITES:
                if folder.name != site:
                    assert [each for each in markers(site) if each in content] == [], path
    assert looked > 60


@pytest.mark.long
def test_the_statistics_of_the_sites_are_those_of_inprocess(federation):
    assert federation.study("job=statistics").description == federation.described


PROBE = """
import socket, ssl, sys
any_one = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
any_one.check_hostname, any_one.verify_mode = False, ssl.CERT_NONE
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as plain:
    try:
        with any_one.wrap_socket(plain) as over:
            over.recv(1)
    except ssl.SSLError as error:
        print(error.reason)
"""


@pytest.mark.slow
def test_another_account_of_a_sites_machine_cannot_speak_to_the_sites_processes(federation):
    found = []
    for process in federation.parties.processes(SITES[0]):
        listens = listening_of(process)
        found += [port for number, (address, port) in listens.items() if number in sockets(process)]
        assert {address for number, (address, _) in listens.items() if number in sockets(process)} <= LOOPBACK
    assert found
    for port in found:
        command = federation.parties.inside(SITES[0], [sys.executable, "-c", PROBE, "127.0.0.1", str(port)])
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert "CERTIFICATE_REQUIRED" in said, said


@pytest.mark.slow
def test_a_kit_that_was_not_made_together_with_the_servers_gets_nowhere(federation, tmp_path):
    admin = json.loads((federation.kit("admin") / "startup" / "fed_admin.json").read_text())["admin"]
    deploy.prepare(SITES, tmp_path / "kits", host=admin["host"], port=admin["port"])
    refused = federation.study(f"federation.kit={tmp_path / 'kits' / 'admin'}", "federation.timeout=8")
    assert refused.status == 1
    assert "Kits work together only if they were made together" in refused.result["reason"]


@pytest.mark.slow
def test_without_enough_sites_the_study_names_who_is_missing(federation):
    short = federation.study("sites=[cleveland,demo_east]", "strategy.min_sites=2", "federation.timeout=5")
    assert short.status == 1
    assert "not connected within federation.timeout=5 s: east; strategy.min_sites=2" in short.result["reason"]


@pytest.mark.slow
def test_what_is_stopped_leaves_nothing_but_its_kit(federation):
    port = json.loads((federation.kit("admin") / "startup" / "fed_admin.json").read_text())["admin"]["port"]
    for party in list(federation.parties.running):
        assert federation.parties.stop(party) == 0
    assert federation.parties.processes() == []
    assert federation.parties.separate or not listening("127.0.0.1", port)
    for path in (federation.root / "kits").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert not Path("/tmp/nvflare").exists()  # where FLARE would store without our settings
