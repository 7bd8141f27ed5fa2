"""Terminates the TLS of one route's clients: its transports, what a handshake agreed on, and why one failed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol

import attrs
from cryptography import x509
from OpenSSL import SSL
from typing_extensions import TypeVar

from txmux.classes import define, frozen
from txmux.client.tls.client_certificates import (
    NOT_ALLOWED,
    ClientVerification,
    alternative_names,
    readable,
)
from txmux.client.tls.contexts import NoCommonProtocolError
from txmux.net.tls.end import Distrusted, TlsEnd, TlsTransport
from txmux.net.tls.errors import UNKNOWN_AUTHORITY
from txmux.rules.model import FoundCertificate
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.facts import printable
from txmux.wire.hello.records import asks_again
from txmux.wire.hello.second import ILLEGAL_PARAMETER, SecondHello
from txmux.wire.proxyprotocol.encode import encode_ssl
from txmux.wire.proxyprotocol.fields import authority
from txmux.wire.proxyprotocol.header import SslClient, SslInfo, Tlv, TlvType

if TYPE_CHECKING:
    from txmux.client.tls.store import CertificateStore
    from txmux.net.sockets.transport import SocketTransport
    from txmux.wire.client_hello import ClientHello

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_ALPN, _ALPN_LENGTH = _ffi.new("unsigned char **"), _ffi.new("unsigned int *")
_MOST = 2**15  # bytes of the second hello, and of what comes before it


@frozen
class AgreedTLS:
    """The TLS of a client, ended here, in OpenSSL's words.

    Attributes:
        certificate: The client's, if it has been verified.
        found: Its certificate for the rules; ``None`` if none was requested.
        distrusted: Why its certificate is not trusted.
        is_resumed: Whether it presented the certificate in an earlier connection.
        facts: For the access log.
    """

    version: str
    cipher: str
    sni: str | None = None
    alpn: bytes | None = None
    is_resumed: bool = False
    certificate: x509.Certificate | None = None
    found: FoundCertificate | None = None
    distrusted: Distrusted | None = None
    facts: Mapping[str, str] = attrs.field(init=False, eq=False)

    @classmethod
    def from_end(cls, end: TlsEnd, name: str | None) -> AgreedTLS:
        connection, ssl = end.connection, end.connection._ssl
        _lib.SSL_get0_alpn_selected(ssl, _ALPN, _ALPN_LENGTH)
        agreed = _agreed(
            _lib.SSL_get_version(ssl),
            _lib.SSL_get_current_cipher(ssl),
            name,
            _ffi.buffer(_ALPN[0], _ALPN_LENGTH[0])[:],
            _lib.SSL_session_reused(ssl),
        )
        clients: ClientVerification | None = connection.get_context().get_app_data()
        if clients is None:
            return agreed
        found, distrusted = clients.client_certificate(connection, end.distrusted)
        shown = connection.get_peer_certificate() if distrusted is None else None
        certificate = None if shown is None else readable(shown)
        return attrs.evolve(agreed, certificate=certificate, found=found, distrusted=distrusted)

    @property
    def common_name(self) -> str | None:
        if self.certificate is None:
            return None
        names = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(names[0].value) if names else None

    @facts.default
    def _find_facts(self) -> Mapping[str, str]:
        values = {
            "sni": self.sni,
            "tls_version": self.version.removeprefix("TLSv"),
            "tls_cipher": self.cipher,
            "tls_alpn": self.alpn.decode("latin-1") if self.alpn else None,
        }
        if self.found is not None:
            shown = self.certificate
            values |= {
                "tls_client": shown.subject.rfc4514_string() if shown else None,
                "tls_client_names": self._names(),
                "client_cert": str(self.found),
                "client_cert_error": self.distrusted and _distrust(*self.distrusted),
            }
        return {name: printable(value) for name, value in values.items() if value}

    def fields(self) -> tuple[Tlv, ...]:
        """Return the fields for a PROXY protocol header (section 2.2)."""
        values = {TlvType.AUTHORITY: authority(self.sni), TlvType.ALPN: self.alpn}
        inner = {
            TlvType.SSL_VERSION: self.version,
            TlvType.SSL_CIPHER: self.cipher,
            TlvType.SSL_CN: self.common_name,
        }
        did, unverified = SslClient.SSL, 1
        if self.certificate is not None:
            unverified = 0
        elif self.distrusted is not None:
            unverified = max(1, self.distrusted[0])
        if self.certificate is not None or self.distrusted is not None:
            did |= SslClient.CERT_SESS | (SslClient.SSL if self.is_resumed else SslClient.CERT_CONN)
        ssl = SslInfo(did, unverified, tuple(_fields(inner)))
        return (*_fields(values), encode_ssl(ssl))

    def _names(self) -> str:
        names = alternative_names(self.certificate) if self.certificate is not None else ()
        return ", ".join(f"{kind}:{name}" for kind, name in names)


@lru_cache(256)  # most clients are like others
def _agreed(version: Any, cipher: Any, name: str | None, alpn: bytes, is_resumed: int) -> AgreedTLS:
    version, cipher = _ffi.string(version), _ffi.string(_lib.SSL_CIPHER_get_name(cipher))
    return AgreedTLS(version.decode(), cipher.decode(), name, alpn or None, bool(is_resumed))


def _fields(values: Mapping[TlvType, str | bytes | None]) -> list[Tlv]:
    return [
        Tlv(kind, value.encode() if isinstance(value, str) else value)
        for kind, value in values.items()
        if value
    ]


class CertificateSource(Protocol):
    """What handshakes ask of a store, which need not be one of files."""

    may_lack: bool

    def is_lacking(self) -> bool: ...
    def connection(self, name: str | None = None, version: str | None = None) -> SSL.Connection: ...


_Store_co = TypeVar(
    "_Store_co", bound=CertificateSource, default="CertificateStore", covariant=True
)


class TlsTerminator(Generic[_Store_co]):
    """Terminates the TLS of one route's clients."""

    def __init__(self, store: _Store_co) -> None:
        self.store = store

    def shake(
        self, below: Any, hello: ClientHello | None, second: SecondHello | None, address: str | None
    ) -> ClientShake:
        """Begin a handshake over a socket.

        Args:
            below: The socket, or other TLS.
            hello: The hello by which the client was routed.
            second: Takes another one in the place of the usual check.
            address: What the client has connected to, for one that names no server.
        """
        name, version = (None, None) if hello is None else (hello.sni, hello.version)
        connection = self.store.connection(name or address, version)
        connection.set_accept_state()
        end = TlsEnd(below, connection)
        return ClientShake(end, name, second or SecondHello(hello))

    @staticmethod
    def cause_of(problem: object, shake: ClientShake | None) -> str:
        return cause_of(problem, None if shake is None else shake.end.distrusted)


@define(eq=False)
class ClientShake:
    """A handshake: OpenSSL gets no second hello that asks for something else than the first (RFC 8446, section 4.1.2)."""

    end: TlsEnd
    _name: str | None
    _second: SecondHello
    _is_retry: bool | None = attrs.field(default=None, init=False)  # until the first answer
    output: bytes = attrs.field(default=b"", init=False)  # for the client, also after a problem
    problem: SSL.Error | None = attrs.field(default=None, init=False)  # why it has failed

    def receive(self, data: bytes) -> bool:
        """Take more of what the client sends; return whether the handshake is complete."""
        second, end, is_done = self._second, self.end, False
        try:
            if self._is_retry and not second.is_over:
                data = second.receive(data)
                if second.length > _MOST and not second.is_over:
                    raise IllegalHelloError(ILLEGAL_PARAMETER, "the second hello is too long")  # noqa: TRY301 - as those
            is_done = end.shake(data)
        except IllegalHelloError as illegal:
            self.output, self.problem = illegal.alert, SSL.Error([("", "", str(illegal))])
            return False
        except SSL.Error as problem:
            self.problem = problem
        self.output = end.output()
        if self._is_retry is None and self.output:
            self._is_retry = asks_again(self.output)
        return is_done

    def agreed(self) -> AgreedTLS:
        return AgreedTLS.from_end(self.end, self._name)

    @property
    def facts(self) -> Mapping[str, str]:
        return self._second.facts if self._second.is_opened else {}

    def put_over(self, transport: SocketTransport) -> None:
        TlsTransport.instead_of(transport, self.end)


_NO_TLS = "what the client sent is not TLS"
_WORDS = {
    "http request": _NO_TLS,
    "https proxy request": _NO_TLS,
    "wrong version number": _NO_TLS,
    "packet length too long": _NO_TLS,
    "bad record type": _NO_TLS,
    "data length too long": _NO_TLS,
    "encrypted length too long": _NO_TLS,
    "decryption failed or bad record mac": "a record of the handshake is damaged, or not encrypted as it should be",
    "no shared cipher": "the client and txmux have no cipher in common",
    "no suitable signature algorithm": "the client takes no certificate with such a key",
    "unsupported protocol": "the client speaks only older versions of TLS than tls_minimum",
    "peer did not return a certificate": "the client has sent no certificate, but tls_client_ca wants one",
}
_DISTRUST = {
    NOT_ALLOWED: "is not one of those in allow_client",
    3: "is of an authority of which tls_client_crl has no list, {issuer!r}",
    11: "cannot be checked: the list of {issuer!r} in tls_client_crl is not valid yet",
    12: "cannot be checked: the list of {issuer!r} in tls_client_crl has expired",
    9: "is valid only from {begin} UTC on",
    10: "expired on {end} UTC",
    23: "was revoked by {issuer!r}",
    18: "is self-signed, and not in tls_client_ca",
    26: "is not meant for clients",
}


def cause_of(problem: object, distrusted: Distrusted | None = None) -> str:
    """Describe why a handshake failed; `distrusted` is why OpenSSL rejected the client's certificate."""
    if not isinstance(problem, SSL.Error) or not problem.args:  # a close-notify has no reason
        return "the client left in the middle of the TLS handshake"
    reasons = [str(reason) for _, _, reason in problem.args[0]]
    if reasons[1:] and reasons[-1] == "record layer failure":
        reasons.pop()  # what is wrong with the record stands before it
    reason = reasons[-1] if reasons else str(problem)
    if distrusted is not None and "certificate verify failed" in reasons:
        return _distrust(*distrusted)
    if isinstance(problem, NoCommonProtocolError):
        return reason
    if " alert " in reason:
        return (
            f"the client ended the TLS handshake with the alert {reason.partition(' alert ')[2]!r}"
        )
    return _WORDS.get(reason, f"the TLS handshake failed: {reason}")


def _distrust(number: int, certificate: x509.Certificate | None) -> str:
    if certificate is None:
        return "the client's certificate cannot be read"
    whose = f"the certificate of {certificate.subject.rfc4514_string()!r}"
    issuer = certificate.issuer.rfc4514_string()
    if number in UNKNOWN_AUTHORITY:
        return f"{whose} is of an authority that is not in tls_client_ca, {issuer!r}"
    text = _DISTRUST.get(number, "is not accepted (X509_V_ERR {number} of OpenSSL)")
    times = {"begin": certificate.not_valid_before_utc, "end": certificate.not_valid_after_utc}
    shown = {name: f"{time:%Y-%m-%d %H:%M}" for name, time in times.items()}
    return f"{whose} {text.format(number=number, issuer=issuer, **shown)}"
