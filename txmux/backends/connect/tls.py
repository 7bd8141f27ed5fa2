"""TLS to the servers of a backend: trusted authorities, the client certificate, and why a handshake failed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
)
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.files import Reader, read_bytes
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.transport import SocketTransport
from txmux.net.tls.end import TlsEnd, TlsTransport
from txmux.net.tls.errors import CLIENT_CERTIFICATE, UNKNOWN_AUTHORITY, HandshakeError
from txmux.net.tls.pem import read_authorities, read_identity, validity_of
from txmux.net.tls.verification import ClientTLS, WrongNameError
from txmux.rules.model import ServerTLS
from txmux.transport import is_address

_Explain = Callable[[object, SSL.Connection], str]
_MOST_OPTIONS = 256  # names times protocols; more than any backend has, unless names come and go

_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18  # X509_V_ERR_* of OpenSSL
_NOT_TLS = {
    "wrong version number",
    "packet length too long",
    "http request",
    "record layer failure",  # all that OpenSSL 3.2 says
}


class BackendTLS:
    """Makes connections to the servers of one backend speak TLS, 1.2 at least.

    Args:
        tls: The settings of the rules.
        verified: Whether servers must present a trusted certificate of their own. Otherwise they must not be sent
            anything secret.
        read: Reads the files.

    Raises:
        TLSFileError: A file is missing, or its content.

    Attributes:
        identity: The certificate that servers are shown; ``None`` if there is none.
        validity: When it is valid, with its chain, and when any of the authorities of servers is.
    """

    def __init__(self, tls: ServerTLS, *, verified: bool = True, read: Reader = read_bytes) -> None:
        self._verified = verified
        self._name = tls.name
        self._alpn = tuple(name.encode() for name in tls.alpn)
        self._authorities = None if tls.ca is None else read_authorities(tls.ca, read=read)
        self.identity = read_identity(tls.certificate, read=read) if tls.certificate else None
        self.validity = self.identity.validity(CLIENT_CERTIFICATE) if self.identity else []
        if tls.ca is not None and self._authorities:
            found = (one.to_cryptography() for one in self._authorities)
            several = [*validity_of("tls_ca", tls.ca, found)]
            last = max(several, key=lambda one: one.ends)
            self.validity.append(last._replace(begins=min(one.begins for one in several)))
        # Making a context takes far longer than a handshake, above all with all of the system's authorities.
        self._options = functools.lru_cache(_MOST_OPTIONS)(self._make_options)

    def wrap(self, factory: Any, server_name: str, alpn: Sequence[bytes] = ()) -> _TLSFactory:
        """Make a client factory that does TLS for another one; the PROXY protocol header is added around it.

        Protocols that provide `IHandshakeListener` are notified after the handshake; if it fails, ``connectionLost`` gets a
        `HandshakeError`. `server_name` and `alpn` count if the rules name none.
        """
        # Certificates have names without a final dot, and addresses without their zone.
        name = (self._name or server_name).partition("%")[0].removesuffix(".")
        options = self._options(name, self._alpn or tuple(alpn))
        return _TLSFactory(factory, options, self._explain)

    def _make_options(self, name: str, alpn: tuple[bytes, ...]) -> Any:
        trusted = self._authorities
        if not self._verified:
            return _Unverified(name)
        return ClientTLS(
            name,
            None if trusted is None else trustRootFromCertificates(map(Certificate, trusted)),
            acceptableProtocols=alpn or None,
            extraCertificateOptions={
                "raiseMinimumTo": TLSVersion.TLSv1_2,
                **self._identity_options(),
            },
        )

    def _identity_options(self) -> dict[str, Any]:
        shown = self.identity
        if shown is None:
            return {}
        return {
            "certificate": shown.certificate,
            "privateKey": shown.key,
            "extraCertChain": [*shown.chain],
        }

    def _explain(self, why: object, connection: SSL.Connection) -> str:
        chain = connection.get_peer_cert_chain() or []
        if isinstance(why, WrongNameError):
            return f"{why}; see tls_name"
        if not isinstance(why, SSL.Error) or not why.args:  # a close-notify has no reason
            return "it closed the connection instead of answering with TLS"
        problems = [str(reason) for _, _, reason in why.args[0]]
        problem = problems[-1] if problems else str(why)
        if problem == "certificate verify failed" and chain:
            return self._distrust(chain)
        if " alert " in problem:
            alert = problem.partition(" alert ")[2]
            return f"it ended the TLS handshake with the alert {alert!r}"
        if not _NOT_TLS.isdisjoint(problems):
            return "it answered with something that is not TLS"
        return f"the TLS handshake failed: {problem}"

    def _distrust(self, chain: Sequence[crypto.X509]) -> str:
        """Have OpenSSL verify a chain again, and return why it is not trusted."""
        store: Any = self._trusting.get_cert_store()
        try:
            crypto.X509StoreContext(store, chain[0], chain[1:]).verify_certificate()
        except crypto.X509StoreContextError as problem:
            number, depth, text = problem.errors[:3]
            bad = problem.certificate.to_cryptography()
        else:
            return "its certificate is not meant for servers"
        subject = "its certificate" if depth == 0 else f"the certificate of {_text_of(bad.subject)}"
        if number == _EXPIRED:
            return f"{subject} expired on {bad.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        if number == _NOT_YET_VALID:
            return f"{subject} is valid only from {bad.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        if number == _SELF_SIGNED:
            return "its certificate is self-signed and not trusted; tls_ca can name it"
        if number in UNKNOWN_AUTHORITY:
            issuer = _text_of(bad.issuer)
            return f"its certificate comes from an unknown authority, {issuer}; tls_ca can name one to trust"
        return f"{subject} is not accepted: {text}"

    @functools.cached_property
    def _trusting(self) -> SSL.Context:
        """Holds the trusted certificates; a store alone would not outlive its context."""
        context = SSL.Context(SSL.TLS_METHOD)
        store: Any = context.get_cert_store()
        if self._authorities is None:
            context.set_default_verify_paths()
        for authority in self._authorities or ():
            store.add_cert(authority)
        return context


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    def __init__(self, name: str) -> None:
        self._name = b"" if is_address(name) else name.encode("ascii", "ignore")
        made = CertificateOptions(verify=False, raiseMinimumTo=TLSVersion.TLSv1_2)
        self._context = made.getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: ARG002
        connection = SSL.Connection(self._context, None)
        if self._name:
            connection.set_tlsext_host_name(self._name)
        return connection


class _TLSFactory(ClientFactory):
    noisy = False

    def __init__(self, factory: Any, options: Any, explain: _Explain) -> None:
        self.wrappedFactory, self.options, self.explain = factory, options, explain

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Beginning(self.wrappedFactory.buildProtocol(addr), self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.wrappedFactory.clientConnectionFailed(connector, reason)


class _Beginning(Protocol):
    """Puts TLS between a protocol and its transport."""

    transport: Any
    factory: Any

    def __init__(self, protocol: Any, factory: _TLSFactory) -> None:
        self._protocol, self.factory = protocol, factory

    def connectionMade(self) -> None:
        protocol, factory, below = self._protocol, self.factory, self.transport
        if not isinstance(below, SocketTransport):
            below = TransportEnd.under(self, Poller.for_reactor(below.reactor))
        connection = factory.options.clientConnectionForTLS(self)
        connection.set_connect_state()
        end = TlsEnd(below.socket, connection)
        # A server that just closes after our close-notify, as many do (RFC 8446, section 6.1), counts as having sent one.
        end.strict = True
        below.protocol = protocol
        transport = TlsTransport.instead_of(below, end)

        def done(problem: object) -> None:
            if problem is not None:
                why = factory.explain(problem, connection)
                transport.connectionLost(Failure(HandshakeError(why)))
            elif IHandshakeListener.providedBy(protocol):
                protocol.handshakeCompleted()

        transport.on_shaken = done
        protocol.makeConnection(transport)
        transport.shake()


def _text_of(name: x509.Name) -> str:
    return repr(name.rfc4514_string())
