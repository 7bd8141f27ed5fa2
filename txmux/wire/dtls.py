"""The first datagrams of a DTLS client, read as far as they have come."""

import contextlib
from struct import Struct

import attrs

from txmux.classes import define
from txmux.wire.client_hello import HelloReader
from txmux.wire.cursor import Cursor, MalformedError, ShortError, copied
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, Fragment, reassemble

_record_header = Struct(">BHHIHH")  # type, version, epoch, the sequence number in two parts, length
_HANDSHAKE = 22
_RECORD_VERSIONS = frozenset({0xFEFF, 0xFEFD})
_TLS_VERSIONS = {0xFEFF: b"\3\2", 0xFEFD: b"\3\3"}
_CLIENT_HELLO = 1
_LEAST_HELLO = 2 + 32 + 1 + 1 + 4 + 2
_LONGEST_SESSION_ID = 32


@define(slots=False)
class DtlsOpening:
    """The state of an opening association; frozen once `parse_dtls` has returned it.

    Attributes:
        refused: Whether this is not the opening of DTLS, whatever follows.
        certain: Whether it is: the first datagram has a fragment of a ClientHello.
        hello: The ClientHello, as far as it has come.
    """

    refused: bool = False
    certain: bool = False
    hello: HelloReader = attrs.field(factory=lambda: HelloReader(carrier="d"))

    _datagrams: int = 0
    """How many datagrams have been read."""
    _message: tuple[int, int] | None = None
    """The length of the message and its number, which all its fragments have."""
    _body: bytes = b""
    """The beginning of the message, as far as it is whole, …"""
    _pending: tuple[Fragment, ...] = ()
    """… the fragments behind a gap, …"""
    _fragment_count: int = 0
    """… and how many there were in all."""

    def read(self, datagram: bytes) -> None:
        """Continue with one more datagram.

        Raises:
            MalformedError: No DTLS client begins so.
        """
        fragments: list[Fragment] = []
        try:
            self._read_records(datagram, fragments)
        except (MalformedError, ShortError):
            # After a valid record, what cannot be read is ignored.
            if not (self.certain or fragments):
                raise MalformedError from None
        self._fragment_count += len(fragments)
        if self._fragment_count > MOST_FRAGMENTS:
            raise MalformedError
        self._body, self._pending = reassemble(self._body, (*self._pending, *fragments))
        self.hello = copied(self.hello)
        with contextlib.suppress(ShortError):
            self.hello.read_message(self._as_tls())
        if self.hello.malformed:
            raise MalformedError
        self.certain = True

    def _read_records(self, datagram: bytes, fragments: list[Fragment]) -> None:
        at = 0
        while at < len(datagram):
            if len(fragments) > MOST_FRAGMENTS or len(datagram) - at < _record_header.size:
                raise MalformedError
            kind, version, epoch, high, _, length = _record_header.unpack_from(datagram, at)
            at += _record_header.size
            record = datagram[at : at + length]
            # A client sends few records before its hello is answered.
            if kind != _HANDSHAKE or version not in _RECORD_VERSIONS or epoch or high:
                raise MalformedError
            if len(record) < length:
                raise MalformedError
            self._read_fragments(Cursor(record), fragments)
            at += length

    def _read_fragments(self, cursor: Cursor, fragments: list[Fragment]) -> None:
        """Read the contents of a record (RFC 6347, section 4.2.2)."""
        while True:
            cursor.number(1, _CLIENT_HELLO, _CLIENT_HELLO)
            length = cursor.number(3, _LEAST_HELLO, LONGEST_STREAM)
            message = (length, cursor.number(2, 0, 1))  # the second hello has a cookie
            offset = cursor.number(3, 0, length - 1)
            data = cursor.take(cursor.number(3, 1, length - offset))
            if self._message is None:
                self._message = message
            elif message != self._message:
                raise MalformedError
            fragments.append((offset, data))
            if cursor.at == len(cursor.data) or len(fragments) > MOST_FRAGMENTS:
                return

    def _as_tls(self) -> bytes:
        """Return the message as it would be in TLS, which has no cookie."""
        cursor = Cursor(self._body)
        version = _TLS_VERSIONS.get(int.from_bytes(cursor.take(2), "big"))
        if version is None:
            raise MalformedError
        random = cursor.take(32)
        session_id = cursor.take(cursor.number(1, 0, _LONGEST_SESSION_ID))
        cookie = cursor.take(cursor.number(1, 0, 0xFF))
        assert self._message is not None  # noqa: S101 - a fragment was read
        length = self._message[0] - 1 - len(cookie)
        return b"".join(
            (
                bytes([_CLIENT_HELLO]),
                max(0, length).to_bytes(3, "big"),
                version,
                random,
                bytes([len(session_id)]),
                session_id,
                self._body[cursor.at :],
            )
        )


_REFUSED = DtlsOpening(refused=True, datagrams=1)


def parse_dtls(datagrams: tuple[bytes, ...], earlier: DtlsOpening | None) -> DtlsOpening:
    """Read the first datagrams of a DTLS client, 1.0 to 1.3 (RFC 6347, RFC 9147); for `Datagrams.parsed_all`.

    The hello may be the first one of a client, or the second one, with a cookie. Its fragments may come in any order.

    Args:
        datagrams: Those so far.
        earlier: The answer for fewer datagrams of the same flow.
    """
    first = datagrams[0]
    if earlier is None and first and first[0] != _HANDSHAKE:
        return _REFUSED
    opening = DtlsOpening() if earlier is None else copied(earlier)
    for datagram in datagrams[opening._datagrams :]:
        if opening.refused or opening.hello.hello:
            break
        opening._datagrams += 1
        try:
            opening.read(datagram)
        except MalformedError:
            opening.refused = True
    return opening
