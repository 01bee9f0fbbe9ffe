"""A site's request to join: a certificate signing request (PKCS#10) with its name and its two public keys.

One it joins with; by the other, its identity, the other sites of a secure sum know it. Both private halves are made at
the site and stay there. The key that it joins with signs the request, the identity signs name and key: whoever made it
has both. That does not show who it is: people compare the joining key's fingerprint over another way, and since all
else is signed by that key, this one comparison is enough.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from flip.config.site_file import SITE_NAME
from flip.errors import UserError
from flip.privacy.secure.keys import KEY, SIGNATURE, signed_by
from flip.text import printable

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
SUFFIX = ".csr"
LONGEST = 1 << 14  # bytes of a request; one has about 1,500
KEYS = {"flower": "supernode", "nvflare": "startup/client.key"}  # where a site's private key lies in its kit
KINDS = {"flower": "ECDSA on P-384", "nvflare": "RSA of 3072 to 8192 bits, exponent 65537"}
MODULUS = (3072, 8192)  # bits, the least and the most
# The identity is an extension that the request asks for: `cryptography` writes and reads one of any bytes, of other
# attributes text alone. It is named by the UUID 699a4bc8-01c1-55d9-84c5-e97bab118aa3 as a number (X.667), which needs
# no register. It is not critical, and no certificate gets it: FLARE's root copies nothing of a request.
IDENTITY = x509.ObjectIdentifier("2.25.140370090300526519944511538631810321059")
OCTETS = bytes([4, KEY + SIGNATURE])  # how DER begins an octet string of the key and the signature by it
PROOF = b"flip site request: whoever has this identity joins under this name with this key\0"


@dataclass(frozen=True)
class Request:
    """What a site's request says, once it is verified.

    Attributes:
        site: the site's name.
        key: the public key that it joins with.
        identity: the public key (Ed25519, 64 hexadecimal digits) by which others know it in secure sums.
        text: the request (PEM), and nothing else that its file holds.
    """

    site: str
    key: PublicKey
    identity: str
    text: bytes


def make(backend: str, name: str, identity: Ed25519PrivateKey) -> tuple[bytes, bytes, PublicKey]:
    """A new private key as the backend reads it, the request made with it (PEM), and the public key."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if backend == "flower":
        key, form = ec.generate_private_key(ec.SECP384R1()), PrivateFormat.OpenSSH
    else:  # FLARE signs by RSA alone
        key, form = rsa.generate_private_key(65537, MODULUS[0]), PrivateFormat.TraditionalOpenSSL
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    said = identity.public_key().public_bytes_raw() + identity.sign(proof(name, key.public_key()))
    extension = x509.UnrecognizedExtension(IDENTITY, OCTETS + said)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(extension, critical=False)
    request = builder.sign(key, hashes.SHA384())
    return key.private_bytes(Encoding.PEM, form, NoEncryption()), request.public_bytes(Encoding.PEM), key.public_key()


def proof(name: str, key: PublicKey) -> bytes:
    """What an identity signs: else a site could pass another's off as its own."""
    return PROOF + name.encode() + b"\0" + key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read(path: Path, backend: str) -> Request:
    """A request, whose file is named after the site. Raises UserError.

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
    fitting = fit(key, backend, problem)
    known = identity_in(request, proof(path.stem, fitting), problem)
    return Request(path.stem, fitting, known, request.public_bytes(Encoding.PEM))


def identity_in(request: x509.CertificateSigningRequest, proven: bytes, problem: str) -> str:
    """The identity that a request tells, in hexadecimal. Raises UserError, which begins with `problem`."""
    try:
        value = request.extensions.get_extension_for_oid(IDENTITY).value
    except x509.ExtensionNotFound as error:
        raise UserError(f"{problem} (it has no key for secure sums, as those of earlier versions)") from error
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise UserError(f"{problem} ({printable(error)})") from error
    said = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(said) != len(OCTETS) + KEY + SIGNATURE or not said.startswith(OCTETS):
        raise UserError(f"{problem} (its key for secure sums is malformed)")
    public, signature = said[len(OCTETS) : -SIGNATURE], said[-SIGNATURE:]
    if not signed_by(public, signature, proven):
        raise UserError(f"{problem} (its key for secure sums is another's: that key did not sign this name and key)")
    return public.hex()


def fit(key: object, backend: str, problem: str) -> PublicKey:
    """A key of the kind that the backend takes. Raises UserError, which begins with `problem`."""
    if backend == "flower" and isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    least, most = MODULUS
    strong = isinstance(key, rsa.RSAPublicKey) and least <= key.key_size <= most and key.public_numbers().e == 65537
    if backend == "nvflare" and isinstance(key, rsa.RSAPublicKey) and strong:
        return key
    raise UserError(f"{problem} (the key must be {KINDS[backend]})")


def read_all(folder: Path, sites: Sequence[str], backend: str) -> Mapping[str, Request]:
    """The request of each site, from a folder. Raises UserError with every mistake."""
    found: dict[str, Request] = {}
    problems: list[str] = []
    for name in sites:
        try:
            found[name] = read(folder / f"{name}{SUFFIX}", backend)
        except UserError as error:
            problems += error.problems
    problems += shared(folder, found.values())
    if problems:
        raise UserError(problems)
    return found


def shared(folder: Path, requests: Iterable[Request]) -> Iterator[str]:
    """What two sites of a folder of requests have in common, and must not."""
    ours: tuple[tuple[str, Callable[[Request], str]], ...] = (
        ("the same key", lambda each: fingerprint(each.key)),
        ("the same key for secure sums", lambda each: each.identity),
        ("names that only case tells apart", lambda each: each.site.lower()),
    )
    for words, of in ours:
        known: dict[str, str] = {}
        for each in requests:
            if (other := known.setdefault(of(each), each.site)) != each.site:
                yield f"{folder}: {other} and {each.site} have {words}; each site has its own, by flip site request"


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


def shown(requests: Mapping[str, Request]) -> str:
    """A line for each site that has made its own key, with the key's fingerprint."""
    lines = [f"{name:<20} {fingerprint(each.key)}" for name, each in requests.items()]
    return "\n".join(["Ask each of these sites for the fingerprint that it was shown:", *lines]) if lines else ""
