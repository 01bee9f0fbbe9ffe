"""`flip deploy` and `flip start`: what each party's folder holds, who can read it, and what is refused."""

import ipaddress
import os
import signal
import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from flip.__main__ import main
from flip.config.policy import Policy
from flip.config.rules import DECLARED, DEPLOYED
from flip.config.schema import Site
from flip.config.site_file import load_site
from flip.config.site_template import SITE_TEMPLATE
from flip.processes import parents
from tests.federation.live import until

FILLED = SITE_TEMPLATE.replace("root: ???", "root: cohort").replace("person: ???", "person: row")
FILLED = FILLED.replace("approval: ???", "approval: none").replace("???", "5")


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    """The kits of two sites, whose server is `flip.example.org`."""
    arguments = ["sites=[cleveland,va]", f"out={tmp_path}/kits", f"runs={tmp_path}/runs", "host=flip.example.org"]
    assert main(["deploy", "flower", *arguments]) == 0
    return tmp_path / "kits"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command line says as it refuses to do anything."""
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_there_is_a_folder_for_the_server_for_the_researcher_and_for_each_site(kits):
    assert sorted(path.name for path in kits.iterdir()) == ["admin", "authority", "cleveland", "server", "va"]


def test_only_their_owner_can_read_them(kits):
    paths = [kits, *kits.rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    assert {mode(path) for path in paths if path.is_file()} == {0o600}


def test_the_servers_certificate_names_its_host_and_is_signed_by_the_authority_that_all_have(kits):
    authority = x509.load_pem_x509_certificate((kits / "va" / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((kits / "server" / "server.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["flip.example.org", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


def test_the_authoritys_own_key_is_kept_nowhere(kits):
    authority = x509.load_pem_x509_certificate((kits / "va" / "ca.crt").read_bytes())
    holders = [path for path in kits.rglob("*") if path.is_file() and b"BEGIN PRIVATE KEY" in path.read_bytes()]
    assert [path.relative_to(kits).as_posix() for path in holders] == ["server/server.key"]
    server = x509.load_pem_x509_certificate((kits / "server" / "server.crt").read_bytes())
    assert server.public_key() != authority.public_key()


def test_a_sites_private_key_lies_in_its_own_folder_and_its_public_half_in_the_servers_roster(kits):
    private = load_ssh_private_key((kits / "va" / "supernode").read_bytes(), None)
    public = load_ssh_public_key((kits / "server" / "sites" / "va.pub").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp384r1"
    assert private.public_key() == public
    assert not (kits / "admin" / "supernode").exists()
    assert (kits / "cleveland" / "supernode").read_bytes() != (kits / "va" / "supernode").read_bytes()


def test_a_key_that_was_made_here_comes_with_a_warning(kits, capsys):
    assert "was made here" in (kits / "va" / "README.md").read_text()
    assert (kits / "va" / "README.md").read_text().count("\n") == 3


def test_a_folder_that_is_there_is_not_touched(kits, capsys):
    before = (kits / "va" / "supernode").read_bytes()
    assert "is there already" in refusal(capsys, "deploy", "flower", "sites=heart", f"out={kits}")
    assert (kits / "va" / "supernode").read_bytes() == before


def test_nothing_is_left_of_kits_that_could_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("flip.federation.flower.provision.write_site", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["deploy", "flower", "sites=heart", f"out={tmp_path}/kits"])
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named_all_at_once(capsys):
    said = refusal(capsys, "deploy", "flower", "sites=heart", "hots=a", "port=many")
    assert "did you mean 'host'?" in said
    assert "port=many: must be a whole number" in said
    assert "out: has no value" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deploy", "flowr"], "did you mean 'flower'?"),
        (["start"], "takes one folder"),
        (["start", "nowhere"], "holds no kit.yaml"),
        (["deploy", "flower", "sites=londn", "out=kits"], "londn"),
    ],
)
def test_a_mistake_has_one_clear_answer(arguments, words, capsys, folder):
    assert words in refusal(capsys, *arguments)
    assert list(folder.iterdir()) == []


def test_the_template_has_every_key_of_a_sites_file():
    simulated = {"part"}  # of a cohort that simulated sites share
    assert set(yaml.safe_load(SITE_TEMPLATE)) == {each.name for each in fields(Site)} - simulated


def test_a_filled_template_is_a_sites_file(tmp_path):
    (tmp_path / "site.yaml").write_text(FILLED)
    policy = load_site(tmp_path / "site.yaml").policy
    stated = Policy(5, 5, **DEPLOYED, releases=DECLARED, models=(), trackers=())
    assert Policy.read("va", policy, deployed=True) == stated


def test_a_site_that_is_not_filled_in_does_not_start(kits, capsys):
    said = refusal(capsys, "start", str(kits / "va"))
    for key in ("root", "person", "policy.minimum_persons", "policy.minimum_cell"):
        assert f"{key} ({kits}/va/site.yaml): has no value" in said


def test_a_site_whose_key_others_can_read_does_not_start(kits, capsys):
    (kits / "va" / "site.yaml").write_text(FILLED)
    (kits / "va" / "supernode").chmod(0o640)
    assert "chmod 600 it" in refusal(capsys, "start", str(kits / "va"))


def test_a_researchers_kit_is_nothing_to_start(kits, capsys):
    assert f"federation.kit={kits}/admin" in refusal(capsys, "start", str(kits / "admin"))


# What is started.

SPAWN = "import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], " \
        "start_new_session=True); print(os.getpid(), flush=True); {}"  # fmt: skip


def ran(body: str) -> "subprocess.Popen[str]":
    """`supervise` in a process of its own, over a child that leaves a detached process behind."""
    program = f"""
import sys
from flip.federation.supervise import Child, supervise
sys.exit(supervise([Child([sys.executable, "-c", {SPAWN.format(body)!r}])]))
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def alive(marker: int) -> bool:
    """Whether a process, or one of its session, is there."""
    try:
        os.kill(marker, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_what_was_started_and_all_that_came_of_it(number):
    process = ran("import time; time.sleep(600)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not alive(child)
    assert process.stdout.read() == ""  # at the end of file nobody holds the pipe any more, the detached one included


def test_one_that_ends_by_itself_takes_the_rest_with_it():
    process = ran("sys.exit(3)")
    assert process.wait(30) == 1
    assert process.stdout is not None
    assert "ended by itself" in process.stdout.read()


def test_a_killed_start_leaves_no_child():
    process = ran("import time; time.sleep(600)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    detached = [pid for pid, parent in parents().items() if parent == child]
    process.kill()
    process.wait()
    until(lambda: not alive(child), 10)
    for pid in detached:  # what such a child leaves by itself is its own affair
        os.kill(pid, signal.SIGKILL)


def test_a_childs_output_can_go_to_a_file_of_its_owner(tmp_path):
    log = tmp_path / "log.txt"
    program = f"""
import sys
from pathlib import Path
from flip.federation.supervise import Child, supervise
supervise([Child([sys.executable, "-c", "print('hello')"], log=Path({str(log)!r}))])
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert log.read_text() == "hello\n"
    assert mode(log) == 0o600
