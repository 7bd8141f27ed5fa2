"""What a client says to a port that is tested, and what it takes for an answer."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from txmux.classes import define
from txmux.client.tls.client_certificates import alternative_names
from txmux.errors import MuxError, cause_of

_ALPN = (b"h2", b"http/1.1")
_LONGEST_NAME = 255  # bytes of a name of ALPN: RFC 7301, section 3.1
_READ = 65536
_COMPARED = (64, 32, 16, 8, 4, 0)  # first bytes of an answer
_MOST = 2048  # bytes of an answer that are read
_SAME_HEADERS = (b"server:", b"content-type:", b"content-length:", b"location:")

HAS_POST_QUANTUM = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000
"""Whether the TLS library begins with a key share of X25519MLKEM768, as browsers do."""


@define
class Answer:
    """What came of one connection.

    Attributes:
        text: What it is, for people.
        keys: What it is compared by, from the finest on; empty if there was none.
        noun: What kind of answer it is.
        seconds: From the beginning of the connection.
    """

    text: str
    keys: Sequence[object] = ()
    noun: str = "answer"
    seconds: float = 0


class FirstBytes:
    """First bytes of a client that sends nothing else, for which any answer will do.

    Attributes:
        is_done: Whether the answer is complete.
        quiet: Seconds after its last byte until it is, too; none if only its bytes tell.
    """

    quiet = 0.2

    def __init__(self, first: bytes) -> None:
        self._unsent, self._received = first, b""
        self.is_done = False

    def to_send(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent

    def receive(self, data: bytes) -> None:
        """Take what the server has sent; raises `MuxError` if that is no answer."""
        self._received += data
        is_http = self._received.startswith(b"HTTP/")
        ends = b"\r\n\r\n" in self._received if is_http else bool(self._line())
        self.is_done = ends or len(self._received) >= _MOST

    def _line(self) -> str:
        """Return the first line, if it has come and is text."""
        line, ends, _ = self._received.partition(b"\n")
        text = line[: _COMPARED[0]].rstrip(b"\r").decode("latin-1")
        return text if ends and text.isascii() and text.isprintable() else ""

    def answer(self) -> Answer:
        """Describe the answer, which is compared by its first bytes, since times and random bytes may follow."""
        head, line = self._received, self._line()
        if line and head.startswith(b"HTTP/"):
            lines = head.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
            headers = frozenset(one for one in lines if one.startswith(_SAME_HEADERS))
            return Answer(line, ((line, headers), line))
        compared = line.encode("ascii") or head
        shown = line or f"{head[:16].hex(' ', 4)} …"
        return Answer(shown, [compared[:size] for size in _COMPARED])


class Handshake(FirstBytes):
    """A handshake of TLS, in which the server is recognised by its certificate, which is not verified.

    Args:
        name: The server's, for SNI; may be empty.
        post_quantum: Whether to begin with a key share of X25519MLKEM768.
        size: What the hello is filled up to, in bytes.
    """

    quiet = 0

    def __init__(self, name: str, *, post_quantum: bool = False, size: int = 0) -> None:
        super().__init__(b"")
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if HAS_POST_QUANTUM and not post_quantum:
            context.set_tmp_ecdh(ec.SECP256R1())
        usual = len(Handshake(name, post_quantum=post_quantum).to_send()) if size else 0
        context.set_alpn_protos([*_ALPN, *fillers(size - usual)])
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
        except SSL.ZeroReturnError:
            raise MuxError("closed") from None
        except SSL.Error as error:
            is_tls = self._received[:1] in {b"\x15", b"\x16"}  # an alert, or a handshake
            said = cause_of(error).removeprefix("no TLS: ")
            raise MuxError(said if is_tls else f"no TLS: {super().answer().text}") from error

    def to_send(self) -> bytes:
        try:
            return self._tls.bio_read(_READ)
        except SSL.WantReadError:
            return b""

    def receive(self, data: bytes) -> None:
        self._received += data
        self._tls.bio_write(data)
        self._go_on()

    def answer(self) -> Answer:
        certificate = self._tls.get_peer_certificate()
        if certificate is None:
            raise MuxError("no certificate")
        return of_certificate(certificate.to_cryptography())


def fillers(size: int) -> list[bytes]:
    """Return unknown names of ALPN of this length in bytes."""
    whole, rest = divmod(max(0, size), _LONGEST_NAME + 1)
    sizes = [_LONGEST_NAME] * whole + [rest - 1] * (rest > 1)
    return [f"{number:0{length}}".encode("ascii") for number, length in enumerate(sizes)]


def of_certificate(certificate: x509.Certificate) -> Answer:
    names = tuple(name for kind, name in alternative_names(certificate) if kind == "DNS")
    shown = names[0] if names else certificate.subject.rfc4514_string()
    keys = (certificate.fingerprint(hashes.SHA256()), names or shown)
    return Answer(f"certificate {shown}", keys, "certificate")
