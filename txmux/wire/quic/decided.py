"""Holds a QUIC connection to the ClientHello that its route was decided by.

A server may drop what txmux has decided by, forget a connection and begin another one with the same ID, answer by a Retry, or ask for
another hello (HelloRetryRequest). In each case it serves the name of a hello that comes after the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import attrs

from txmux.classes import define
from txmux.interfaces import Datagrams
from txmux.wire.client_hello import ClientHello
from txmux.wire.codec import FLAG, converted, optional, sent
from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import VERSIONS, LongHeader, Packet, UnacceptableError, long_headers
from txmux.wire.quic.opening import MOST_PACKETS, QuicOpening, parse_opening
from txmux.wire.reassembly import LONGEST_STREAM

_MOST_OPENINGS = 16
_MOST_BYTES = 2 * LONGEST_STREAM  # kept of all of them


_HELLO = converted(lambda row: ClientHello(row[0], tuple(row[1]), *row[2:]), attrs.astuple)
_OPENINGS = converted(
    lambda rows: {
        opening.destination or b"": opening
        for opening in map(QuicOpening.from_json, rows[:_MOST_OPENINGS])
    },
    lambda openings: [opening.as_json() for opening in openings.values()],
)


@define(eq=False)
class DecidedHello:
    """Judges the datagrams of a client after the decision.

    No byte of a CRYPTO stream gets to the server in two versions, and no hello that asks for something else than the one that decided: not
    in the same connection, after a HelloRetryRequest (RFC 8446, section 4.1.2) or a Retry (RFC 9000, section 17.2.5.3), nor in another one.

    Attributes:
        hello: The one that decided; ``None`` if it had not come in full.
        is_over: Whether the handshake is, so that no further CRYPTO frames come in Initial packets (RFC 9001, section 4.9.1), but late acknowledgements.
    """

    hello: ClientHello | None = sent(optional(_HELLO), default=None)
    is_over: bool = sent(FLAG, default=False)
    _openings: dict[bytes, QuicOpening] = sent(_OPENINGS, factory=dict)
    """By the connection IDs that keys were derived from. None is ever forgotten: its bytes might come again, changed."""

    @classmethod
    def from_opening(cls, opening: QuicOpening) -> DecidedHello:
        """Make one for a flow whose first datagrams have been read."""
        made = cls(opening.hello.hello)
        if not (opening.refused or opening.destination is None or opening.hello.malformed):
            made._openings[opening.destination] = opening
        return made

    def end(self) -> None:
        """Forget the streams: the client speaks with the keys that follow the handshake."""
        if not self.is_over:
            self.is_over = True
            self._openings = {name: one.emptied() for name, one in self._openings.items()}

    def admits(
        self, datagram: bytes, versions: Collection[bytes], decides: Callable[[Datagrams], bool]
    ) -> bool:
        """Return whether the server gets a datagram with a long header.

        Args:
            datagram: It is of the same flow, and came after the decision.
            versions: The unknown versions, as on the wire, in which the connection began, or in which its server answers.
            decides: Returns whether a hello that has come in full only now leads where the flow was led without it.
        """
        initials = _initials(datagram, versions)
        if not initials:
            return initials is not None
        if len(initials) > MOST_PACKETS:
            return False
        for name, opening in self._candidates(initials[0][1].destination):
            try:
                after = opening.continued(datagram, initials)
                is_same = (
                    not after.size
                    if self.is_over
                    else all(self._fits(one, after, datagram, decides) for one in after.hellos())
                )
            except MalformedError:
                continue  # protected by the keys of another one
            except UnacceptableError:
                return False
            others = sum(one.size for key, one in self._openings.items() if key != name)
            is_same = is_same and others + after.size <= _MOST_BYTES
            if is_same:
                self._openings[name] = after
            return is_same
        return False

    def _candidates(self, destination: bytes) -> Iterator[tuple[bytes, QuicOpening]]:
        # Most packets are sent to the ID of their keys; those to the ID that a server has chosen are protected by earlier keys.
        known = self._openings.get(destination)
        if known is not None:
            yield destination, known
        yield from [item for item in self._openings.items() if item[0] != destination]
        if known is None and len(self._openings) < _MOST_OPENINGS:
            yield destination, QuicOpening(destination=destination)

    def _fits(
        self,
        hello: ClientHello,
        opening: QuicOpening,
        datagram: bytes,
        decides: Callable[[Datagrams], bool],
    ) -> bool:
        if self.hello is None:
            peeked = Datagrams((datagram,))
            peeked.preset(parse_opening, opening)
            if decides(peeked):
                self.hello = hello
        return hello == self.hello


def _initials(datagram: bytes, versions: Collection[bytes]) -> list[tuple[int, LongHeader]] | None:
    """Return the Initial packets of a datagram; ``None`` if it has packets of another version, or of several connections."""
    initials: list[tuple[int, LongHeader]] = []
    destination = None
    for at, header in long_headers(datagram):
        if at and header.destination != destination:
            # Random bytes behind the last packet look like one of an unknown version.
            return initials if header.kind is None else None
        destination = header.destination
        if header.version not in VERSIONS and datagram[at + 1 : at + 5] not in versions:
            return None
        if header.kind is Packet.INITIAL:
            initials.append((at, header))
    return initials
