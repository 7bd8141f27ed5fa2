"""OpenSSL's contexts to terminate TLS: the certificate for each client, and which client certificates are allowed."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from txmux.client.tls.client_certificates import ClientVerification, subject_alt_name
from txmux.errors import printable
from txmux.files import Reader, read_bytes
from txmux.net.tls.pem import KeyPair, read_key_pairs
from txmux.net.tls.validity import Validity
from txmux.rules.model import TlsSettings

_lib: Any = SSL._lib  # type: ignore[attr-defined]
# Of TLS 1.2; all have forward secrecy (RFC 9325, section 4.2).
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_MINIMUM = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# What a client could make the server work hard with, or choose badly.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


class NoCommonProtocolError(SSL.Error):
    """No protocol that a client offers by ALPN is in ``alpn``; OpenSSL sends it an alert (RFC 7301, section 3.2)."""

    def __init__(self, message: str) -> None:
        super().__init__([("", "", message)])  # as errors of OpenSSL's are


class Contexts:
    """The certificates that were read from files at one time, each in a context of OpenSSL's.

    Attributes:
        key_pairs: The certificates, each with its chain and key.
        validity: When each certificate is valid, with those of chains, authorities and revocation lists.
        shown: For each certificate its file, its names, its issuer, and when it is valid together with its chain, in seconds since 1970.
    """

    def __init__(self, tls: TlsSettings, read: Reader = read_bytes, route: str = "") -> None:
        self._sharing = _SHARING[tls.minimum]
        self.clients = ClientVerification(tls, read) if tls.client_ca is not None else None
        authorities = self.clients.authorities if self.clients else []
        revoked = self.clients.revoked if self.clients else []
        self._exact: dict[str, SSL.Context] = {}
        self._under: dict[str, SSL.Context] = {}
        made = []
        self.key_pairs = key_pairs = read_key_pairs("terminate_tls", tls.files, read)
        valid = [pair.validity("terminate_tls") for pair in key_pairs]
        self.shown = [*map(_shown, key_pairs, valid)]
        self.validity = [one for of_pair in valid for one in of_pair]
        self.validity += self.clients.validity() if self.clients else ()
        self.content = [
            (number, certificate.to_cryptography().public_bytes(Encoding.DER))
            for number, group in enumerate(
                [authorities, *([pair.certificate, *pair.chain] for pair in key_pairs)]
            )
            for certificate in group
        ]
        self.content += [(-1, revocations.public_bytes(Encoding.DER)) for revocations in revoked]
        same = (route, tls.minimum, tls.alpn, tls.client, self.content)
        self._sessions = sha256(repr(same).encode()).digest()
        for names, pairs in _by_names(key_pairs).items():
            context = _make_context(pairs, tls, self.clients)
            made.append(context)
            for name in names:
                contexts = self._under if name.startswith("*.") else self._exact
                contexts.setdefault(name.removeprefix("*."), context)
        self._default = made[0]

    def context_for(self, name: str | None) -> SSL.Context:
        """Return the context for a connection that is made of it now.

        It is that of an exact name, else of a wildcard for its first label (RFC 9525, section 6.3).
        """
        name = name or ""
        context = self._exact.get(name) or self._under.get(name.partition(".")[2]) or self._default
        # OpenSSL resumes a session only under the same ID: never for another name (RFC 6066, section 3), for another route, or
        # after certificates have changed. A connection copies it.
        session_id = _session_id(self._sessions, name)
        _lib.SSL_CTX_set_session_id_context(context._context, session_id, len(session_id))
        return context

    def connection_for(self, name: str | None, version: str | None) -> SSL.Connection:
        """Make a connection for a client.

        Args:
            name: The server name in the client's hello, as in `ClientHello`, or the address that it came to without one.
            version: The highest version in it.
        """
        context = self.context_for(name)
        if version != "1.3" or self.clients is not None:
            return SSL.Connection(context, None)
        connection = SSL.Connection(self._sharing, None)
        connection.set_context(context)
        return connection


@lru_cache(1024)  # OpenSSL, by which Python hashes, looks for the algorithm each time
def _session_id(sessions: bytes, name: str) -> bytes:
    return sha256(sessions + name.encode("latin-1")).digest()


def _shown(pair: KeyPair, valid: Sequence[Validity]) -> dict[str, Any]:
    leaf = pair.certificate.to_cryptography()
    return {
        "file": str(pair.path),
        "names": [*map(printable, sorted(names_of(leaf)))],
        "issuer": printable(leaf.issuer.rfc4514_string()),
        "not_before": max(validity.begins for validity in valid),
        "not_after": min(validity.ends for validity in valid),
    }


def _by_names(pairs: Iterable[KeyPair]) -> dict[frozenset[str], list[KeyPair]]:
    """Group certificates for the same names, of which OpenSSL takes one that suits the client: RSA or ECDSA."""
    groups: dict[frozenset[str], list[KeyPair]] = {}
    for pair in pairs:
        group = groups.setdefault(names_of(pair.certificate.to_cryptography()), [])
        if pair.key.type() not in {other.key.type() for other in group}:
            group.append(pair)
    return groups


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    names: list[Any]
    extension = subject_alt_name(certificate)
    if extension is not None:
        kinds = (x509.DNSName, x509.IPAddress)
        names = [name for kind in kinds for name in extension.get_values_for_type(kind)]
    else:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [attribute.value for attribute in common]
    return frozenset(str(name).lower().removesuffix(".") for name in names)


def _new_context(minimum: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_MINIMUM[minimum])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # sessions are in tickets
    return context


_SHARING = {minimum: _new_context(minimum) for minimum in _MINIMUM}
"""Contexts for their keys of tickets, which pyOpenSSL can neither set nor read: they are made before workers are forked, so all have them.

OpenSSL takes the keys of the context that a connection is made of, and the certificate of the one that it is given then. Each
session of TLS 1.3 has keys of its own, which those of tickets do not reveal. In TLS 1.2 a ticket has the keys of all that was
said: such sessions are resumed by the same worker, and only until certificates change. So are those of clients that are asked for a
certificate, since the authorities that a client has shown with it are known to that worker alone.
"""


def _make_context(
    pairs: Sequence[KeyPair], tls: TlsSettings, clients: ClientVerification | None
) -> SSL.Context:
    context = _new_context(tls.minimum)
    _lib.SSL_CTX_set_tlsext_servername_callback(context._context, _use_name)
    if tls.alpn:
        context.set_alpn_select_callback(_first_of([name.encode() for name in tls.alpn]))
    if clients is not None:
        clients.ask_in(context)
    for pair in pairs:
        pair.use_in(context)
    return context


@SSL._ffi.callback("int (*)(SSL *, int *, void *)")  # type: ignore[attr-defined,untyped-decorator]
def _use_name(*_: object) -> int:
    """Have OpenSSL tell the client that its name was used (RFC 6066, section 3); pyOpenSSL would look for the connection first."""
    return 0


def _first_of(protocols: Sequence[bytes]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    def choose(_: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        shown = ", ".join(protocol.decode("latin-1") for protocol in offered)
        raise NoCommonProtocolError(
            f"by ALPN the client offers only {shown}, which alpn does not name"
        )

    return choose
