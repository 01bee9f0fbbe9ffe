"""NVIDIA FLARE's kits: made by FLARE's own provisioner, with what a kit may do written by us. Contract: nvflare 2.9.

Each party gets its certificate and key, signed by a root that signs nothing after this: its key is thrown away. A site
that joins later needs all kits anew.
"""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

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
from flip.federation.nvflare.resources import server_resources, site_resources
from flip.federation.nvflare.session import USER
from flip.federation.supervise import Child
from flip.numerics import FAST

PROJECT, ORGANIZATION, ROLE = "flip", "flip", "lead"  # FLARE's names; a lead submits jobs, and sees his own alone
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
    sites: Sequence[str], out: Path, host: str = "localhost", port: int = 8002, *, numerics: str = FAST
) -> None:
    """Write the kits of a FLARE federation: `server`, `admin` (the researcher) and one per site.

    Args:
        sites: the sites' names.
        out: folder of the kits, not there yet.
        host: name or address that the sites and the researcher reach the server at.
        port: the server's port, 1 to 65535.
        numerics: how server and sites compute, `fast` or `portable`; a study that asks for more is refused.
    """
    check_numerics(numerics)
    if not 0 < port < 65536:
        raise UserError(f"port={port}: must be from 1 to 65535")
    with whole_or_not(out) as folder:
        made = provision(sites, folder / ".provisioned", host, port)
        for party, name, kind in [
            (SERVER, SERVER, SERVER),
            (ADMIN, USER, ADMIN),
            *((site, site, SITE) for site in sites),
        ]:
            write_kit(folder / party, made / name, kind, {"name": party, "numerics": numerics})
        shutil.rmtree(folder / ".provisioned")  # the root's key goes with it
    print(
        f"{out}: kits for the server, the researcher (admin) and {', '.join(sites)}\n"
        f"Every private key in them was made here: hand each folder over safely, and delete it here."
    )


def provision(sites: Sequence[str], work: Path, host: str, port: int) -> Path:
    """Have FLARE make the kits; returns the folder that holds one per party. Raises UserError with FLARE's words."""
    from nvflare.lighter.constants import CtxKey, PropKey
    from nvflare.lighter.entity import Project
    from nvflare.lighter.impl.cert import CertBuilder
    from nvflare.lighter.impl.static_file import StaticFileBuilder
    from nvflare.lighter.impl.workspace import WorkspaceBuilder
    from nvflare.lighter.provisioner import Provisioner

    work.mkdir(mode=0o700)
    try:
        project = Project(PROJECT, "a federation of FLIP's")
        project.set_server(
            SERVER, ORGANIZATION, {PropKey.FED_LEARN_PORT: port, PropKey.DEFAULT_HOST: host, PropKey.HOST_NAMES: [host]}
        )
        project.add_admin(USER, ORGANIZATION, {PropKey.ROLE: ROLE})
        for site in sites:
            project.add_client(site, ORGANIZATION, {})
    except ValueError as error:
        raise UserError(f"host={host}: {error}") from error
    static = StaticFileBuilder(config_folder="config", scheme="grpc", require_signed_jobs=True)
    log = logging.getLogger(__name__)
    result = Provisioner(str(work), [WorkspaceBuilder(), static, CertBuilder()]).provision(project, logger=log)
    if result.get(CtxKey.BUILD_ERROR):
        raise UserError(f"FLARE made no kits: {'; '.join(map(str, result.get(CtxKey.ERRORS, [])))}")
    return Path(result[CtxKey.CURRENT_PROD_DIR])


def write_kit(kit: Path, made: Path, kind: str, settings: dict[str, str]) -> None:
    """One party's folder: FLARE's files that it needs, what it permits, and what its reader has to know."""
    kit.mkdir(mode=0o700)
    (kit / "transfer").mkdir(mode=0o700)  # FLARE's, for jobs on their way
    for name in STARTUP[kind]:
        write(kit / "startup" / name, (made / "startup" / name).read_bytes())
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
        write_site(kit, readme + HANDOVER + "\n")
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
        check_site(name, kit.folder / SITE_FILE)
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


def check_site(name: str, file: Path) -> None:
    """Refuse a site's file that is not filled in, or that waves patients' data through. Raises UserError."""
    from flip.config.policy import Policy
    from flip.config.site_file import load_site

    Policy.read(name, load_site(file).policy, deployed=True)
