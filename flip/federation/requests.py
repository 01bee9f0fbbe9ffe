"""A site's request to join: a certificate signing request (PKCS#10) with its name and its public key.

The private key is made at the site and stays there; the request's signature shows that whoever made it has the key. It
does not show who that is: the two sides compare the key's fingerprint over another way.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from flip.config.site_file import SITE_NAME
from flip.errors import UserError
from flip.text import printable

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
SUFFIX = ".csr"
LONGEST = 1 << 14  # bytes of a request; one has about 1,500
KEYS = {"flower": "supernode", "nvflare": "startup/client.key"}  # where a site's private key lies in its kit
KINDS = {"flower": "ECDSA on P-384", "nvflare": "RSA of 3072 to 8192 bits, exponent 65537"}
MODULUS = (3072, 8192)  # bits, the least and the most


def make(backend: str, name: str) -> tuple[bytes, bytes, PublicKey]:
    """A new private key as the backend reads it, the request made with it (PEM), and the public key."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if backend == "flower":
        key, form = ec.generate_private_key(ec.SECP384R1()), PrivateFormat.OpenSSH
    else:  # FLARE signs by RSA alone
        key, form = rsa.generate_private_key(65537, MODULUS[0]), PrivateFormat.TraditionalOpenSSL
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA384())
    return key.private_bytes(Encoding.PEM, form, NoEncryption()), request.public_bytes(Encoding.PEM), key.public_key()


def read(path: Path, backend: str) -> tuple[str, PublicKey]:
    """The name and the public key of a request, whose file is named after the site. Raises UserError.

    Nothing else of it is used: what a certificate says is ours to say.
    """
    remedy = f"flip site request {backend} {path.stem} FOLDER makes it at the site"
    problem = f"{path}: is no request for {backend}; {remedy}"
    try:
        if not path.is_file():  # a device or a pipe has no end
            raise UserError(f"{problem} (there is no such file)")
        if path.stat().st_size > LONGEST:
            raise UserError(f"{problem} (it has more than {LONGEST} bytes)")
        request = x509.load_pem_x509_csr(path.read_bytes())
        key, signed = request.public_key(), request.is_signature_valid
        names = [str(each.value) for each in request.subject]
    except (OSError, ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise UserError(f"{problem} ({printable(error)})") from error
    if not signed:
        raise UserError(f"{path}: was changed after it was signed, or its key is another's; ask the site for it again")
    if names != [path.stem] or not SITE_NAME.fullmatch(path.stem):
        said = ", ".join(printable(repr(each)) for each in names)
        raise UserError(f"{path}: is of {said or 'nobody'}; the file is named after the site, NAME{SUFFIX}")
    return path.stem, fit(key, backend, problem)


def fit(key: object, backend: str, problem: str) -> PublicKey:
    """A key of the kind that the backend takes. Raises UserError, which begins with `problem`."""
    if backend == "flower" and isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    least, most = MODULUS
    strong = isinstance(key, rsa.RSAPublicKey) and least <= key.key_size <= most and key.public_numbers().e == 65537
    if backend == "nvflare" and isinstance(key, rsa.RSAPublicKey) and strong:
        return key
    raise UserError(f"{problem} (the key must be {KINDS[backend]})")


def read_all(folder: Path, sites: Sequence[str], backend: str) -> Mapping[str, PublicKey]:
    """The public key of each site, from its request in a folder. Raises UserError with every mistake."""
    found: dict[str, PublicKey] = {}
    problems: list[str] = []
    for name in sites:
        try:
            found[name] = read(folder / f"{name}{SUFFIX}", backend)[1]
        except UserError as error:
            problems += error.problems
    known: dict[str, str] = {}
    for name, key in found.items():
        if (other := known.setdefault(fingerprint(key), name)) != name:
            problems.append(f"requests={folder}: {other} and {name} have the same key; each site makes its own")
    if problems:
        raise UserError(problems)
    return found


def same_key(
    path: Path,
    load: Callable[[bytes, None], PrivateKeyTypes],
    written: Callable[[PublicKeyTypes], bytes],
    expected: bytes,
) -> None:
    """Refuse a site's private key that cannot be read, or that is not its kit's: `expected`, as `written` writes it.

    Raises UserError.
    """
    try:
        public = load(path.read_bytes(), None).public_key()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is no private key without a passphrase; flip site request makes one") from error
    if written(public) != expected:
        raise UserError(f"{path}: is not the key that this kit was asked for with; put that one there")


def openssh(key: PublicKeyTypes) -> bytes:
    """A public key as a line of OpenSSH."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def pem(key: PublicKeyTypes) -> bytes:
    """A public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """The sha256 of a public key (DER, SubjectPublicKeyInfo), which two people can compare on the telephone."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def shown(keys: Mapping[str, PublicKey]) -> str:
    """A line for each site that has made its own key, with the key's fingerprint."""
    lines = [f"{name:<20} {fingerprint(key)}" for name, key in keys.items()]
    return "\n".join(["Ask each of these sites for the fingerprint that it was shown:", *lines]) if lines else ""
