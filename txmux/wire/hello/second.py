"""The second hello of a TLS client, for which a HelloRetryRequest asks (RFC 8446, section 4.1.4)."""

from collections.abc import Mapping
from typing import ClassVar

import attrs

from txmux.classes import define
from txmux.wire.client_hello import ClientHello, HelloReader, parse_client_hello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.hello.records import HANDSHAKE, OTHER_RECORDS, before_hello

ILLEGAL_PARAMETER = 47
MALFORMED = "the second hello is malformed"

_CLIENT_HELLO = b"\1"
FIRST_BYTES = {b"", HANDSHAKE, *OTHER_RECORDS}
"""Without one of these, a stream does not begin as TLS."""
_LITTLE = {b"", b"\0", b"\1", b"\2"}  # bytes of an alert, or of a record for old middleboxes

_WHAT = {
    "sni": "server name",
    "alpn": "application protocols",
    "version": "versions",
    "ech": "encrypted hellos",
}


NOT_READ = "its hello is malformed, longer than peek_limit, or was not whole in detect_timeout, or when the client ended"
NOT_ALONE = "its hello is not alone in its records"
LATE = "another route is for its hello, which was not whole in detect_timeout"


BEGINNING = 6
"""Bytes by which it is known whether a stream begins as TLS."""


def begins_tls(data: bytes) -> bool:
    """Return whether a server may read a hello at the beginning of a stream, or may do so when more of it has come.

    Java's read one in records of any version, and behind an empty record; OpenSSL behind that, or an empty ChangeCipherSpec; GnuTLS behind
    a ChangeCipherSpec; Go's behind an alert.
    """
    kind, high, low, content = data[:1], data[3:4], data[4:5], data[5:BEGINNING]
    if kind == HANDSHAKE:
        return content in (FIRST_BYTES if high + low == b"\0\0" else {b"", _CLIENT_HELLO})
    return kind in OTHER_RECORDS and high in {b"", b"\0"} and low in _LITTLE


def is_not_read(data: bytes) -> bool:
    """Return whether a stream begins as TLS, but not with a hello: a server may read one, now or when more of it has come."""
    return begins_tls(data) and parse_client_hello(data, None).hello is None


def check_same(first: ClientHello | None, second: ClientHello | None, where: str = "") -> None:
    """Check that a client still asks for what its first hello was routed by (RFC 8446, section 4.1.2).

    Args:
        first: The first hello.
        second: What the client has sent after a HelloRetryRequest.
        where: The place in these hellos, for the message.

    Raises:
        IllegalHelloError: It asks for something else.
    """
    if first is None or second is None:
        raise IllegalHelloError(ILLEGAL_PARAMETER, MALFORMED)
    for field, what in _WHAT.items():
        if getattr(first, field) != getattr(second, field):
            why = f"the second hello has other {what}{where} than the first"
            raise IllegalHelloError(ILLEGAL_PARAMETER, why)


@define
class SecondHello:
    """Waits for a second hello, and compares it with the first, however the network cut it.

    Args:
        first: The first one, by which the client was routed.

    Attributes:
        length: The number of bytes so far.
        rest: What is not passed on yet.
        is_over: Whether all that follows is passed on as it comes.
        is_opened: Whether it had an inner hello.
        facts: What the access log has of that a server has asked for it.
    """

    facts: ClassVar[Mapping[str, str]] = {}

    _first: ClientHello | None
    _hello: HelloReader | None = attrs.field(default=None, init=False)
    length: int = attrs.field(default=0, init=False)
    rest: bytes = attrs.field(default=b"", init=False)
    is_over: bool = attrs.field(default=False, init=False)
    is_opened: bool = attrs.field(default=False, init=False)

    def receive(self, data: bytes) -> bytes:
        """Take more of what the client sends, and return what is to be passed on.

        Raises:
            IllegalHelloError: It does not belong to the first one, or is not legal.
        """
        self.length += len(data)
        self.rest += data
        at = before_hello(self.rest)
        passed, self.rest = self.rest[:at], self.rest[at:]
        if self.rest.startswith(HANDSHAKE):
            self._hello = reader = parse_client_hello(self.rest, self._hello)
            if reader.malformed:
                raise IllegalHelloError(ILLEGAL_PARAMETER, MALFORMED)
            if reader.hello:
                self.rest = self._checked(reader.hello, self.rest)
                self.is_over = True
        else:
            self.is_over = self.rest[:1] not in {b"", *OTHER_RECORDS}
        if self.is_over:
            passed, self.rest = passed + self.rest, b""
        return passed

    def _checked(self, hello: ClientHello, stream: bytes) -> bytes:
        """Return what is to be passed on in the place of a stream with a second hello."""
        check_same(self._first, hello)
        return stream
