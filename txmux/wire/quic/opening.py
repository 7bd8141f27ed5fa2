"""The first datagrams of a QUIC client, read as far as they have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.wire.client_hello import HelloReader
from txmux.wire.cursor import MalformedError, copied
from txmux.wire.quic.frames import read_frames
from txmux.wire.quic.header import (
    LEAST_TO_NEGOTIATE,
    LONG_HEADER,
    LONGEST_ID,
    SHORTEST_FIRST_ID,
    VERSIONS,
    LongHeader,
    Packet,
    may_open,
    read_long_header,
)
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, Fragment, reassemble

if TYPE_CHECKING:
    from txmux.wire.quic.initial import ClientKeys

OTHER_VERSION = "other"
"""The name of all versions whose Initial packets cannot be read."""

_MOST_PACKETS = 16
_MOST_FRAGMENTS_EVER = 64  # browsers cut the hello differently each time they send it again


@attrs.define(slots=False)
class QuicOpening:
    """The state of an opening connection; frozen once `parse_opening` has returned it.

    Attributes:
        refused: Whether this is not the opening of a QUIC connection, whatever follows.
        certain: Whether it is one: a packet was found to be made by a client, or the version is another.
        version: The name of the version, once it is known.
        hello: The ClientHello, as far as it has come.
    """

    refused: bool = False
    certain: bool = False
    version: str | None = None
    hello: HelloReader = attrs.field(factory=lambda: HelloReader(carrier="q"))

    _datagrams: int = 0
    """How many datagrams have been read."""
    _packets: int = 0
    """How many packets of them."""
    _number: int = 0
    """The version, as a number, …"""
    _destination: bytes | None = None
    """… and the connection ID that the first packet is sent to; both are the same in all that belong to it."""
    _keys: ClientKeys | None = None
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
        """
        fragments: list[Fragment] = []
        try:
            self._read_packets(datagram, fragments)
        except MalformedError:
            # After a valid packet, what cannot be read is ignored, as a server does.
            if not self.certain:
                raise
        if fragments:
            self._fragment_count += len(fragments)
            if self._fragment_count > _MOST_FRAGMENTS_EVER:
                raise MalformedError
            self._stream, self._pending = reassemble(self._stream, (*self._pending, *fragments))
            if len(self._pending) > MOST_FRAGMENTS:
                raise MalformedError
            if sum(len(data) for _, data in self._pending) + len(self._stream) > LONGEST_STREAM:
                raise MalformedError
            self.hello = copied(self.hello)
            self.hello.read_message(self._stream)

    def _read_packets(self, datagram: bytes, fragments: list[Fragment]) -> None:
        at = 0
        # The last packet may be followed by padding, which has no header.
        while at < len(datagram) and (at == 0 or datagram[at] & LONG_HEADER):
            header = read_long_header(datagram, at)
            if self._destination is None:
                self._begin(header, datagram)
                if header.kind is None:
                    return
            elif (header.version, header.destination) != (self._number, self._destination):
                raise MalformedError
            self._packets += 1
            if self._packets > _MOST_PACKETS:
                raise _TooManyError
            if header.kind is Packet.INITIAL:
                fragments += self._read_initial(datagram, at, header)
            elif header.kind is Packet.RETRY or not (
                header.kind is Packet.ZERO_RTT or self.certain
            ):
                raise MalformedError
            at = header.end

    def _begin(self, header: LongHeader, datagram: bytes) -> None:
        if not SHORTEST_FIRST_ID <= len(header.destination) <= LONGEST_ID or not header.version:
            raise MalformedError
        known_version = VERSIONS.get(header.version)
        if known_version is None:
            too_short = len(datagram) < LEAST_TO_NEGOTIATE
            if too_short or not header.fixed or len(header.source) > LONGEST_ID:
                raise MalformedError
            self.certain = True
            self.hello = HelloReader(malformed=True)
        self.version = known_version.name if known_version else OTHER_VERSION
        self._number, self._destination = header.version, header.destination

    def _read_initial(self, datagram: bytes, at: int, header: LongHeader) -> list[Fragment]:
        if not (header.fixed or header.has_token):
            raise MalformedError  # only a client with a token may clear the bit (RFC 9287, section 3.1)
        if self._keys is None:
            from txmux.wire.quic.initial import ClientKeys  # noqa: PLC0415 - only who needs it loads cryptography

            self._keys = ClientKeys(header.version, header.destination)
        frames = read_frames(self._keys.unprotect(datagram, at, header))
        self.certain = True
        return frames


_REFUSED = QuicOpening(refused=True, datagrams=1)


class _TooManyError(Exception):
    """There are more packets than a client sends."""


def parse_opening(datagrams: tuple[bytes, ...], earlier: QuicOpening | None) -> QuicOpening:
    """Read the first datagrams of a QUIC client; for `Datagrams.parsed_all`.

    Versions 1 and 2 and draft-29 are read down to the ClientHello. Its fragments may come in any order, cut anywhere and in
    several packets. Of other versions only the header is read (RFC 8999).

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
        opening._datagrams += 1
        try:
            opening.read(datagram)
        except (MalformedError, _TooManyError):
            opening.refused = True
    return opening
