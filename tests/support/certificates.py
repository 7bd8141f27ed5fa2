"""Certificates for tests: good ones, and all kinds of bad ones."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import PrivateCertificate

if TYPE_CHECKING:
    from pathlib import Path

_DAY = timedelta(days=1)


class Identity:
    """A certificate and its key.

    Attributes:
        certificate: The certificate.
        key: The key.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        """Give the key, encrypted if there is a passphrase."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )

    def write(self, path: Path, *, key: bool = False) -> Path:
        """Write the certificate, and the key too if that is wanted."""
        path.write_bytes(self.pem + (self.key_pem() if key else b""))
        return path

    def private(self) -> PrivateCertificate:
        """Give what a server of Twisted's takes."""
        made: PrivateCertificate = PrivateCertificate.loadPEM(self.pem + self.key_pem())
        return made

    def issue(
        self, *names: str, begins: float = -2, ends: float = 2, usage: bool = True
    ) -> Identity:
        """Make a certificate that this one has signed.

        Args:
            names: Host names and IP addresses that it is for.
            begins: From when on it is valid, in days from now.
            ends: Until when.
            usage: Whether it is for servers; else it is for clients alone.
        """
        kind = ExtendedKeyUsageOID.SERVER_AUTH if usage else ExtendedKeyUsageOID.CLIENT_AUTH
        return _make(
            names[0] if names else "nobody",
            self,
            begins,
            ends,
            [
                *([x509.SubjectAlternativeName([*map(_name, names)])] if names else ()),
                x509.ExtendedKeyUsage([kind]),
            ],
        )


def make_authority(common_name: str = "Test Authority", *names: str) -> Identity:
    """Make a certificate that is its own authority, and may be that of others unless it has names."""
    if names:
        return _make(common_name, None, -2, 2, [x509.SubjectAlternativeName([*map(_name, names)])])
    return _make(common_name, None, -2, 2, [x509.BasicConstraints(ca=True, path_length=None)])


def _make(
    common_name: str,
    issuer: Identity | None,
    begins: float,
    ends: float,
    extensions: list[x509.ExtensionType],
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * _DAY)
        .not_valid_after(now + ends * _DAY)
    )
    for extension in extensions:
        critical = isinstance(extension, x509.BasicConstraints)
        builder = builder.add_extension(extension, critical=critical)
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
