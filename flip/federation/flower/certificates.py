"""The certificate of a SuperLink, signed by an authority that signs nothing else."""

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = timedelta(days=730)  # of the server's certificate; afterwards the kits are made again


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
