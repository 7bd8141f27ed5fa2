"""Certificates that txmux signs itself."""

from datetime import datetime
from ipaddress import ip_address

# Signing imports the backend, when the user of the process may be unable to read Python's files.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def self_signed(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    begins: datetime,
    ends: datetime,
    *critical: x509.ExtensionType,
    common_name: str = "",
) -> x509.Certificate:
    """Sign a certificate for the name of a host, or an address.

    Args:
        key: The key that it is for, and that signs it.
        name: The only name that it is for.
        begins: From when it is valid.
        ends: Until when.
        critical: What it has beside the name.
        common_name: Of subject and issuer; the beginning of the name if it is empty.
    """
    common = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name or name[:64])])
    builder = x509.CertificateBuilder(
        common, common, key.public_key(), x509.random_serial_number(), begins, ends
    ).add_extension(x509.SubjectAlternativeName([general_name(name)]), critical=False)
    for extension in critical:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256())
