"""Verifies that the certificate of a server is for its name."""

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.errors import printable
from txmux.net.header_first import HeaderFirst
from txmux.net.tls.errors import HandshakeError
from txmux.transport import is_address

_LONGEST_NAMES = 500  # characters, of all names in a certificate


class WrongNameError(HandshakeError):
    """The certificate of a server is trusted, but not for its name."""


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """TLS with a server whose certificate is verified; takes the arguments of `optionsForClientTLS`."""

    def __init__(self, name: str, *arguments: Any, **options: Any) -> None:
        self._name = name
        self._options = optionsForClientTLS(name, *arguments, **options)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        verify_name(connection, self._name)
        return connection


def verify_name(connection: SSL.Connection, name: str) -> None:
    """Have the handshake fail unless the server's certificate is trusted and for a name.

    This replaces the check of `optionsForClientTLS`, which takes a certificate without a subjectAltName, or with an
    unreadable one, for any name, and logs a traceback each time.

    Args:
        connection: Its handshake has not begun. Its data is what ends with a `WrongNameError`: a `TLSMemoryBIOProtocol` or a `TlsEnd`.
        name: A host name or an IP address.
    """

    def verify(its: SSL.Connection, leaf: crypto.X509, error: int, depth: int, ok: int) -> bool:  # noqa: ARG001
        why = name_mismatch(leaf, name) if ok and depth == 0 else ""
        if why:
            its.get_app_data().failVerification(Failure(WrongNameError(why)))
        return bool(ok) and not why

    connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)


def verify_first(factory: Any, name: str) -> HeaderFirst:
    """Make a factory for protocols whose transport is TLS of Twisted's, to a server of a name."""

    def verify(secure: Any) -> bytes:
        verify_name(secure.getHandle(), name)
        return b""

    return HeaderFirst(factory, verify)


def name_mismatch(leaf: crypto.X509, name: str) -> str:
    """Return why a certificate is not for a name; empty if it is."""
    try:
        certificate = leaf.to_cryptography()
        entries = _patterns(certificate)
        patterns = [entry for entry in entries if not isinstance(entry, CertificateError)]
        wanted = IPAddress_ID(name) if is_address(name) else DNS_ID(name)
        if any(map(wanted.verify, patterns)):
            return ""
        if not entries and certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            return f"its certificate has only a common name, which nobody checks any more: it needs {name} as a subjectAltName"
        shown = ", ".join(map(_pattern_text, patterns or entries))
        names = f"for {shown}" if patterns else f"unreadable ({shown})" if entries else ""
    except Exception as problem:  # noqa: BLE001 - of parsers of what the server has sent
        names = f"unreadable ({problem})"
    return f"its certificate is {printable(names, _LONGEST_NAMES) or 'for no name at all'}, not for {name}"


def _patterns(certificate: x509.Certificate) -> list[Any]:
    """Return host names and addresses; in place of one that matches nothing, what is wrong with it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *map(_dns_pattern, names.get_values_for_type(x509.DNSName)),
        *map(IPAddressPattern, names.get_values_for_type(x509.IPAddress)),  # type: ignore[arg-type]
    ]


def _dns_pattern(text: str) -> DNSPattern | CertificateError:
    try:
        return DNSPattern.from_bytes(text.encode())
    except CertificateError as problem:  # such as an address
        return problem


def _pattern_text(pattern: Any) -> str:
    value = getattr(pattern, "pattern", pattern)
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
