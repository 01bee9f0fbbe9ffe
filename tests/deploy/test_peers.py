"""A kit carries the public keys of the site's peers, as each has signed its own; the site's owner believes them."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_private_key

from flip.__main__ import main
from flip.errors import UserError
from flip.federation.kit import Kit
from flip.federation.peers import public_key
from flip.federation.requests import IDENTITY, OCTETS, fingerprint, read
from flip.site.identity import identity
from flip.site.secret import make_secret
from tests.deploy.kits import BACKENDS, PROVISION, asked, contents, own_key, put_in, request, said

KEY, SHA = ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()
ATTACKER = request("guys", KEY, SHA)  # a request that is right, but made by somebody else
OWN = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()


@dataclass
class Hospital:
    """The hospital kings, whose kit over Flower is filled in, and its peer guys."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def kit(self) -> Path:
        return self.folder / "kits" / "kings"

    @property
    def file(self) -> Path:
        return self.kit / "site.yaml"

    def says(self, *words: str) -> tuple[int, str]:
        """Exit status of `flip site WORDS`, and what it prints."""
        self.capsys.readouterr()
        status = main(["site", *words])
        told = self.capsys.readouterr()
        return status, told.out + told.err

    def peers(self) -> str:
        """What `flip site peers` prints, which changes nothing."""
        before = contents(self.folder)
        status, told = self.says("peers", str(self.kit / "peers"), str(self.file))
        assert status == 0, told
        assert contents(self.folder) == before
        return told

    def refused(self) -> str:
        """What it complains of."""
        status, told = self.says("peers", str(self.kit / "peers"), str(self.file))
        assert status == 2
        assert "Traceback" not in told
        return told

    def accept(self, told: str) -> None:
        """The owner writes the line that was printed into the file."""
        values = yaml.safe_load(self.file.read_text())
        self.file.write_text(yaml.safe_dump({**values, **yaml.safe_load(told.splitlines()[-1])}))

    def fingerprint(self, site: str = "guys") -> str:
        """What the people of a site say that they were shown."""
        private: Any = load_ssh_private_key(own_key(self.folder, "flower", site).read_bytes(), None)
        return fingerprint(private.public_key())


@pytest.fixture
def kings(deployed: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Hospital:
    deployed("flower")
    put_in(tmp_path, "flower", "kings")
    return Hospital(tmp_path, capsys)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_kit_has_the_request_of_each_site_and_names_where_the_sites_secret_belongs(backend, made):
    kits = made[backend] / "kits"
    sent = {f"peers/{path.name}": path.read_bytes() for path in (made[backend] / "requests").iterdir()}
    assert {*sent} == {"peers/kings.csr", "peers/guys.csr"}
    for party in ("kings", "guys", "authority"):
        assert sent.items() <= contents(kits / party).items()
    assert not (kits / "server" / "peers").exists()
    for site in ("kings", "guys"):
        assert yaml.safe_load((kits / site / "site.yaml").read_text())["secret"] == "secret"
        assert re.search("`secret`|secret beside this file", (kits / site / "README.md").read_text())


def test_nothing_but_the_request_goes_from_its_file_into_the_kits_of_others(tmp_path):
    requests = asked(tmp_path, "flower", "kings", "guys")
    sent = (requests / "kings.csr").read_bytes()
    private = own_key(tmp_path, "flower", "kings").read_bytes()
    (requests / "kings.csr").write_bytes(private + sent + private)  # somebody has put all into one file
    PROVISION["flower"].prepare(["kings", "guys"], tmp_path / "kits", requests=requests)
    assert (tmp_path / "kits" / "guys" / "peers" / "kings.csr").read_bytes() == sent
    assert not any(private[100:200] in text for text in contents(tmp_path / "kits").values())


def test_a_peer_is_shown_with_the_fingerprint_to_ask_it_for_and_the_line_that_accepts_its_key(kings):
    told = kings.peers()
    theirs = public_key(put_in(kings.folder, "flower", "guys"))
    assert f"guys                 new  {theirs}\n{'':<20} fingerprint {kings.fingerprint()}\n" in told
    assert "This site is kings. Ask each new or changed site itself for its fingerprint, by another way" in told
    assert yaml.safe_load(told.splitlines()[-1]) == {"peers": {"guys": theirs}}
    kings.accept(told)
    assert f"guys                 as before  {theirs}" in kings.peers()


def test_a_peer_that_went_and_one_whose_key_is_another_are_told(kings):
    values = yaml.safe_load(kings.file.read_text())
    kings.file.write_text(yaml.safe_dump({**values, "peers": {"guys": "ab" * 32, "bruno": "cd" * 32}}))
    told = kings.peers()
    assert f"guys                 CHANGED from {'ab' * 32} to" in told
    assert f"bruno                GONE  {'cd' * 32}" in told


def test_who_prepares_the_kits_cannot_stand_in_for_a_site_without_another_fingerprint(kings):
    kings.accept(kings.peers())
    (kings.kit / "peers" / "guys.csr").write_bytes(ATTACKER)
    told = kings.peers()
    assert "guys                 CHANGED" in told
    assert f"fingerprint {fingerprint(KEY.public_key())}" in told
    assert kings.fingerprint() not in told


def test_a_request_with_another_key_in_sums_than_its_site_signed_is_refused(kings):
    path = kings.kit / "peers" / "guys.csr"
    whole = x509.load_pem_x509_csr(path.read_bytes())
    theirs = bytes.fromhex(read(path, "flower").identity)
    changed = whole.public_bytes(Encoding.DER).replace(theirs, OWN)
    path.write_bytes(x509.load_der_x509_csr(changed).public_bytes(Encoding.PEM))
    assert "guys.csr: was changed after it was signed" in kings.refused()


def test_another_sites_key_in_sums_is_nobodys_to_take(kings):
    path = kings.kit / "peers" / "guys.csr"
    theirs = x509.load_pem_x509_csr(path.read_bytes()).extensions.get_extension_for_oid(IDENTITY).value
    path.write_bytes(request("guys", KEY, SHA, told=theirs))  # signed anew, by the attacker's joining key
    assert "its key for secure sums is another's: that key did not sign this name and key" in kings.refused()


def test_two_sites_with_one_key_in_sums_are_refused(kings):
    shared = ed25519.Ed25519PrivateKey.generate()
    for name, key in (("bruno", KEY), ("thomas", ec.generate_private_key(ec.SECP384R1()))):
        text = request(name, key, SHA, told=said(key, name, shared))
        (kings.kit / "peers" / f"{name}.csr").write_bytes(text)
    assert "bruno and thomas have the same key for secure sums; each site has its own" in kings.refused()


def test_names_that_only_case_tells_apart_are_refused(kings):
    (kings.kit / "peers" / "Guys.csr").write_bytes(request("Guys", KEY, SHA))
    assert "Guys and guys have names that only case tells apart" in kings.refused()


@pytest.mark.parametrize(("text", "words"), [
    (b"", "it has no key for secure sums, as those of earlier versions"),
    (b"\x04", "its key for secure sums is malformed"),
    (OCTETS + bytes(95), "its key for secure sums is malformed"),
    (OCTETS + bytes(97), "its key for secure sums is malformed"),
    (b"\x05" + OCTETS[1:] + bytes(96), "its key for secure sums is malformed"),
    (OCTETS + bytes(9000), "its key for secure sums is malformed"),
    (OCTETS + bytes(20000), "it has more than 16384 bytes"),
    (OCTETS + OWN + bytes(64), "its key for secure sums is another's"),
], ids=["none", "short", "a byte less", "a byte more", "no string", "long", "too long", "unsigned"])  # fmt: skip
def test_a_request_whose_key_in_sums_is_none_has_one_clear_answer(text, words, tmp_path):
    told = x509.UnrecognizedExtension(IDENTITY, text) if text else b""
    (tmp_path / "guys.csr").write_bytes(request("guys", KEY, SHA, told=told))
    with pytest.raises(UserError) as refused:
        read(tmp_path / "guys.csr", "flower")
    [problem] = refused.value.problems
    assert words in problem and problem.isprintable()
    assert f"{tmp_path}/guys.csr: is no request for flower; flip site request flower guys FOLDER makes it" in problem


def test_extensions_that_are_no_der_have_one_clear_answer(tmp_path):
    usage = x509.UnrecognizedExtension(x509.ExtensionOID.KEY_USAGE, b"none")
    (tmp_path / "guys.csr").write_bytes(request("guys", KEY, SHA, usage))
    with pytest.raises(UserError, match="is no request for flower"):
        read(tmp_path / "guys.csr", "flower")


def test_requests_without_this_sites_own_are_refused(kings):
    own = kings.kit / "peers" / "kings.csr"
    own.write_bytes(request("kings", KEY, SHA))
    assert "is not the secret that peers/kings.csr was made with" in kings.refused()
    own.unlink()
    assert "kings.csr: is no request for flower" in kings.refused()
    elsewhere = kings.folder / "came"
    elsewhere.mkdir()
    shutil.copy(kings.kit / "peers" / "guys.csr", elsewhere)
    own.write_bytes((kings.folder / "requests" / "kings.csr").read_bytes())
    status, told = kings.says("peers", str(elsewhere), str(kings.file))
    assert status == 2 and "came/kings.csr: is not there, this site's own request" in told


# The secret of which the key in sums comes.


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kit_takes_the_secret_that_it_was_asked_for_with(backend, deployed, tmp_path, capsys):
    kits = deployed(backend)
    file = put_in(tmp_path, backend, "kings")
    kit, secret = Kit.read(kits / "kings"), kits / "kings" / "secret"
    assert PROVISION[backend].children(kit)
    assert main(["site", "check", str(file)]) == 0
    assert main(["site", "peer", str(file)]) == 0
    told = read(kits / "guys" / "peers" / "kings.csr", backend).identity
    assert capsys.readouterr().out.splitlines()[-1] == told
    secret.unlink()
    refusals(kit, file, f"{secret}: is missing; put the file secret that flip site request made there", capsys)
    assert not secret.exists()
    make_secret(secret)
    refusals(kit, file, f"{secret}: is not the secret that peers/kings.csr was made with", capsys)
    secret.write_bytes(b"short")
    refusals(kit, file, f"{secret}: is no secret; put the file secret that flip site request made there", capsys)
    secret.chmod(0o640)
    refusals(kit, file, "others can read the site's secret", capsys)


def refusals(kit: Kit, file: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither does the kit start, nor is its file right, nor does it say a key."""
    with pytest.raises(UserError, match=re.escape(words)):
        PROVISION[kit.backend].children(kit)
    for command in ("check", "peer"):
        assert main(["site", command, str(file)]) == 2
        assert words in capsys.readouterr().err


def test_a_kit_without_requests_makes_its_own_secret_and_starts_as_before(kings):
    shutil.rmtree(kings.kit / "peers")
    (kings.kit / "secret").unlink()
    assert PROVISION["flower"].children(Kit.read(kings.kit))
    assert kings.says("check", str(kings.file))[0] == 0
    assert not (kings.kit / "secret").exists()  # a look makes nothing
    assert kings.says("peer", str(kings.file))[0] == 0
    assert (kings.kit / "secret").stat().st_mode & 0o777 == 0o600


def test_the_requests_of_others_in_a_kit_without_its_own_change_nothing_there(kings):
    (kings.kit / "peers" / "kings.csr").unlink()
    file = yaml.safe_load(kings.file.read_text())
    kings.file.write_text(yaml.safe_dump({**file, "secret": None}))
    assert PROVISION["flower"].children(Kit.read(kings.kit))
    for command in ("check", "peer"):
        assert kings.says(command, str(kings.file))[0] == 0


# A site that comes.


def test_a_key_of_the_roster_that_cannot_be_read_is_named(kings):
    (kings.folder / "kits/authority/sites/guys.pub").write_text("-----BEGIN PUBLIC KEY-----")
    status, told = added(kings)
    assert status == 2 and "sites/guys.pub: is no public key; put that of the server's kit there" in told
    assert not (kings.folder / "added").exists()


def added(kings: Hospital, name: str = "bruno") -> tuple[int, str]:
    """What `flip deploy add` says of one more site."""
    sent = asked(kings.folder, "flower", name) / f"{name}.csr"
    kings.capsys.readouterr()
    status = main(["deploy", "add", f"{kings.folder}/kits/authority", str(sent), f"out={kings.folder}/added"])
    told = kings.capsys.readouterr()
    return status, told.out + told.err


def test_a_site_that_comes_has_the_others_requests_and_the_others_take_its_own_without_a_new_kit(kings):
    status, told = added(kings)
    assert status == 0
    assert "its kit has the requests of guys, kings; give" in told and "bruno.csr to each other site" in told
    assert {path.name for path in (kings.folder / "added/bruno/peers").iterdir()} == {
        *("bruno.csr", "guys.csr", "kings.csr")
    }
    kings.accept(kings.peers())
    shutil.copy(kings.folder / "requests" / "bruno.csr", kings.kit / "peers")
    told = kings.peers()
    assert "guys                 as before" in told and "bruno                new" in told
    assert f"fingerprint {kings.fingerprint('bruno')}" in told


def test_a_kit_that_is_made_later_has_no_request_of_a_site_that_went(kings):
    (kings.folder / "kits/authority/sites/guys.pub").unlink()
    assert added(kings)[0] == 0
    assert not (kings.folder / "added/bruno/peers/guys.csr").exists()
    assert (kings.folder / "added/bruno/peers/kings.csr").exists()


def test_a_request_that_is_not_of_the_rosters_key_goes_into_no_kit(kings):
    (kings.folder / "kits/authority/peers/guys.csr").write_bytes(ATTACKER)
    status, told = added(kings)
    assert status == 2 and "peers/guys.csr: is not of the key in sites/guys.pub" in told
    assert not (kings.folder / "added").exists()


def test_a_site_that_comes_with_the_key_in_sums_of_another_is_not_let_in(kings):
    theirs = identity((kings.folder / "own-guys" / "secret").read_bytes())
    sent = kings.folder / "bruno.csr"
    sent.write_bytes(request("bruno", KEY, SHA, told=said(KEY, "bruno", theirs)))
    before = contents(kings.folder)
    assert main(["deploy", "add", f"{kings.folder}/kits/authority", str(sent), f"out={kings.folder}/added"]) == 2
    assert "guys and bruno have the same key for secure sums" in kings.capsys.readouterr().err
    assert contents(kings.folder) == before


def test_an_authority_of_before_gives_the_new_site_its_own_request_alone(kings):
    shutil.rmtree(kings.folder / "kits/authority/peers")
    status, told = added(kings)
    assert status == 0 and "No other site is known by a request" in told
    assert [path.name for path in (kings.folder / "added/bruno/peers").iterdir()] == ["bruno.csr"]
