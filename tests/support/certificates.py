import base64
import functools
import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import PrivateCertificate

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_DAY = timedelta(days=1)
_VALID = 60  # days; those that end soon are warned of
_NOT = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
_SIGNS = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, **dict.fromkeys(_NOT.split(), False)
)
_AUTHORITY: list[x509.ExtensionType] = [x509.BasicConstraints(ca=True, path_length=None), _SIGNS]


class Identity:
    def __init__(self, certificate: x509.Certificate, key: _Key) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        sealed: Any = serialization.NoEncryption()
        if passphrase:
            sealed = serialization.BestAvailableEncryption(passphrase)
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, sealed)

    def write(self, path: Path, *, key: bool = False) -> Path:
        path.write_bytes(self.pem + (self.key_pem() if key else b""))
        return path

    def private(self) -> PrivateCertificate:
        made: PrivateCertificate = PrivateCertificate.loadPEM(self.pem + self.key_pem())
        return made

    def issue(
        self,
        *names: str,
        begins: float = -2,
        ends: float = _VALID,
        usage: bool = True,
        units: Sequence[str] = (),
        key: Any = None,
    ) -> "Identity":
        """Make a certificate that this one has signed.

        Args:
            names: Host names, IP addresses, URIs and e-mail addresses that it is for; the first is its common name, too.
            begins: From when on it is valid, in days from now.
            ends: Until when.
            usage: Whether it is for servers; else it is for clients alone.
            units: The organizational units in its subject.
            key: The private one that it is for; one of ECDSA if there is none.
        """
        kind = ExtendedKeyUsageOID.SERVER_AUTH if usage else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions = [*_alternative(*names), x509.ExtendedKeyUsage([kind])]
        return _make(names[0] if names else "nobody", self, begins, ends, extensions, units, key)

    def authorise(self, common_name: str, ends: float = _VALID, begins: float = -2) -> "Identity":
        return _make(common_name, self, begins, ends, _AUTHORITY)

    def revoke(self, *revoked: "Identity", ends: float = 2, begins: float = -2) -> bytes:
        """Make the list of certificates that this one has revoked, in PEM.

        Args:
            revoked: The certificates.
            ends: Until when it is valid, in days from now.
            begins: From when on.
        """
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now + begins * _DAY)
            .next_update(now + ends * _DAY)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - _DAY).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_authority(common_name: str = "Test Authority", *names: str) -> Identity:
    return _make(common_name, None, -2, _VALID, _alternative(*names) or _AUTHORITY)


def _make(
    common_name: str,
    issuer: Identity | None,
    begins: float | datetime,
    ends: float | datetime,
    extensions: list[x509.ExtensionType],
    units: Sequence[str] = (),
    key: _Key | None = None,
) -> Identity:
    key = key or ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]))
    subject = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins))
        .not_valid_after(_moment(ends))
    )
    # Python 3.13 and later ask for these, as RFC 5280, sections 4.2.1.1 to 4.2.1.3, does.
    signer = issuer.key if issuer else key
    extensions = [
        *extensions,
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
    ]
    for extension in extensions:
        critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=critical)
    return Identity(builder.sign(signer, hashes.SHA256()), key)


def _moment(when: float | datetime) -> datetime:
    return when if isinstance(when, datetime) else datetime.now(UTC) + when * _DAY


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if "://" in text:
            return x509.UniformResourceIdentifier(text)
        if "@" in text:
            return x509.RFC822Name(text)
        return x509.DNSName(text)


def _alternative(*names: str) -> list[x509.ExtensionType]:
    return [x509.SubjectAlternativeName([*map(_name, names)])] if names else []


def lasting(begins: datetime, ends: datetime, units: Sequence[str] = ()) -> Identity:
    return _make("Lasting", None, begins, ends, _AUTHORITY, units)


def without_end(revoked: bytes) -> bytes:
    """Take out of a revocation list when the next one comes; its signature no longer fits then."""
    body = _content(base64.b64decode(b"".join(revoked.split(b"\n")[1:-2])))
    inner = _content(body)
    at = [found.start() for found in re.finditer(rb"\x17\x0d[0-9]{12}Z", inner)][1]
    encoded = _sequence(
        _sequence(inner[:at] + inner[at + 15 :]) + body[body.index(inner) + len(inner) :]
    )
    return b"-----BEGIN X509 CRL-----\n%b-----END X509 CRL-----\n" % base64.encodebytes(encoded)


def _content(encoded: bytes) -> bytes:
    more = encoded[1] & 0x7F if encoded[1] & 0x80 else 0
    size = int.from_bytes(encoded[2 : 2 + more], "big") if more else encoded[1]
    return encoded[2 + more : 2 + more + size]


def _sequence(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def rsa_pem(name: str, bits: int = 2048, *, alternative: bool = True) -> bytes:
    key = rsa.generate_private_key(65537, bits)
    made = _make(name, None, 0, 1, _alternative(name) if alternative else [], key=key)
    return made.pem + made.key_pem()


@functools.cache
def authority() -> Identity:
    return make_authority()
