"""Keys that hospitals make themselves, a request that is wrong, and a site that is let in or put out later."""

import shutil
import stat
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, load_ssh_private_key

from flip.__main__ import main
from flip.deploy.admit import check_new
from flip.errors import UserError
from flip.federation.flower import provision as flower
from flip.federation.flower.server import public_keys
from flip.federation.kit import Kit, check_names
from flip.federation.nvflare import provision as nvflare
from flip.federation.nvflare.certificates import Root
from flip.federation.nvflare.roster import Roster, guard
from flip.federation.requests import IDENTITY, KEYS, SUFFIX, fingerprint, read
from tests.deploy.kits import BACKENDS, PROVISION, asked, contents, fresh, own_key, request

PLACES = ("server/sites", "pub"), ("authority/sites", "pub"), ("authority/peers", "csr")  # where a site that came is
ABOUT = ("cn__destination", "cn__channel", "cn__topic")  # FLARE's headers of a message
OUTSIDE, INSIDE = "ipv4:127.0.0.1:50462", "127.0.0.1:50462"  # how FLARE names the other end, by gRPC and within


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_private_key_is_its_owners_alone_and_is_neither_in_the_request_nor_in_a_kit(backend, tmp_path, capsys):
    kits = fresh(tmp_path, backend)
    private = own_key(tmp_path, backend, "kings")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    loaded: Any = load_ssh_private_key if backend == "flower" else load_pem_private_key
    public = loaded(private.read_bytes(), None).public_key()
    said = capsys.readouterr().out
    assert said.count(fingerprint(public)) == 2  # the site and the coordinator can compare it
    lines = [line for line in private.read_bytes().splitlines()[1:-1] if len(line) > 40]
    secret = private.with_name("secret")
    for made, parts in ((private, lines[2:]), (secret, [secret.read_bytes()])):
        holders = [path for path, text in contents(tmp_path).items() if any(part in text for part in parts)]
        assert holders == [str(made.relative_to(tmp_path))]
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert not {KEYS[backend], "secret"} & {*contents(kits / "kings")}
    assert KEYS[backend] in (kits / "kings" / "README.md").read_text()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kit_takes_the_key_that_it_was_asked_for_with(backend, deployed, tmp_path):
    kits = deployed(backend)
    check: Callable[[Any], None] = PROVISION[backend].check_key
    kit, place = kits / "kings", kits / "kings" / KEYS[backend]
    with pytest.raises(UserError, match="is missing; put the private key"):
        check(kit)
    place.write_bytes(own_key(tmp_path, backend, "kings").read_bytes())
    place.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        check(kit)
    place.chmod(0o600)
    check(kit)
    place.write_bytes(own_key(tmp_path, backend, "guys").read_bytes())
    with pytest.raises(UserError, match="is not the key that this kit was asked for with"):
        check(kit)


def test_a_certificate_says_what_the_root_says_and_nothing_of_what_a_request_asks_for(tmp_path):
    key = rsa.generate_private_key(65537, 3072)
    wanted = request("kings", key, hashes.SHA384(), x509.BasicConstraints(ca=True, path_length=None))
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "kings.csr").write_bytes(wanted)
    nvflare.prepare(["kings"], tmp_path / "kits", requests=tmp_path / "requests")
    startup = tmp_path / "kits" / "kings" / "startup"
    made = x509.load_pem_x509_certificate((startup / "client.crt").read_bytes())
    root = x509.load_pem_x509_certificate((startup / "rootCA.pem").read_bytes())
    made.verify_directly_issued_by(root)
    assert made.public_key() == key.public_key()
    assert made.not_valid_after_utc == root.not_valid_after_utc
    assert made.subject.rfc4514_string() == "O=flip,CN=kings"
    assert not {IDENTITY, x509.BasicConstraints.oid} & {each.oid for each in made.extensions}


STRONG = ec.generate_private_key(ec.SECP384R1())
GOOD = request("kings", STRONG, hashes.SHA384())


@pytest.mark.parametrize(
    ("name", "backend", "content", "words"),
    [
        ("guys", "flower", GOOD, "is of 'kings'; the file is named after the site"),
        ("kings", "nvflare", GOOD, "the key must be RSA of 3072"),
        ("kings", "flower", request("kings", ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()), "on P-384"),
        ("kings", "flower", request("kings", ed25519.Ed25519PrivateKey.generate()), "the key must be ECDSA on P-384"),
        ("kings", "nvflare", request("kings", rsa.generate_private_key(65537, 2048), hashes.SHA256()), "3072 to 8192"),
        ("kings", "nvflare", request("kings", rsa.generate_private_key(3, 3072), hashes.SHA256()), "exponent 65537"),
        ("kings", "flower", request("kings\n\x1b[2Jserver: ok", STRONG, hashes.SHA384()), r"is of 'kings\n\x1b["),
        ("kings", "flower", request("../kings", STRONG, hashes.SHA384()), "is of '../kings'"),
        ("kings", "flower", b"no request", "is no request for flower; flip site request flower kings FOLDER makes it"),
        ("kings", "flower", GOOD + b" " * 20000, "more than 16384 bytes"),
    ],
)  # fmt: skip
def test_a_request_that_is_wrong_has_one_clear_answer(name, backend, content, words, tmp_path):
    path = tmp_path / f"{name}{SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(path, backend)
    assert len(refused.value.problems) == 1
    assert words in refused.value.problems[0]
    assert refused.value.problems[0].isprintable()


def test_a_request_of_another_version_and_one_without_an_end_have_a_clear_answer(tmp_path):
    der = bytearray(x509.load_pem_x509_csr(GOOD).public_bytes(Encoding.DER))
    der[bytes(der).index(b"\x02\x01\x00") + 2] = 1
    lines = b64encode(bytes(der))
    later = b"-----BEGIN CERTIFICATE REQUEST-----\n" + lines + b"\n-----END CERTIFICATE REQUEST-----\n"
    (tmp_path / "kings.csr").write_bytes(later)
    (tmp_path / "guys.csr").symlink_to("/dev/zero")
    for name, words in (("kings", "is no request for flower.*version"), ("guys", "there is no such file")):
        with pytest.raises(UserError, match=words):
            read(tmp_path / f"{name}{SUFFIX}", "flower")


def test_a_request_that_was_changed_on_its_way_is_refused(tmp_path):
    der = bytearray(x509.load_pem_x509_csr(GOOD).public_bytes(Encoding.DER))
    at = bytes(der).index(b"kings")
    der[at : at + 5] = b"bruno"  # another's name over this site's key
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    (tmp_path / "bruno.csr").write_bytes(changed)
    with pytest.raises(UserError, match="was changed after it was signed"):
        read(tmp_path / "bruno.csr", "flower")


def test_requests_that_are_missing_or_shared_are_all_named_and_nothing_is_made(tmp_path, capsys):
    requests = asked(tmp_path, "flower", "va")
    for name in ("cleveland", "hungarian"):
        (requests / f"{name}.csr").write_bytes(request(name, STRONG, hashes.SHA384()))
    assert main(["deploy", "flower", "sites=heart", f"out={tmp_path}/kits", f"requests={requests}"]) == 2
    said = capsys.readouterr().err
    assert "switzerland.csr" in said
    assert "cleveland and hungarian have the same key" in said
    assert not (tmp_path / "kits").exists()


def test_a_key_that_is_there_is_not_made_anew(tmp_path, capsys):
    asked(tmp_path, "flower", "kings")
    before = contents(tmp_path)
    assert main(["site", "request", "flower", "kings", str(tmp_path / "own-kings")]) == 2
    assert "name a new folder" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("words", "said"), [
    (["flower", "server", "own"], "is taken"), (["flower", "a b", "own"], "made of letters"),
    (["flower", "Server", "own"], "is taken"), (["flower", "k" * 65, "own"], "at most 64"),
    (["flowr", "kings", "own"], "did you mean 'flower'?"), (["flower"], "takes three words"),
])  # fmt: skip
def test_a_mistake_in_the_command_is_named_and_makes_nothing(words, said, folder, capsys):
    assert main(["site", "request", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(folder.iterdir()) == []


# A site that comes later, and one that is put out.


def later(folder: Path, backend: str, kits: Path) -> Path:
    """The site `bruno` is let in; the server's people put its public key into their kit."""
    requests = asked(folder, backend, "bruno")
    assert main(["deploy", "add", f"{kits}/authority", f"{requests}/bruno.csr", f"out={folder}/added"]) == 0
    roster = folder / "added" / "server" / "sites" / "bruno.pub"
    (kits / "server" / "sites" / "bruno.pub").write_bytes(roster.read_bytes())
    return folder / "added" / "bruno"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_site_is_let_in_and_another_put_out_while_all_other_kits_stay_to_the_byte(backend, deployed, tmp_path):
    kits = deployed(backend)
    before = contents(kits)
    added = later(tmp_path, backend, kits)
    (kits / "server" / "sites" / "guys.pub").unlink()
    after = contents(kits)
    assert {*after} - {*before} == {f"{place}/bruno.{kind}" for place, kind in PLACES}
    assert {*before} - {*after} == {"server/sites/guys.pub"}
    assert {path: text for path, text in before.items() if path != "server/sites/guys.pub"}.items() <= after.items()
    assert {*contents(added)} == {*contents(kits / "kings"), "peers/bruno.csr"}
    names = {"flower": "site", "nvflare": "name"}
    assert Kit.read(added).setting(names[backend]) == "bruno"


def test_a_kit_of_an_earlier_version_does_not_start(deployed):
    kit = deployed("flower") / "kings"
    shutil.copy(own_key(kit.parents[1], "flower", "kings"), kit / KEYS["flower"])
    (kit / KEYS["flower"]).chmod(0o600)
    (kit / f"{KEYS['flower']}.pub").unlink()
    with pytest.raises(UserError, match=r"supernode.pub: is not there, .* make the kits anew"):
        flower.children(Kit.read(kit))


def test_a_server_without_a_roster_does_not_start(deployed):
    server = deployed("nvflare") / "server"
    assert nvflare.children(Kit.read(server))
    shutil.rmtree(server / "sites")
    with pytest.raises(UserError, match="no site would be let in; make the kits anew"):
        nvflare.children(Kit.read(server))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_site_or_a_key_that_is_in_the_federation_is_not_let_in_again(backend, deployed, tmp_path, capsys):
    kits = deployed(backend)
    before = contents(kits)
    command = ["deploy", "add", f"{kits}/authority", f"{tmp_path}/requests/kings.csr", f"out={tmp_path}/added"]
    assert main(command) == 2
    assert "kings: is in the federation" in capsys.readouterr().err
    key: Any = (load_ssh_private_key if backend == "flower" else load_pem_private_key)(
        own_key(tmp_path, backend, "kings").read_bytes(), None
    )
    (tmp_path / "requests" / "bruno.csr").write_bytes(request("bruno", key, hashes.SHA384()))
    assert main([*command[:3], f"{tmp_path}/requests/bruno.csr", command[4]]) == 2
    assert "bruno: has the key of kings" in capsys.readouterr().err
    assert contents(kits) == before
    assert not (tmp_path / "added").exists()


def test_names_that_only_case_tells_apart_are_not_in_one_federation(deployed, tmp_path):
    with pytest.raises(UserError, match="sites=Kings: is taken"):
        check_names(["kings", "Kings"])
    kits = deployed("flower")
    with pytest.raises(UserError, match="only case tells it from kings"):
        check_new(kits / "authority" / "sites", "Kings", STRONG.public_key())


def test_a_root_that_is_valid_no_longer_lets_nobody_in(deployed, tmp_path, monkeypatch):
    kits = deployed("nvflare")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=400)

    monkeypatch.setattr("flip.federation.nvflare.certificates.datetime", Later)
    with pytest.raises(UserError, match=r"rootCA\.pem: was valid until .*make them anew"):
        Root.read(kits / "authority")


def test_flowers_server_believes_the_site_that_came_and_no_longer_the_one_that_went(deployed, tmp_path):
    kits = deployed("flower")
    later(tmp_path, "flower", kits)
    (kits / "server" / "sites" / "guys.pub").unlink()
    assert sorted(public_keys(Kit.read(kits / "server")).values()) == ["bruno", "kings"]


@pytest.fixture
def flare(deployed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """FLARE's server with our roster before it: how it answers a registration, and any other message of a name's."""
    from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessagePropKey
    from nvflare.fuel.f3.drivers.driver_params import DriverParams
    from nvflare.fuel.f3.endpoint import Endpoint
    from nvflare.private.defs import CellMessageHeaderKeys
    from nvflare.private.fed.server.fed_server import FederatedServer

    monkeypatch.setattr(FederatedServer, "register_client", lambda self, request: "FLARE's to check")
    monkeypatch.setattr(FederatedServer, "_validate_auth_headers", lambda self, message: "FLARE's to check")
    kits = deployed("nvflare")
    guard(str(kits / "server"))
    logged: list[str] = []
    server: Any = SimpleNamespace(logger=SimpleNamespace(warning=logged.append))

    def message(name: str, certificate: bytes | None, connection: str | None, came: str, peer: str) -> Any:
        header: dict[str, Any] = {CellMessageHeaderKeys.CLIENT_NAME: name}
        if certificate is not None:
            header |= dict(zip(ABOUT, ("server", "task", "register"), strict=True))
        known = {MessagePropKey.ENDPOINT: Endpoint(came, conn_props={DriverParams.PEER_ADDR.value: peer})}
        known[MessagePropKey.COMMON_NAME] = connection
        return SimpleNamespace(
            get_header=header.get, get_prop=known.get, payload={IdentityChallengeKey.CERT: certificate}
        )

    def registers(name: str, kit: Path) -> bool:
        asked = message(name, (kit / "startup" / "client.crt").read_bytes(), kit.name, kit.name, OUTSIDE)
        assert FederatedServer._validate_auth_headers(server, asked) == "FLARE's to check"  # so that it is answered
        return bool(FederatedServer.register_client(server, asked) == "FLARE's to check")

    def speaks(name: str, connection: str | None = "", came: str = "", peer: str = OUTSIDE) -> bool:
        said = message(name, None, name if connection == "" else connection, came or name, peer)
        return bool(FederatedServer._validate_auth_headers(server, said) == "FLARE's to check")

    return SimpleNamespace(kits=kits, registers=registers, speaks=speaks, logged=logged, place=tmp_path)


def test_flares_server_lets_in_who_has_a_key_of_its_roster(flare):
    assert flare.registers("kings", flare.kits / "kings")
    assert flare.registers("researcher@flip.org", flare.kits / "admin")
    assert not flare.registers("kings", flare.kits / "guys")
    assert not flare.registers("kings", flare.kits / "admin")
    assert not flare.registers("../sites/kings", flare.kits / "kings")
    assert flare.speaks("kings")
    assert flare.speaks("kings", came="kings.JOB")  # the site's process of a job
    assert flare.speaks("researcher@flip.org", came="_admin_9")
    assert flare.speaks("server", connection=None, came="server")
    assert flare.speaks("server_job", connection="server", came="server.JOB", peer=INSIDE)  # the server's, of a job


@pytest.mark.parametrize(
    ("name", "connection", "came", "peer"),
    [
        ("server", "guys", "guys", OUTSIDE),  # each message of the server's has its token, for anybody to send again
        ("server_job", "guys", "guys.JOB", OUTSIDE),
        ("server_job", "server", "server.JOB", OUTSIDE),  # by a certificate of the server's name that was forged
        ("server_job", "guys", "server.JOB", INSIDE),
        ("kings", "kings2", "kings2", OUTSIDE),  # FLARE signs name and token as one text: kings2, 7f.. and kings, 27f..
        ("kings", "researcher@flip.org", "_admin_9", OUTSIDE),
        ("", "kings", "kings", OUTSIDE),
    ],
)
def test_flares_server_takes_a_message_from_whom_the_connection_is_alone(name, connection, came, peer, flare):
    assert not flare.speaks(name, connection, came, peer)


def test_flares_server_lets_in_a_site_that_comes_and_takes_nothing_more_of_one_that_went(flare):
    added = later(flare.place, "nvflare", flare.kits)
    assert flare.registers("bruno", added)
    assert flare.registers("guys", flare.kits / "guys")
    (flare.kits / "server" / "sites" / "guys.pub").unlink()
    assert not flare.registers("guys", flare.kits / "guys")  # though its certificate is the root's, and valid
    assert not flare.speaks("guys")  # though it has a token of before
    assert flare.registers("kings", flare.kits / "kings")
    assert "'guys' is not let in" in flare.logged[0]


def test_a_certificate_of_the_root_alone_opens_nothing(flare):
    """Whoever has got hold of the root's key makes a certificate with a site's name."""
    (flare.place / "requests" / "kings.csr").write_bytes(
        request("kings", rsa.generate_private_key(65537, 3072), hashes.SHA384())
    )
    (flare.kits / "authority" / "sites" / "kings.pub").unlink()
    command = ["deploy", "add", f"{flare.kits}/authority", f"{flare.place}/requests/kings.csr"]
    assert main([*command, f"out={flare.place}/forged"]) == 0
    assert not flare.registers("kings", flare.place / "forged" / "kings")


@pytest.mark.parametrize("certificate", [None, b"", b"no certificate", "text", 5])
def test_what_is_no_certificate_is_of_nobodys_key(certificate, made):
    assert not Roster(made["nvflare"] / "kits" / "server").holds("kings", certificate)
