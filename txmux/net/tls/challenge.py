"""Shows an authority, by TLS-ALPN-01 (RFC 8737), that a name leads here."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

PROTOCOL = b"acme-tls/1"

_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier, section 3
_OCTETS = b"\x04\x20"  # before a digest: an OCTET STRING of 32 bytes
_DAY = timedelta(days=1)


@attrs.frozen
class ChallengeStore:
    """The certificate of one challenge, as a `CertificateStore` has those of a route."""

    _context: SSL.Context
    trouble = ""

    @classmethod
    def make(cls, name: str, digest: str) -> ChallengeStore:
        """Make the certificate for a name; `digest` is that of the key authorization, in hex."""
        key = ec.generate_private_key(ec.SECP256R1())
        common = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme-tls/1")])
        now = datetime.fromtimestamp(time.time(), timezone.utc)
        shown = x509.UnrecognizedExtension(_IDENTIFIER, _OCTETS + bytes.fromhex(digest))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(common)
            .issuer_name(common)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(shown, critical=True)
            .sign(key, hashes.SHA256())
        )
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_certificate(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        context.set_alpn_select_callback(lambda _, __: PROTOCOL)
        return cls(context)

    def context(self) -> SSL.Context:
        return self._context

    def valid_until(self) -> list[tuple[str, float]]:
        return []
