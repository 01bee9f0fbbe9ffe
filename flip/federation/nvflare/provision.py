"""NVIDIA FLARE's kits: made by FLARE's own provisioner, with what a kit may do written by us. Contract: nvflare 2.9.

Each party gets a certificate of a root, whose key is in the kit `authority` alone, for sites that join later. Such a
certificate lets nobody in by itself: the server's kit lists the public key of each party (`roster.py`).
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from flip.errors import UserError
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
from flip.federation.nvflare.certificates import ORGANIZATION, ROLE, ROOT, ROOT_KEY, Root, provision, public_of
from flip.federation.nvflare.resources import server_resources, site_resources
from flip.federation.nvflare.roster import RESEARCHER
from flip.federation.nvflare.session import USER
from flip.federation.peers import check_own, write_peers
from flip.federation.requests import KEYS, PublicKey, pem, read_all, same_key, shown
from flip.federation.supervise import Child
from flip.numerics import FAST

STARTUP = {  # FLARE's files of each party; its shell scripts stay behind
    SERVER: ("fed_server.json", "rootCA.pem", "server.crt", "server.key"),
    ADMIN: ("fed_admin.json", "rootCA.pem", "client.crt", "client.key"),
    SITE: ("fed_client.json", "rootCA.pem", "client.crt", "client.key"),
}
HEARTBEAT = 2.0  # seconds between a site's signs of life
LATER = 10.0  # seconds that a job waits at its end for sites that have gone
# `submit_job` of others, code that comes with a job (`byoc`), the shell and the rest of FLARE's rights: none.
RIGHTS = {"submit_job": "any", "manage_job": "n:submitter", "download_job": "n:submitter", "view": "any",
          "app_command": "n:submitter"}  # fmt: skip
SITE_RIGHTS = {"submit_job": "any", "manage_job": "n:submitter"}

INTERNAL = {"internal": {"scheme": "tcp", "resources": {"host": "localhost", "connection_security": "mtls"}}}
"""How a party's own processes meet: by the certificate of its kit. FLARE would let every account of the machine in."""


def prepare(
    sites: Sequence[str],
    out: Path,
    host: str = "localhost",
    port: int = 8002,
    *,
    requests: Path | None = None,
    numerics: str = FAST,
) -> None:
    """Write the kits of a FLARE federation: `server`, `admin` (the researcher), `authority`, and one per site.

    Args:
        sites: the sites' names.
        out: folder of the kits, not there yet.
        host: name or address that the sites and the researcher reach the server at.
        port: the server's port, 1 to 65535.
        requests: a folder with the `<site>.csr` of each site, which made its own key; without it keys are made here.
        numerics: how server and sites compute, `fast` or `portable`; a study that asks for more is refused.
    """
    check_numerics(numerics)
    if not 0 < port < 65536:
        raise UserError(f"port={port}: must be from 1 to 65535")
    known = read_all(requests, sites, "nvflare") if requests else {}
    with whole_or_not(out) as folder:
        made, root = provision(sites, folder / ".provisioned", host, port)
        for party, name, kind in [(SERVER, SERVER, SERVER), (ADMIN, USER, ADMIN)]:
            write_kit(folder / party, made / name, kind, {"name": party, "numerics": numerics})
        write(folder / SERVER / RESEARCHER, public_of(made / USER))
        write_authority(folder / AUTHORITY, root, {"host": host, "port": port, "numerics": numerics})
        for site in sites:
            own = known[site].key if site in known else None
            enlist(folder, site, write_site_kit(folder / site, made / site, root, own, numerics))
        write_peers([folder / each for each in (AUTHORITY, *sites)], known.values())
        shutil.rmtree(folder / ".provisioned")
    made_here = [SERVER, ADMIN, AUTHORITY, *(site for site in sites if site not in known)]
    print(
        f"{out}: kits for the server, the researcher (admin) and {', '.join(sites)}\nPrivate keys were made here for "
        f"{', '.join(made_here)}: hand each folder over safely, and delete it here.\n{shown(known)}".rstrip()
    )


def admit(authority: Kit, folder: Path, public: PublicKey) -> bytes:
    """Write the kit of one more site, named as the folder is; returns what the server's roster gets of it."""
    root = Root.read(authority.folder)
    work = folder.parent / ".provisioned"
    host, port, numerics = (authority.setting(key) for key in ("host", "port", "numerics"))
    made, _ = provision([folder.name], work, host, port, root)
    roster = write_site_kit(folder, made / folder.name, root, public, numerics)
    shutil.rmtree(work)
    return roster


def write_authority(folder: Path, root: Root, values: dict[str, object]) -> None:
    """What it takes to let a further site in: the root's key."""
    write(folder / KIT, yaml.safe_dump({"backend": "nvflare", "party": AUTHORITY, **values}))
    write(folder / ROOT, root.certificate)
    write(folder / ROOT_KEY, root.key)
    write(
        folder / README,
        "Let a site in: python -m flip deploy add <this folder> NAME.csr out=added/\n"
        f"Who has {ROOT_KEY} can pass for the server, and take a site's connection: keep it off line, or delete it.\n",
    )


def write_site_kit(folder: Path, made: Path, root: Root, public: PublicKey | None, numerics: str) -> bytes:
    """A site's kit, its folder named after it; without a private key where the site has made its own.

    Returns the public key for the roster (PEM).
    """
    if public:
        (made / "startup" / "client.key").unlink()
        (made / "startup" / "client.crt").write_bytes(root.sign(folder.name, public))
    write_kit(folder, made, SITE, {"name": folder.name, "numerics": numerics})
    return public_of(made)


def write_kit(kit: Path, made: Path, kind: str, settings: dict[str, str]) -> None:
    """One party's folder: FLARE's files that it needs, what it permits, and what its reader has to know."""
    kit.mkdir(mode=0o700)
    (kit / "transfer").mkdir(mode=0o700)  # FLARE's, for jobs on their way
    here = {name: made / "startup" / name for name in STARTUP[kind] if (made / "startup" / name).exists()}
    for name, path in here.items():
        write(kit / "startup" / name, path.read_bytes())
    if kind == ADMIN:
        write(kit / "local" / "resources.json", (made / "local" / "resources.json.default").read_bytes())
    else:
        rights = {"format_version": "1.0", "permissions": {ROLE: RIGHTS if kind == SERVER else SITE_RIGHTS}}
        write(kit / "local" / "authorization.json", json.dumps(rights, indent=2))
        write(kit / "local" / "log_config.json", (made / "local" / "log_config.json.default").read_bytes())
    write(kit / KIT, yaml.safe_dump({"backend": "nvflare", "party": kind, **settings}))
    readme = {
        SERVER: "The server of a federated study, on the machine that the sites reach. Needed there: flip-engine.\n"
        "Start it in this folder: python -m flip start .\n",
        ADMIN: "What a researcher submits studies with: python -m flip experiment=... federation=nvflare_provisioned\n"
        "federation.kit=<this folder>. Whoever has it can run studies at the sites, as their policies permit.\n",
        SITE: f"The site {settings['name']}. Needed on its machine: flip-engine. Fill in {SITE_FILE}, which stays\n"
        "here; then start it in this folder: python -m flip start .\n",
    }[kind]
    if kind == SITE:
        own = f"Put what you made into it (chmod 600): the key as {KEYS['nvflare']}, {SECRET} beside this file."
        made_here = "client.key" in here
        write_site(kit, f"{readme}{HANDOVER if made_here else own}\n", made_here=made_here)
    else:
        write(kit / README, readme + HANDOVER + "\n")


def children(kit: Kit) -> list[Child]:
    """FLARE's server, or its client of a site. Raises UserError for a kit that is no such, or is not filled in."""
    if kit.party not in (SERVER, SITE):
        raise UserError(f"{kit.folder}: a researcher's kit is not started; give it as federation.kit={kit.folder}")
    if re.search(r"\s", str(kit.folder)):
        raise UserError(f"{kit.folder}: FLARE's commands have no room for a blank in a path; move the kit")
    name = str(kit.setting("name"))
    if kit.party == SITE:
        check_key(kit.folder)
        check_site(name, kit.folder / SITE_FILE)
        check_own(kit.folder / SITE_FILE)
    elif not (kit.folder / ROSTER).is_dir():
        raise UserError(f"{kit.folder / ROSTER}: is not there, so that no site would be let in; make the kits anew")
    os.umask(0o077)  # what FLARE writes is for the owner of the kit alone
    resources = server_resources(kit.folder) if kit.party == SERVER else site_resources()
    (kit.folder / "local" / "resources.json").write_text(json.dumps(resources, indent=2))
    (kit.folder / "local" / "comm_config.json").write_text(json.dumps(INTERNAL, indent=2))
    program = "server.server_train" if kit.party == SERVER else "client.client_train"
    settings = [
        "secure_train=true",
        f"org={ORGANIZATION}",
        "config_folder=config",
        *([] if kit.party == SERVER else [f"uid={name}", f"heart_beat_interval={HEARTBEAT}"]),
    ]
    file = "fed_server.json" if kit.party == SERVER else "fed_client.json"
    command = [sys.executable, "-u", "-m", f"nvflare.private.fed.app.{program}"]
    environment = {
        **kit.numerics(),
        "PYTHONSAFEPATH": "1",
        "TMPDIR": str(temporary_files(kit.folder)),
        "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": str(LATER),
        "NVFLARE_DEAD_CLIENT_GRACE_PERIOD": "1.0",
    }
    return [Child([*command, "-m", str(kit.folder), "-s", file, "--set", *settings], environment)]


def check_key(folder: Path) -> None:
    """Refuse a site's private key that is missing, that others can read, or that is not its certificate's."""
    path = folder / KEYS["nvflare"]
    keep_private(path)
    same_key(path, load_pem_private_key, pem, public_of(folder))


def check_site(name: str, file: Path) -> None:
    """Refuse a site's file that is not filled in, or that waves patients' data through. Raises UserError."""
    from flip.config.policy import Policy
    from flip.config.site_file import load_site

    Policy.read(name, load_site(file).policy, deployed=True)
