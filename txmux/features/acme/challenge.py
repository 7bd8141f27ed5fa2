"""Shows an authority, by TLS-ALPN-01 (RFC 8737), that a name leads here."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from txmux.net.tls.self_signed import self_signed

PROTOCOL = b"acme-tls/1"

_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier, section 3
_OCTETS = b"\x04\x20"  # before a digest: an OCTET STRING of 32 bytes
_DAY = timedelta(days=1)


@attrs.frozen
class ChallengeStore:
    """The certificate of one challenge, as a `CertificateStore` has those of a route."""

    _context: SSL.Context

    @classmethod
    def make(cls, name: str, digest: str) -> ChallengeStore:
        """Make the certificate for a name; `digest` is that of the key authorization, in hex."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(time.time(), timezone.utc)
        shown = x509.UnrecognizedExtension(_IDENTIFIER, _OCTETS + bytes.fromhex(digest))
        certificate = self_signed(
            key, name, now - _DAY, now + _DAY, shown, common_name=PROTOCOL.decode()
        )
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        context.set_alpn_select_callback(lambda _, __: PROTOCOL)
        return cls(context)

    def connection(self, *_: str | None) -> SSL.Connection:
        return SSL.Connection(self._context, None)
