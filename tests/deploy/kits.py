"""Kits of hospitals that have made their own keys, and what each hospital then puts into its own."""

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from flip.__main__ import main
from flip.federation.flower import provision as flower
from flip.federation.nvflare import provision as nvflare
from flip.federation.requests import IDENTITY, KEYS, OCTETS, SUFFIX, proof

BACKENDS = ["flower", "nvflare"]
PROVISION: dict[str, Any] = {"flower": flower, "nvflare": nvflare}


def asked(folder: Path, backend: str, *sites: str) -> Path:
    """The folder of requests that a coordinator has got; each site's own folder lies beside it."""
    (folder / "requests").mkdir(exist_ok=True)
    for site in sites:
        assert main(["site", "request", backend, site, str(folder / f"own-{site}")]) == 0
        sent = folder / f"own-{site}" / f"{site}{SUFFIX}"
        (folder / "requests" / sent.name).write_bytes(sent.read_bytes())
    return folder / "requests"


def fresh(folder: Path, backend: str) -> Path:
    """The kits of two sites that have made their own keys."""
    requests = asked(folder, backend, "kings", "guys")
    PROVISION[backend].prepare(["kings", "guys"], folder / "kits", requests=requests)
    return folder / "kits"


def own_key(folder: Path, backend: str, site: str) -> Path:
    """The private key that a site has made."""
    return folder / f"own-{site}" / Path(KEYS[backend]).name


def contents(folder: Path) -> dict[str, bytes]:
    """Each file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(key: Any, name: str, identity: ed25519.Ed25519PrivateKey) -> x509.UnrecognizedExtension:
    """How a request tells an identity."""
    text = identity.public_key().public_bytes_raw() + identity.sign(proof(name, key.public_key()))
    return x509.UnrecognizedExtension(IDENTITY, OCTETS + text)


def request(name: str, key: Any, digest: Any = None, *extensions: x509.ExtensionType, told: Any = None) -> bytes:
    """A request with a name, signed by a key; with an identity of its own unless it is `told` another, or b""."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    identity = said(key, name, ed25519.Ed25519PrivateKey.generate()) if told is None else told
    for each in [identity, *extensions] if identity else extensions:
        made = made.add_extension(each, critical=each is not identity)
    return made.sign(key, digest).public_bytes(Encoding.PEM)


def put_in(folder: Path, backend: str, site: str) -> Path:
    """A site's kit, with what the site has made in it and its file filled in; returns that file."""
    kit = folder / "kits" / site
    for place, own in ((KEYS[backend], Path(KEYS[backend]).name), ("secret", "secret")):
        (kit / place).write_bytes((folder / f"own-{site}" / own).read_bytes())
        (kit / place).chmod(0o600)
    text = (kit / "site.yaml").read_text().replace("root: ???", "root: .").replace("person: ???", "person: row")
    (kit / "site.yaml").write_text(text.replace("approval: ???", "approval: none").replace("???", "5"))
    return kit / "site.yaml"
