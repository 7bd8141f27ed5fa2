"""What a client says to a port that is tested, and what it takes for an answer."""

from __future__ import annotations

import contextlib
import ipaddress
import math
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from txmux.errors import MuxError

_ALPN = (b"h2", b"http/1.1")
_LONGEST_NAME = 255  # bytes of a name of ALPN: RFC 7301, section 3.1
_READ = 65536
_COMPARED = 64  # bytes of an answer
_HEAD = 2048
_QUIET = 0.2  # seconds after its last byte until an answer counts as complete
_SAME_HEADERS = (b"server:", b"content-type:", b"content-length:", b"location:")

HAS_POST_QUANTUM = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000
"""Whether the TLS library begins with a key share of X25519MLKEM768, as browsers do."""

Described = tuple[str, Sequence[object], str]
"""An answer for people; what it is compared by, from the finest on to what any answer has; its kind."""


class RefusedError(MuxError):
    """The server has sent what is no answer; the message says what."""


def server_name(host: str) -> str:
    """Return what SNI has of a host, which is nothing of an address; raises `UnicodeError`."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return ""
    return host.encode("idna").decode("ascii")


class Sample:
    """First bytes of a client that says no more, for which any answer will do.

    Attributes:
        is_done: Whether the answer is complete.
        may_end: Whether an answer is complete if nothing follows.
        quiet: Seconds for that.
    """

    may_end, quiet = True, _QUIET

    def __init__(self, first: bytes) -> None:
        self._unsent, self._received = first, b""
        self.is_done = False

    def to_send(self) -> bytes:
        """Give what the client sends next."""
        unsent, self._unsent = self._unsent, b""
        return unsent

    def receive(self, data: bytes) -> None:
        """Take what the server has sent; raises `RefusedError`."""
        self._received += data
        is_http = self._received.startswith(b"HTTP/")
        most = _HEAD if is_http else _COMPARED
        self.is_done = len(self._received) >= most or (is_http and b"\r\n\r\n" in self._received)

    def answer(self) -> Described:
        """Describe the answer; raises `RefusedError` if it is none.

        An answer of HTTP is compared by its status and by headers that are the same each time, any other by as many of its
        first bytes as those to whole first bytes have in common, since cookies and times may follow.
        """
        head = self._received
        line = head[:_COMPARED].partition(b"\n")[0].rstrip(b"\r")
        if head.startswith(b"HTTP/"):
            lines = head.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
            same = tuple(sorted(one for one in lines if one.startswith(_SAME_HEADERS)))
            return line.decode("latin-1"), ((line, same), line, b""), "answer"
        sizes = (_COMPARED, 32, 16, 8, 4, 2, 1, 0)
        text = line.decode("latin-1")
        if not (text.isascii() and text.isprintable()):
            text = f"{head[:16].hex(' ', 4)} …"
        return text, [head[:size] for size in sizes], "answer"


class Handshake(Sample):
    """A handshake of TLS, in which the server is recognised by its certificate, which is not verified.

    Args:
        name: The server's, for SNI; may be empty.
        post_quantum: Whether to begin with a key share of X25519MLKEM768.
        size: What the hello is filled up to, in bytes, by names of ALPN that nobody knows.
    """

    may_end, quiet = False, math.inf

    def __init__(self, name: str, *, post_quantum: bool = False, size: int = 0) -> None:
        super().__init__(b"")
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if HAS_POST_QUANTUM and not post_quantum:
            context.set_tmp_ecdh(ec.SECP256R1())
        protocols = [*_ALPN]
        if size:
            short = size - len(Handshake(name, post_quantum=post_quantum).to_send())
            protocols += fillers(short)
        context.set_alpn_protos(protocols)
        self._tls = SSL.Connection(context, None)
        if name:
            self._tls.set_tlsext_host_name(name.encode("ascii"))
        self._tls.set_connect_state()
        self._go_on()

    def _go_on(self) -> None:
        try:
            self._tls.do_handshake()
            self.is_done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            if self._received[:1] not in {b"\x15", b"\x16"}:
                raise RefusedError(f"no TLS: {Sample.answer(self)[0]}") from error
            reasons = [reason for *_, reason in error.args[0]] if error.args else []
            raise RefusedError(f"refused: {reasons[-1] if reasons else 'no TLS'}") from error

    def to_send(self) -> bytes:
        try:
            return self._tls.bio_read(_READ)
        except SSL.WantReadError:
            return b""

    def receive(self, data: bytes) -> None:
        self._received += data
        self._tls.bio_write(data)
        self._go_on()

    def answer(self) -> Described:
        certificate = self._tls.get_peer_certificate()
        if certificate is None:
            raise RefusedError("no certificate")
        return described(certificate.to_cryptography())


def fillers(size: int) -> list[bytes]:
    """Return names of ALPN that nobody knows and that take so many bytes."""
    whole, rest = divmod(max(0, size), _LONGEST_NAME + 1)
    sizes = [_LONGEST_NAME] * whole + [rest - 1] * (rest > 1)
    return [f"{number:0{length}}".encode("ascii") for number, length in enumerate(sizes, 1)]


def described(certificate: x509.Certificate) -> Described:
    """Describe the answer of a server that has this certificate."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(map(str, found.get_values_for_type(x509.DNSName)))
    except Exception:  # noqa: BLE001 - of parsers of what the server has sent
        names = ()
    shown = names[0] if names else certificate.subject.rfc4514_string()
    keys = (certificate.fingerprint(hashes.SHA256()), names or shown, b"")
    return f"certificate {shown}", keys, "certificate"
