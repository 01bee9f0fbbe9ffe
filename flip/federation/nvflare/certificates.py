"""What FLARE's own provisioner makes: certificates and settings of each party, under one root. Contract: 2.9."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from flip.errors import UserError
from flip.federation.kit import SERVER
from flip.federation.nvflare.session import USER
from flip.federation.requests import PublicKey, pem

ROOT, ROOT_KEY = "rootCA.pem", "root.key"  # in the kit `authority`
PROJECT, ORGANIZATION, ROLE = "flip", "flip", "lead"  # FLARE's names; a lead submits jobs, and sees his own alone


@dataclass(frozen=True)
class Root:
    """What signs certificates: the root's own, and its private key, both PEM."""

    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, folder: Path) -> "Root":
        """That of the kit `authority`. Raises UserError where it is not there any more, or valid no longer."""
        try:
            root = cls((folder / ROOT).read_bytes(), (folder / ROOT_KEY).read_bytes())
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; without it all kits are made anew") from error
        if root.end <= datetime.now(UTC):
            raise UserError(f"{folder / ROOT}: was valid until {root.end:%Y-%m-%d}, as all its kits; make them anew")
        return root

    @property
    def end(self) -> datetime:
        """Until when it is valid, and every certificate that it signs."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def private(self) -> rsa.RSAPrivateKey:
        """The private key."""
        key = load_pem_private_key(self.key, None)
        assert isinstance(key, rsa.RSAPrivateKey)  # FLARE's root has no other
        return key

    def sign(self, site: str, public: PublicKey) -> bytes:
        """A site's certificate (PEM), which ends with the root's own. What else it says is as FLARE has it."""
        from nvflare.lighter.utils import Identity, generate_cert, serialize_cert

        who = Identity(site, ORGANIZATION), Identity(PROJECT)
        return bytes(serialize_cert(generate_cert(*who, self.private(), public, not_valid_after=self.end)))


def provision(sites: Sequence[str], work: Path, host: str, port: int, root: Root | None = None) -> tuple[Path, Root]:
    """Have FLARE make the kits, under a new root or a given one; returns the folder of one per party, and the root.

    Raises UserError with FLARE's words.
    """
    from nvflare.lighter.constants import CtxKey, PropKey
    from nvflare.lighter.entity import Project
    from nvflare.lighter.impl.cert import CertBuilder
    from nvflare.lighter.impl.static_file import StaticFileBuilder
    from nvflare.lighter.impl.workspace import WorkspaceBuilder
    from nvflare.lighter.provisioner import Provisioner
    from nvflare.lighter.utils import serialize_cert, serialize_pri_key

    work.mkdir(mode=0o700)
    try:
        given: dict[str, Any] = {}
        if root:
            given = {"serialized_root_cert": root.certificate, "root_private_key": root.private()}
        project = Project(PROJECT, "a federation of FLIP's", **given)
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
    made = Root(serialize_cert(result[CtxKey.ROOT_CERT]), serialize_pri_key(result[CtxKey.ROOT_PRI_KEY]))
    return Path(result[CtxKey.CURRENT_PROD_DIR]), made


def public_of(made: Path) -> bytes:
    """The public key (PEM) of a party's certificate."""
    certificate = x509.load_pem_x509_certificate((made / "startup" / "client.crt").read_bytes())
    return pem(certificate.public_key())
