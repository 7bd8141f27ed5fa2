"""What a client and txmux have agreed on in a handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from cryptography import x509

from txmux.net.tls.allowed import alternative_names

if TYPE_CHECKING:
    from OpenSSL import SSL


@attrs.frozen
class AgreedTLS:
    """The TLS of a client, ended here.

    Attributes:
        version: As OpenSSL names it: ``TLSv1.3``.
        cipher: The cipher suite, in OpenSSL's words.
        sni: The name that the client asked for, in lower case.
        alpn: The protocol of ALPN (RFC 7301).
        certificate: The client's, which has been verified.
    """

    version: str
    cipher: str
    sni: str | None = None
    alpn: bytes | None = None
    certificate: x509.Certificate | None = None

    @classmethod
    def of(cls, connection: SSL.Connection) -> AgreedTLS:
        """Ask a connection whose handshake is complete."""
        asked = connection.get_servername()
        shown = connection.get_peer_certificate()
        return cls(
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            asked.decode("latin-1").lower().removesuffix(".") if asked else None,
            connection.get_alpn_proto_negotiated() or None,
            shown.to_cryptography() if shown is not None else None,
        )

    @property
    def common_name(self) -> str | None:
        """The common name of the client's certificate."""
        if self.certificate is None:
            return None
        names = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(names[0].value) if names else None

    def facts(self) -> dict[str, str]:
        """Return what the access log tells of it."""
        told = {
            "sni": self.sni,
            "tls_version": self.version.removeprefix("TLSv"),
            "tls_cipher": self.cipher,
            "tls_alpn": self.alpn.decode("latin-1") if self.alpn else None,
            "tls_client": self.certificate.subject.rfc4514_string() if self.certificate else None,
            "tls_client_names": self._names(),
        }
        return {name: value for name, value in told.items() if value}

    def _names(self) -> str:
        found = alternative_names(self.certificate) if self.certificate is not None else ()
        return ", ".join(f"{kind}:{name}" for kind, name in found)
