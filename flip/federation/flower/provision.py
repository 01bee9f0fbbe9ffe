"""Kits of a federation over Flower: a certificate for the server, a key pair per site, a token for the researcher."""

import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flip.config.site_file import load_site
from flip.errors import UserError
from flip.federation.flower.certificates import certificates
from flip.federation.kit import (
    ADMIN,
    AUTHORITY,
    HANDOVER,
    KIT,
    README,
    ROSTER,
    SECRET,
    SERVER,
    SITE,
    SITE_FILE,
    Kit,
    check_numerics,
    enlist,
    keep_private,
    temporary_files,
    whole_or_not,
    write,
    write_site,
)
from flip.federation.peers import check_own, write_peers
from flip.federation.requests import KEYS, PublicKey, openssh, read_all, same_key, shown
from flip.federation.supervise import Child
from flip.numerics import FAST

CA, CERTIFICATE, CERTIFICATE_KEY, TOKEN, KEY = "ca.crt", "server.crt", "server.key", "token", KEYS["flower"]
PUBLIC = f"{KEY}.pub"  # in a site's kit: the public half of its key
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
    requests: Path | None = None,
    numerics: str = FAST,
) -> None:
    """Write the kits of a server, of a researcher and of each site into a new folder.

    Args:
        sites: the sites' names.
        out: the folder; it must not be there yet.
        host: address (a name or an IP) at which sites and researcher reach the server.
        port: TCP port of the server.
        runs: the folder of runs that server and researcher share; `paths.runs` of the researcher's studies.
        requests: a folder with the `<site>.csr` of each site, which made its own key; without it keys are made here.
        numerics: how server and sites compute, `fast` or `portable`; a study that asks for more is refused.
    """
    check_numerics(numerics)
    known = read_all(requests, sites, "flower") if requests else {}
    with whole_or_not(out) as folder:
        (authority, certificate, key), token = certificates(host), secrets.token_urlsafe(32)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        shared = str(runs.expanduser().absolute())
        write_server(folder / SERVER, {"bind": bound(host), "port": port, "runs": shared, "numerics": numerics})
        for name, content in ((CA, authority), (CERTIFICATE, certificate), (CERTIFICATE_KEY, key), (TOKEN, token)):
            write(folder / SERVER / name, content)
        write_admin(folder / ADMIN, address, authority, token)
        write_authority(folder / AUTHORITY, {"address": address, "numerics": numerics}, authority)
        for name in sites:
            private, public = (None, openssh(known[name].key)) if name in known else key_pair()
            enlist(folder, name, public)
            write_site_kit(folder / name, {"address": address, "numerics": numerics}, authority, (private, public))
        write_peers([folder / each for each in (AUTHORITY, *sites)], known.values())
    made = ", ".join([SERVER, ADMIN, *(name for name in sites if name not in known)])
    print(f"{out}: kits of {SERVER}, {ADMIN}, {', '.join(sites)}\nSecrets were made here for {made}: "
          f"hand those folders over safely, and delete them here.\n{shown(known)}".rstrip())  # fmt: skip


def admit(authority: Kit, folder: Path, public: PublicKey) -> bytes:
    """Write the kit of one more site, named as the folder is; returns what the server's roster gets of it."""
    values = {key: authority.setting(key) for key in ("address", "numerics")}
    write_site_kit(folder, values, (authority.folder / CA).read_bytes(), (None, openssh(public)))
    return openssh(public)


def children(kit: Kit) -> list[Child]:
    """What `start` runs for a kit. Raises UserError for one that is not filled in, or that others can read."""
    if kit.party == SERVER:
        keep_private(kit.folder / CERTIFICATE_KEY)
        Path(str(kit.setting("runs"))).mkdir(parents=True, exist_ok=True)
        return [Child([sys.executable, "-m", "flip.federation.flower.server", str(kit.folder)], surroundings(kit))]
    if kit.party == SITE:
        check_key(kit.folder)
        load_site(kit.folder / SITE_FILE)
        check_own(kit.folder / SITE_FILE)
        return [Child([sys.executable, "-m", "flip.federation.flower.supernode", str(kit.folder)], surroundings(kit))]
    raise UserError(f"{kit.folder}: is nothing to start; use it as federation.kit={kit.folder}")


def surroundings(kit: Kit) -> dict[str, str]:
    """Settings of a party's processes."""
    return {**ENVIRONMENT, **kit.numerics(), "TMPDIR": str(temporary_files(kit.folder))}


def check_key(folder: Path) -> None:
    """Refuse a site's private key that is missing, that others can read, or that is not this kit's."""
    path = folder / KEY
    keep_private(path)
    if not (folder / PUBLIC).is_file():
        raise UserError(f"{folder / PUBLIC}: is not there, as in kits of earlier versions; make the kits anew")
    same_key(path, serialization.load_ssh_private_key, openssh, (folder / PUBLIC).read_bytes())


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
    return private, openssh(key.public_key())


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
        + f"# researcher (paths.runs of the study). {ROSTER}/<site>.pub is the roster: remove a site's file and start\n"
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


def write_authority(folder: Path, values: dict[str, object], authority: bytes) -> None:
    """What it takes to let a further site in; over Flower nothing of it is secret."""
    write(folder / KIT, settings(AUTHORITY, values))
    write(folder / CA, authority)
    write(folder / README, "Let a site in: `python -m flip deploy add <this folder> NAME.csr out=added/`.\n")


def write_site_kit(folder: Path, values: dict[str, object], authority: bytes, keys: tuple[bytes | None, bytes]) -> None:
    """A site's kit, its folder named after it; without a private key where the site has made its own."""
    private, public = keys
    write(folder / KIT, settings(SITE, {"site": folder.name, **values}))
    write(folder / CA, authority)
    write(folder / PUBLIC, public)
    if private:
        write(folder / KEY, private)
    made_here = private is not None
    write_site(folder, site_readme(folder.name, made_here=made_here), made_here=made_here)


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
    own = f"Put what you made beside this file (chmod 600): the private key as `{KEY}`, and `{SECRET}`."
    key = HANDOVER if made_here else own
    return (
        f"1. {key}\n"
        f"2. Fill in each ??? of {SITE_FILE}: where the data of {name} lie here, and what {name} permits.\n"
        f"3. Start: `python -m flip start {os.curdir}` in this folder; ctrl-c or SIGTERM ends it.\n"
    )
