"""Kits of a federation over Flower: a certificate for the server, a key pair per site, a token for the researcher."""

import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flip.config.site_file import load_site
from flip.errors import UserError
from flip.federation.kit import (
    ADMIN,
    HANDOVER,
    KIT,
    README,
    SERVER,
    SITE,
    SITE_FILE,
    Kit,
    check_numerics,
    temporary_files,
    whole_or_not,
    write,
    write_site,
)
from flip.federation.supervise import Child
from flip.numerics import FAST

CA, CERTIFICATE, CERTIFICATE_KEY, TOKEN, KEY = "ca.crt", "server.crt", "server.key", "token", "supernode"
KEYS = "sites"  # in the server's kit: a public key per site, `<site>.pub`; the roster that the server believes
VALID = timedelta(days=730)  # of the server's certificate; afterwards the kits are made again
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds until a submitted study starts; Flower's own is 1
    "PYTHONSAFEPATH": "1",  # nothing is imported from the working folder
}


def prepare(
    sites: Sequence[str],
    out: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    runs: Path = Path("runs"),
    public_keys: Path | None = None,
    numerics: str = FAST,
) -> None:
    """Write the kits of a server, of a researcher and of each site into a new folder.

    Args:
        sites: the sites' names.
        out: the folder; it must not be there yet.
        host: address (a name or an IP) at which sites and researcher reach the server.
        port: TCP port of the server.
        runs: the folder of runs that server and researcher share; `paths.runs` of the researcher's studies.
        public_keys: a folder with a `<site>.pub` that each site has made itself; without it the keys are made here.
        numerics: how server and sites compute, `fast` or `portable`; a study that asks for more is refused.
    """
    check_numerics(numerics)
    known = read_public_keys(public_keys, sites) if public_keys else {}
    with whole_or_not(out) as folder:
        (authority, certificate, key), token = certificates(host), secrets.token_urlsafe(32)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        shared = str(runs.expanduser().absolute())
        write_server(folder / SERVER, {"bind": bound(host), "port": port, "runs": shared, "numerics": numerics})
        for name, content in ((CA, authority), (CERTIFICATE, certificate), (CERTIFICATE_KEY, key), (TOKEN, token)):
            write(folder / SERVER / name, content)
        write_admin(folder / ADMIN, address, authority, token)
        for name in sites:
            private, public = (None, known[name]) if name in known else key_pair()
            write(folder / SERVER / KEYS / f"{name}.pub", public)
            write_site_kit(folder / name, {"address": address, "numerics": numerics}, authority, private)
    made = ", ".join([SERVER, ADMIN, *(name for name in sites if name not in known)])
    print(f"{out}: kits of {SERVER}, {ADMIN}, {', '.join(sites)}\nSecrets were made here for {made}: "
          "hand those folders over safely, and delete them here.")  # fmt: skip


def children(kit: Kit) -> list[Child]:
    """What `start` runs for a kit. Raises UserError for one that is not filled in, or that others can read."""
    if kit.party == SERVER:
        keep_private(kit.folder / CERTIFICATE_KEY)
        Path(str(kit.setting("runs"))).mkdir(parents=True, exist_ok=True)
        return [Child([sys.executable, "-m", "flip.federation.flower.server", str(kit.folder)], surroundings(kit))]
    if kit.party == SITE:
        keep_private(kit.folder / KEY)
        load_site(kit.folder / SITE_FILE)
        return [Child([sys.executable, "-m", "flip.federation.flower.supernode", str(kit.folder)], surroundings(kit))]
    raise UserError(f"{kit.folder}: is nothing to start; use it as federation.kit={kit.folder}")


def surroundings(kit: Kit) -> dict[str, str]:
    """Settings of a party's processes."""
    return {**ENVIRONMENT, **kit.numerics(), "TMPDIR": str(temporary_files(kit.folder))}


def keep_private(path: Path) -> None:
    """Refuse a key that is missing or that others can read. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: is missing; put the private key that belongs to this kit there")
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: others can read this key: chmod 600 it")


def certificates(host: str) -> tuple[bytes, bytes, bytes]:
    """A certificate authority's certificate, and the server's certificate and private key, as PEM.

    The authority's own key is not kept: nobody can make a second server that the sites would trust.
    """
    authority_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FLIP federation")])
    names = [address_name(each) for each in dict.fromkeys([host, "localhost", "127.0.0.1"])]

    def signed(subject: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))  # clocks of hospitals differ
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(authority_key, hashes.SHA384())

    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FLIP server")])
    own, other = signed(issuer, authority_key.public_key(), True), signed(server, key.public_key(), False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return own.public_bytes(serialization.Encoding.PEM), other.public_bytes(serialization.Encoding.PEM), private


def address_name(host: str) -> x509.GeneralName:
    """How a certificate names a host."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def bound(host: str) -> str:
    """The address to listen on: the host's own IP, or for a name every address of the machine."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "0.0.0.0"


def key_pair() -> tuple[bytes, bytes]:
    """A site's private and public key (ECDSA on P-384), as OpenSSH writes them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public


def read_public_keys(folder: Path, sites: Sequence[str]) -> dict[str, bytes]:
    """The public keys that sites handed in. Raises UserError with every one that is missing or no such key."""
    found, problems = {}, []
    for name in sites:
        path = folder / f"{name}.pub"
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
            if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
                raise ValueError("not on the curve P-384")
            found[name] = path.read_bytes()
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            problems.append(f"{path}: {error}; the site makes it with ssh-keygen -t ecdsa -b 384 -N '' -f {KEY}")
    if len({content.split()[1] for content in found.values()}) < len(found):
        problems.append(f"public_keys={folder}: two sites have the same key; each makes its own")
    if problems:
        raise UserError(problems)
    return found


def settings(party: str, values: dict[str, object]) -> str:
    """The text of a `kit.yaml`."""
    return str(yaml.safe_dump({"backend": "flower", "party": party, **values}, sort_keys=False))


def write_server(folder: Path, values: dict[str, object]) -> None:
    """The server's settings, with what they mean, and its three lines."""
    write(
        folder / KIT,
        "# The server of this federation: python -m flip start <this folder>\n"
        + settings(SERVER, values)
        + "# bind: address to listen on, 0.0.0.0 for all; port: TCP; runs: the folder of runs that is shared with the\n"
        + f"# researcher (paths.runs of the study). {KEYS}/<site>.pub is the roster: remove a site's file and start\n"
        + "# again, and the site is out. numerics: fast, or portable (equal bits on every x86-64 with AVX2).\n",
    )
    write(
        folder / README,
        f"Start: `python -m flip start {os.curdir}` in this folder; ctrl-c or SIGTERM ends it.\n"
        "Whoever may log in to this machine, or holds the kit admin, can run code here: give it no other users.\n"
        f"{HANDOVER}\n",
    )


def write_admin(folder: Path, address: str, authority: bytes, token: str) -> None:
    """The researcher's kit: where the server is, how to know it, and what opens it."""
    write(folder / KIT, settings(ADMIN, {"address": address}))
    write(folder / CA, authority)
    write(folder / TOKEN, token)
    write(folder / README, admin_readme())


def write_site_kit(folder: Path, values: dict[str, object], authority: bytes, private: bytes | None) -> None:
    """A site's kit, its folder named after it; without a private key where the site has made its own."""
    write(folder / KIT, settings(SITE, {"site": folder.name, **values}))
    write(folder / CA, authority)
    if private:
        write(folder / KEY, private)
    write_site(folder, site_readme(folder.name, made_here=private is not None))


def admin_readme() -> str:
    """The three lines of the researcher's kit."""
    return (
        "Run a study: `python -m flip experiment=heart_disease sites=heart federation=flower_superlink "
        "federation.kit=<this folder>`.\n"
        "On a machine that shares the server's folder of runs (paths.runs).\n"
        "The token in it lets its holder run code at the server, though not at the sites: keep it to yourself.\n"
    )


def site_readme(name: str, *, made_here: bool) -> str:
    """The three lines of a site's kit."""
    key = HANDOVER if made_here else f"Put the private key that you made beside this file, as `{KEY}` (chmod 600)."
    return (
        f"1. {key}\n"
        f"2. Fill in each ??? of {SITE_FILE}: where the data of {name} lie here, and what {name} permits.\n"
        f"3. Start: `python -m flip start {os.curdir}` in this folder; ctrl-c or SIGTERM ends it.\n"
    )
