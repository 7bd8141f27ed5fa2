"""The first datagrams of a QUIC client, read as far as they have come."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from txmux.classes import define
from txmux.wire.client_hello import ClientHello, HelloReader
from txmux.wire.cursor import MalformedError, copied
from txmux.wire.quic.header import (
    LEAST_DATAGRAM,
    LONGEST_ID,
    SHORTEST_FIRST_ID,
    VERSIONS,
    LongHeader,
    Packet,
    UnacceptableError,
    long_headers,
    may_open,
    varint,
)
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, Fragment, reassemble

if TYPE_CHECKING:
    from txmux.wire.quic.initial import ClientKeys

OTHER_VERSION = "other"
"""The name of all versions whose Initial packets cannot be read."""

_HEADER = 4  # of a message of the handshake
MOST_PACKETS = 16
"""The most packets that are read before the decision, or in a datagram after it."""
_MOST_FRAGMENTS_EVER = 64  # browsers cut the hello differently each time they send it again


_ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0x02, 0x03, 0x06, 0x1C
_MOST_OTHERS = 32
_skip = re.compile(rb"[\x00\x01]*").match  # PADDING and PING, of which there may be thousands


def read_frames(payload: bytes) -> list[Fragment]:
    """Read the frames of a client's Initial packet (RFC 9000, sections 12.4 and 19).

    Returns:
        The fragments of the stream in its CRYPTO frames, in the order of the frames.

    Raises:
        MalformedError: There is a frame that may not be there, or one that is not there in full, or too many of them.
    """
    fragments: list[Fragment] = []
    others = 0
    at, end = 0, len(payload)
    if not end:
        raise MalformedError
    while True:
        padding = _skip(payload, at)
        at = padding.end() if padding else at
        if at >= end:
            return fragments
        kind = payload[at]
        if kind == _CRYPTO:
            offset, at = varint(payload, at + 1)
            length, at = varint(payload, at)
            if (
                at + length > end
                or offset + length > LONGEST_STREAM
                or len(fragments) >= MOST_FRAGMENTS
            ):
                raise MalformedError
            fragments.append((offset, payload[at : at + length]))
            at += length
            continue
        others += 1
        if others > _MOST_OTHERS:
            raise MalformedError
        if kind in {_ACK, _ACK_ECN}:
            at = _skip_ack(payload, at + 1, ecn=kind == _ACK_ECN)
        elif kind == _CLOSE:
            _, at = varint(payload, at + 1)
            _, at = varint(payload, at)
            length, at = varint(payload, at)
            at += length
        else:
            raise MalformedError
        if at > end:
            raise MalformedError


def _skip_ack(payload: bytes, at: int, *, ecn: bool) -> int:
    """Find the end of an ACK frame (RFC 9000, section 19.3)."""
    for _ in range(2):  # the largest number, the delay
        _, at = varint(payload, at)
    count, at = varint(payload, at)
    if count > _MOST_OTHERS:
        raise MalformedError
    for _ in range(1 + 2 * count + (3 if ecn else 0)):
        _, at = varint(payload, at)
    return at


@define(slots=False)
class QuicOpening:
    """The state of an opening connection; frozen once `parse_opening` has returned it.

    Attributes:
        refused: Whether this is not the opening of a QUIC connection, whatever follows.
        certain: Whether it is one: a packet was found to be made by a client, or the version is another.
        version: The name of the version, once it is known.
        hello: The ClientHello, as far as it has come.
        drops_last: Whether the last datagram is one that servers drop. It has not changed anything here, and must not reach a server: one that
            takes it nevertheless would see another hello.
        destination: The connection ID that the first packet is sent to.
    """

    refused: bool = False
    certain: bool = False
    version: str | None = None
    hello: HelloReader = attrs.field(factory=lambda: HelloReader(carrier="q"))
    drops_last: bool = False
    destination: bytes | None = None

    _datagrams: int = 0
    """How many datagrams have been read."""
    _packets: int = 0
    """How many packets of them."""
    _number: int = 0
    """The version, as a number. It and `destination` are the same in all packets that belong to it."""
    _keys: dict[int, ClientKeys] = attrs.field(factory=dict)
    """By version. All follow from the connection ID, so copies share them."""
    _largest: int = -1
    """The largest number of a packet."""
    _stream: bytes = b""
    """The beginning of the stream of CRYPTO frames, as far as it is whole, …"""
    _pending: tuple[Fragment, ...] = ()
    """… the fragments after a gap, …"""
    _fragment_count: int = 0
    """… and how many there were in all."""

    def read(self, datagram: bytes) -> None:
        """Continue with one more datagram.

        Raises:
            MalformedError: No QUIC client begins so.
            UnacceptableError: Servers drop it, or end the connection for it.
        """
        try:
            self._put_together(self._read_packets(datagram))
        except MalformedError:
            if not self.certain:
                raise
            raise UnacceptableError from None

    def _read_packets(self, datagram: bytes) -> list[Fragment]:
        fragments: list[Fragment] = []
        # Whether servers drop it is only of interest if a client has made it, which the first Initial packet shows.
        is_good = True
        header = None
        for at, header in long_headers(datagram):
            if self.destination is None:
                is_good = self._begin(header, datagram)
                if header.kind is None:
                    return fragments
            elif (header.version, header.destination) != (self._number, self.destination):
                if header.kind is None and header.destination != self.destination and at:
                    break  # random bytes behind the last packet
                is_good = False
                continue
            self._packets += 1
            if self._packets > MOST_PACKETS:
                raise MalformedError
            if header.kind is Packet.INITIAL:
                is_good = is_good and len(datagram) >= LEAST_DATAGRAM
                fragments += self._read_initial(datagram, at, header)
            else:
                is_good = is_good and (header.kind is Packet.ZERO_RTT or self.certain)
        self._fragment_count += len(fragments)
        if header is None or not is_good or self._fragment_count > _MOST_FRAGMENTS_EVER:
            raise MalformedError
        return fragments

    def _begin(self, header: LongHeader, datagram: bytes) -> bool:
        """Start with the first packet; returns whether its connection ID is as long as a client's has to be."""
        known_version = VERSIONS.get(header.version)
        is_good = SHORTEST_FIRST_ID <= len(header.destination) <= LONGEST_ID
        if known_version is None:
            is_long = len(datagram) >= LEAST_DATAGRAM and len(header.source) <= LONGEST_ID
            if not (is_good and is_long and header.fixed and header.version):
                raise MalformedError
            self.certain = True
            self.hello = HelloReader(malformed=True)
        self.version = known_version.name if known_version else OTHER_VERSION
        self._number, self.destination, self._keys = header.version, header.destination, {}
        return is_good

    def _read_initial(self, datagram: bytes, at: int, header: LongHeader) -> list[Fragment]:
        """Return what is in the CRYPTO frames of an Initial packet.

        Raises:
            MalformedError: It is protected by other keys, or was changed on its way.
            UnacceptableError: Servers drop it, or end the connection for it.
        """
        keys = self._keys.get(header.version)
        if keys is None:
            from txmux.wire.quic.initial import ClientKeys  # noqa: PLC0415 - only who needs it loads cryptography

            destination = self.destination or b""
            keys = self._keys[header.version] = ClientKeys(header.version, destination)
        frames, self._largest = keys.unprotect(datagram, at, header, self._largest)
        self.certain = True
        if not (header.fixed or header.has_token):
            raise UnacceptableError  # only a client with a token may clear the bit (RFC 9287, section 3.1)
        try:
            return read_frames(frames)
        except MalformedError:
            raise UnacceptableError from None

    def _put_together(self, fragments: list[Fragment]) -> None:
        """Add fragments to the stream, and read the hello as far as it is there.

        Raises:
            MalformedError: They contradict others, there are too many, or the hello is malformed: a server that is more lenient would read
                another one than the rules do.
        """
        if not fragments:
            return
        self._stream, self._pending = reassemble(self._stream, (*self._pending, *fragments))
        if len(self._pending) > MOST_FRAGMENTS or self.size > LONGEST_STREAM:
            raise MalformedError
        self.hello = copied(self.hello)
        self.hello.read_message(self._stream)
        if self.hello.malformed:
            raise MalformedError

    # After the decision.

    def continued(self, datagram: bytes, initials: Iterable[tuple[int, LongHeader]]) -> QuicOpening:
        """Return the state after the Initial packets of one more datagram, however long that is.

        Raises:
            MalformedError: They are protected by other keys.
            UnacceptableError: Servers drop them or end the connection, or they contradict earlier ones.
        """
        after = copied(self)
        fragments: list[Fragment] = []
        for at, header in initials:
            fragments += after._read_initial(datagram, at, header)
        try:
            after._put_together(fragments)
        except MalformedError:
            raise UnacceptableError from None
        return after

    @property
    def size(self) -> int:
        """How many bytes are kept of CRYPTO frames."""
        return len(self._stream) + sum(len(data) for _, data in self._pending)

    def emptied(self) -> QuicOpening:
        """Return one that takes the packets that this takes, as if nothing had come in their CRYPTO frames."""
        return QuicOpening(destination=self.destination, largest=self._largest)

    def hellos(self) -> Iterator[ClientHello]:
        """Yield the hello that has come in full, and further ones behind it, which servers may ask for.

        Raises:
            UnacceptableError: There is something else.
        """
        at = 0
        while len(self._stream) > at:
            reader = HelloReader(carrier="q") if at else self.hello
            if at:
                reader.read_message(self._stream[at:])
            if reader.malformed:
                raise UnacceptableError
            if reader.hello is None:
                return
            yield reader.hello
            at += _HEADER + int.from_bytes(self._stream[at + 1 : at + _HEADER], "big")

    def as_json(self) -> list[Any]:
        """Return what `continued` needs, as values of JSON."""
        pending = [(offset, b64encode(data).decode()) for offset, data in self._pending]
        name = (self.destination or b"").hex()
        return [name, self._largest, b64encode(self._stream).decode(), pending]

    @classmethod
    def from_json(cls, fields: Sequence[Any]) -> QuicOpening:
        """Make one from what `as_json` has returned."""
        name, largest, stream, pending = fields
        made = cls(destination=bytes.fromhex(name), largest=int(largest))
        fragments = [(0, b64decode(stream)), *((at, b64decode(data)) for at, data in pending)]
        made._put_together(fragments)
        return made


_REFUSED = QuicOpening(refused=True, datagrams=1)


def parse_opening(datagrams: tuple[bytes, ...], earlier: QuicOpening | None) -> QuicOpening:
    """Read the first datagrams of a QUIC client; for `Datagrams.parsed_all`.

    Versions 1 and 2 and draft-29 are read down to the ClientHello. Its fragments may come in any order, cut anywhere and in
    several packets. Of other versions only the header is read (RFC 8999). What servers drop counts as if it had not come.

    Args:
        datagrams: Those so far.
        earlier: The answer for fewer datagrams of the same flow.
    """
    if earlier is None and not may_open(datagrams[0]):
        return _REFUSED
    opening = QuicOpening() if earlier is None else copied(earlier)
    for datagram in datagrams[opening._datagrams :]:
        if opening.refused or opening.hello.hello or opening.hello.malformed:
            break
        before = copied(opening)
        try:
            opening.read(datagram)
            opening.drops_last = False
        except MalformedError:
            opening.refused = True
        except UnacceptableError:
            opening = before
            opening.drops_last = True
        opening._datagrams += 1
    return opening
