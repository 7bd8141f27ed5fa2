"""The beginning of a PostgreSQL client, read as far as it has come: its first packet, and the TLS that it may ask for."""

import re

import attrs

from txmux.classes import define
from txmux.interfaces import Exchange
from txmux.wire.client_hello import LONGEST_HELLO, HelloReader, parse_client_hello
from txmux.wire.cursor import Cursor, MalformedError, ShortError, copied

__all__ = [
    "LONGEST_BEGINNING", "LONGEST_PACKET", "LONGEST_TLS_START", "Startup", "TlsStart",
    "is_cancel_request", "parse_startup", "parse_tls_start",
]  # fmt: skip

LONGEST_PACKET = 4 + 10_000
"""The most bytes of a StartupMessage: behind its length, ``MAX_STARTUP_PACKET_LENGTH`` of PostgreSQL's ``pqcomm.h``."""

_LONGEST_NAME = 63
"""Bytes of a user or a database (``NAMEDATALEN``): the server leaves the others out (``ProcessStartupPacket``)."""
_HEADER = 4 + 4
_SHORTEST_STARTUP = _HEADER + len(b"a\0\0\0")
_SHORTEST_CANCEL = _HEADER + 4 + 4
_LONGEST_CANCEL = _HEADER + 4 + 256

_CANCEL_REQUEST = (80_877_102).to_bytes(4, "big")
_SSL_REQUEST, _GSSENC_REQUEST = 80_877_103, 80_877_104
_PROTOCOL_3 = 3 << 16
_KEPT = frozenset({b"user", b"database", b"application_name"})

_FIRST_NAME = re.compile(rb"[A-Za-z_][!-~]{0,127}|_pq_\.[^\0]*")
"""What tells this from other protocols; the server takes any other bytes, too."""
_LONGEST_FIRST = 128
LONGEST_BEGINNING = _HEADER + _LONGEST_FIRST + 1
"""With the end of the first name it is certain that this is PostgreSQL."""


@define(slots=False)
class Startup:
    """The state of the packet; frozen once `parse_startup` has returned it.

    Attributes:
        recognised: Whether this is a PostgreSQL client.
        malformed: Whether no such packet begins like this; if `recognised`, the rest of it is not as it ought to be.
        unusual: Whether the first name is like none that clients of PostgreSQL send.
        is_request: Whether the packet has no parameters: SSLRequest, GSSENCRequest or CancelRequest.
        complete: Whether all parameters are there.
        parameters: The values of user, database and application_name, as far as they are there.
    """

    recognised: bool = False
    malformed: bool = False
    unusual: bool = False
    is_request: bool = False
    complete: bool = False
    parameters: dict[bytes, bytes] = attrs.Factory(dict)

    _end: int = 0
    """Where the packet ends; 0 while that is not known."""
    _at: int = _HEADER
    """The parameters are read so far, …"""
    _seen: int = _HEADER
    """… and no string ends between there and here."""
    _name: bytes = b""
    """The name whose value comes next."""

    @property
    def user(self) -> bytes | None:
        """The user, if it is there, as the server cuts it."""
        user = self.parameters.get(b"user")
        return None if user is None else user[:_LONGEST_NAME]

    @property
    def database(self) -> bytes | None:
        """The database, if it was sent, as the server cuts it; the user's name once it is certain that none was."""
        database = self.parameters.get(b"database", b"")[:_LONGEST_NAME]
        return database or (self.user if self.complete else None)

    @property
    def application(self) -> bytes | None:
        """The name of the application, if it is there."""
        return self.parameters.get(b"application_name")

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning.

        Raises:
            MalformedError: They are not as they ought to be, whatever follows.
            ShortError: The packet is not there in full.
        """
        if not self._end:
            self._read_header(Cursor(data))
        if self.is_request:
            return
        while self._at < self._end - 1:
            self._read_string(data)
        if self._name:
            raise MalformedError
        Cursor(data, self._end - 1).take(1)  # the server does not look at it
        self.complete = True

    def _read_header(self, cursor: Cursor) -> None:
        length = cursor.number(4, _HEADER, LONGEST_PACKET)
        if length == _HEADER:
            cursor.number(4, _SSL_REQUEST, _GSSENC_REQUEST)
            self.is_request = True
        elif (
            _SHORTEST_CANCEL <= length <= _LONGEST_CANCEL
            and cursor.data[_HEADER - 4 : _HEADER - 3] == _CANCEL_REQUEST[:1]
        ):
            cursor.literal(_CANCEL_REQUEST)
            self.is_request = True
        elif length < _SHORTEST_STARTUP:
            raise MalformedError
        else:
            cursor.number(4, _PROTOCOL_3, _PROTOCOL_3 | 0xFFFF)
        self.recognised = self.is_request
        self._end = length

    def _read_string(self, data: bytes) -> None:
        last = self._end - 1
        end = data.find(b"\0", self._seen, last)
        is_there = end >= 0
        self._seen = end + 1 if is_there else min(len(data), last)
        if not self._name:
            name = data[self._at : end if is_there else last]
            if is_there and not name:
                raise MalformedError
            if self._at == _HEADER and name:
                self.unusual = not _FIRST_NAME.fullmatch(name)
                self.recognised = not self.unusual and (is_there or len(name) > _LONGEST_FIRST)
            if is_there:
                self._name = name
        elif is_there:
            self._keep(data[self._at : end])
            self._name = b""
        if is_there:
            self._at = self._seen
        elif self._seen == last:
            raise MalformedError
        else:
            raise ShortError(self._seen + 1)

    def _keep(self, value: bytes) -> None:
        if self._name in _KEPT:  # the last one of a name counts, as for the server
            self.parameters = {**self.parameters, self._name: value}


def is_cancel_request(data: bytes) -> bool:
    """Return whether a stream begins with a CancelRequest, whose key may be on its way."""
    length = int.from_bytes(data[:4])
    return data[4:8] == _CANCEL_REQUEST and _SHORTEST_CANCEL <= length <= _LONGEST_CANCEL


def _may_be_cancel_request(data: bytes) -> bool:
    """Return whether a few bytes may begin one. It says nothing of TLS, but only its client's route knows that it is one."""
    length = data[:4]
    low, high = (int.from_bytes(length.ljust(4, fill)) for fill in (b"\0", b"\xff"))
    is_short = len(data) < _HEADER and _CANCEL_REQUEST.startswith(data[4:])
    return is_short and high >= _SHORTEST_CANCEL and low <= _LONGEST_CANCEL


def parse_startup(data: bytes, earlier: Startup | None) -> Startup:
    """Read the first packet of a PostgreSQL client out of the first bytes of a stream; for `Peeked.parsed`.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is None:
        startup = Startup()
    elif earlier.malformed or earlier.complete or earlier.is_request:
        return earlier
    else:
        startup = copied(earlier)
    try:
        startup.read(data)
    except MalformedError:
        startup.malformed = True
    except ShortError:
        pass
    return startup


_SSL = Exchange(bytes.fromhex("00000008 04d2162f"), b"S", repeat=True)
# Encryption by Kerberos hides the server's name, and a client whose request is refused asks for TLS next.
_GSSENC = Exchange(bytes.fromhex("00000008 04d21630"), b"N", repeat=False)
_REQUEST = len(_SSL.request)

LONGEST_TLS_START = 2 * _REQUEST + LONGEST_HELLO
"""The most bytes up to the end of the ClientHello."""


@define(slots=False)
class TlsStart:
    """Its state; frozen once `parse_tls_start` has returned it.

    Attributes:
        malformed: Whether no client that asks for TLS begins like this.
        exchanges: The requests that are there.
        reader: What is known of the ClientHello; ``None`` before a request for TLS.
    """

    malformed: bool = False
    exchanges: tuple[Exchange, ...] = ()
    reader: HelloReader | None = None

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning."""
        at = _REQUEST * len(self.exchanges)
        expected = (_SSL,) if self.exchanges else (_GSSENC, _SSL)
        while self.reader is None:
            request = data[at : at + _REQUEST]
            exchange = next((e for e in expected if e.request.startswith(request)), None)
            if exchange is None:
                self.malformed = not _may_be_cancel_request(data[at:])
                return
            if len(request) < _REQUEST:
                return
            self.exchanges += (exchange,)
            at += _REQUEST
            expected = (_SSL,)
            if exchange is _SSL:
                self.reader = HelloReader()
        self.reader = parse_client_hello(data[at:], self.reader)
        self.malformed = self.reader.malformed


def parse_tls_start(data: bytes, earlier: TlsStart | None) -> TlsStart:
    """Read the first message of a client that requests TLS, for `Peeked.parsed`.

    That is SSLRequest, maybe after a GSSENCRequest ("PostgreSQL documentation", "Message Flow", "SSL Session
    Encryption" and "GSSAPI Session Encryption"), and the ClientHello that follows when it is granted.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is not None and earlier.malformed:
        return earlier
    start = copied(earlier) if earlier else TlsStart()
    start.read(data)
    return start
