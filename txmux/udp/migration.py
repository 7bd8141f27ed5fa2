"""Connection migration: clients whose address changes, as behind a NAT that forgets; without sockets or a clock.

A datagram from an unknown address that has the ID of a flow belongs to that flow; see `txmux.udp.connection_ids`.

These rules decide where its answers go:

- an ID is at least 8 bytes long, is only learnt from an answer to what the client has said first, and moves nothing if two
  flows have it;
- answers go to the old address until that was silent for a while, and again as soon as it sends something;
- there are few moves a minute, and none for a minute after one that was wrong;
- another port of the same IP address moves at once, since its host gets the answers already. The server does not notice. The old port gets those of the
  first second, too: a client that is still there says so, and the flow returns;
- who forges one datagram of another IP address forges many, and txmux cannot tell. The server can: it has the keys. So it gets the datagrams of
  such an address by a further socket, as if txmux were not there, and what it sends to that goes there: it drops what is forged, and validates the path
  (RFC 9000, sections 8.2 and 9.3). That begins with the first one, since a client may have one acknowledgement to send there, and no more; if the old address speaks
  after it, others have to wait until that is silent. Until something has come back after such an answer, at most three times the bytes that came are sent there. The flow
  moves when something has, and the old address is silent. All else goes to that, also then: a server answers some of what is forged, such as a packet of
  another version, and still sends to where it knows its client.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

from txmux.classes import define
from txmux.udp.connection_ids import QUIC, WIREGUARD, id_asked, may_have_id, protocol_of, server_id
from txmux.wire import codec
from txmux.wire.codec import Origin, sent

F = TypeVar("F")

SILENCE = 0.25
"""Seconds for which the old address has to be silent: longer than clients delay an acknowledgement."""
MOST_MOVES = 4
MINUTE = 60.0

_LAST = slice(-MOST_MOVES, None)
_MOST_IDS = 4
_UNPROVEN_FACTOR = 3


class Migration(Generic[F]):
    """The flows of a listener that can move.

    Attributes:
        paths: By the IDs that their servers have chosen; ``None`` if two flows have one.
    """

    def __init__(self) -> None:
        self.paths: dict[bytes, MigratingPath[F] | None] = {}
        self.lengths: dict[int, int] = {}  # of connection IDs, with the number of each

    def begin_path(self, flow: F, home: Hashable, first: bytes) -> MigratingPath[F] | None:
        """Add a new flow, with the address that it began from; returns ``None`` if its protocol knows no IDs."""
        protocol = protocol_of(first)
        return None if protocol is None else MigratingPath(self, flow, home, *protocol)

    def restore(
        self, flow: F, home: Hashable, fields: Mapping[str, Any], its: Origin
    ) -> MigratingPath[F] | None:
        """Add a flow of another process."""
        protocol = fields.get("kind", "").encode()
        if protocol not in {QUIC, WIREGUARD}:
            return None
        path = MigratingPath(self, flow, home, protocol, b"")
        path._restore(fields, its)
        return path

    def find(self, datagram: bytes) -> MigratingPath[F] | None:
        """Return the flow that a datagram of an unknown address belongs to, if any."""
        if not datagram:
            return None
        name = id_asked(datagram)
        if name is not None:
            return self.paths.get(name)
        for length in self.lengths:
            path = self.paths.get(QUIC + datagram[1 : 1 + length])
            if path is not None:
                return path
        return None

    def _add(self, name: bytes, path: MigratingPath[F]) -> bool:
        """Record an ID; return whether it is new."""
        if name in self.paths:
            if self.paths[name] is not path:
                self.paths[name] = None
            return False
        self.paths[name] = path
        if name[:1] == QUIC:
            length = len(name) - 1
            self.lengths[length] = self.lengths.get(length, 0) + 1
        return True

    def _remove(self, name: bytes) -> None:
        del self.paths[name]
        if name[:1] == QUIC:
            length = len(name) - 1
            self.lengths[length] -= 1
            if not self.lengths[length]:
                del self.lengths[length]


@define(eq=False)
class Visitor:
    """An address that a flow may move to.

    Attributes:
        since: When the old address last sent a datagram; if that is not known, this one for the first time.
        is_near: Whether it has the IP address of the old one, so that it need not prove itself.
        is_proved: Whether it need not, or has.
        is_alone: Whether the old address has sent nothing since this one came.
        received: Bytes that have come from it.
        sent: Bytes that have gone to it.
    """

    address: Hashable = codec.sent(codec.PLACE)
    since: float = codec.sent(codec.AGE, name="silent")
    is_near: bool = codec.sent(codec.FLAG)
    is_proved: bool = codec.sent(codec.FLAG)
    received: int = codec.sent(codec.WHOLE, default=0)
    sent: int = codec.sent(codec.WHOLE, default=0)
    is_alone: bool = codec.sent(codec.FLAG, default=True)


@define(eq=False, weakref_slot=False)
class MigratingPath(Generic[F]):
    """The addresses where a flow is, was, and may move to. `Migration.begin_path` makes it.

    Attributes:
        last_received_at: When the address where they go last sent a datagram.
        visitor: An address that it may move to.
        watches: Whether it has to see all datagrams, since the flow may move.
    """

    _migration: Migration[F]
    flow: F
    home: Hashable
    _protocol: bytes = sent(codec.converted(str.encode, bytes.decode), name="kind")
    _own_id: bytes = sent(codec.HEX)
    # Infinite if it is not known.
    last_received_at: float = sent(
        codec.optional(codec.AGE, math.inf), name="quiet", default=math.inf
    )
    watches: bool = False
    _ids: tuple[bytes, ...] = ()
    # Where answers went, the last one at the end.
    _before: tuple[Hashable, ...] = sent(codec.each(codec.PLACE, some=_LAST), default=())
    # May be the next home.
    visitor: Visitor | None = sent(codec.optional(codec.part(Visitor)), default=None)
    _moves: tuple[float, ...] = sent(codec.each(codec.AGE, some=_LAST), default=())
    _rests_until: float = sent(codec.LEFT, name="rests", default=-math.inf)

    @property
    def before(self) -> tuple[Hashable, ...]:
        return self._before

    def knows(self, source: Hashable) -> bool:
        """Return whether an address is one that the flow was at, or may move to."""
        visitor = self.visitor
        return source in self._before or (visitor is not None and visitor.address == source)

    def may_tell(self, first_byte: int) -> bool:
        return may_have_id(self._protocol, first_byte)

    def from_server(self, datagram: bytes) -> None:
        name = server_id(self._protocol, datagram, self._own_id)
        if name:
            self._learn(name)

    def _learn(self, name: bytes) -> None:
        if name not in self._ids and self._migration._add(name, self):
            self._ids = (*self._ids, name)
            if len(self._ids) > _MOST_IDS:
                self._migration._remove(self._ids[0])
                self._ids = self._ids[1:]

    def from_home(self, now: float) -> None:
        """Record datagrams from the address where answers go."""
        self.last_received_at = now
        if self.visitor is not None:
            self.visitor.since = now  # the old address is still in use
            self.visitor.is_alone = False

    def receive_at_new_address(
        self, source: Hashable, size: int, now: float, *, is_near: bool = False
    ) -> bool:
        """Record datagrams of another address that `Migration.find` has found to belong here; return whether the server gets them."""
        if source in self._before:
            self._go_back(source, now)
            return True
        visitor = self.visitor
        if visitor is None or visitor.address != source:
            moves = self._moves
            has_moved_enough = len(moves) == MOST_MOVES and now - moves[0] < MINUTE
            if has_moved_enough or now < self._rests_until:
                return False
            since = min(self.last_received_at, now)
            visitor = self.visitor = Visitor(source, since, is_near, is_near)
            self.watches = True
            if not is_near:
                self._moves = (*moves, now)[-MOST_MOVES:]
        visitor.received += size
        if visitor.sent:
            visitor.is_proved = True
        self._move_if_silent(now)
        return True

    def must_be_noticed(self, now: float) -> bool:
        """Return whether the server has to notice the visitor's address, to find out whether the client is there."""
        visitor = self.visitor
        if visitor is None or visitor.is_near:
            return False
        return visitor.is_alone or now - visitor.since >= SILENCE

    def to_visitor(self, size: int) -> bool:
        """Return whether what the server has sent to an address that it has noticed may go there."""
        visitor = self.visitor
        if visitor is None:
            return False
        if not visitor.is_proved and visitor.sent + size > _UNPROVEN_FACTOR * visitor.received:
            return False
        visitor.sent += size
        return True

    # To another process, and from one.

    def as_json(self, its: Origin) -> dict[str, Any]:
        """Return what another process needs to guard the flow as this one does, as values of JSON."""
        paths = self._migration.paths
        return {
            **codec.write(self, its),
            "ids": [name[1:].hex() for name in self._ids],
            "shared": [name[1:].hex() for name in self._ids if paths.get(name) is None],
        }

    def _restore(self, fields: Mapping[str, Any], its: Origin) -> None:
        codec.update(self, fields, its)
        for text in fields.get("ids", ())[-_MOST_IDS:]:
            self._learn(self._protocol + bytes.fromhex(text))
        for text in fields.get("shared", ()):
            name = self._protocol + bytes.fromhex(text)
            if name in self._ids:
                self._migration.paths[name] = None
        if self.visitor is not None and self.visitor.address is None:  # it means nothing here
            self.visitor = None
        self.watches = self.visitor is not None

    def end(self) -> None:
        for name in self._ids:
            self._migration._remove(name)
        self._ids = ()

    def settle(self, now: float) -> None:
        """Move to another port that has spoken; the server has sent something, but not to another IP address, which moves as it speaks."""
        if self.visitor is not None and self.visitor.is_near:
            self._move_if_silent(now)

    def _move_if_silent(self, now: float) -> None:
        """Move to the visitor, if it has proved itself, and the old address has been silent."""
        visitor = self.visitor
        if visitor is None or not visitor.is_proved or now - visitor.since < SILENCE:
            return
        self._before = (*self._before, self.home)[-MOST_MOVES:]
        self.home, self.last_received_at = visitor.address, now
        # One of another IP address has been counted when it came, for whatever the server sends it, and counts from now on.
        before = self._moves if visitor.is_near else self._moves[:-1]
        self._moves = (*before, now)[-MOST_MOVES:]
        self.visitor, self.watches = None, False

    def _go_back(self, source: Hashable, now: float) -> None:
        """Return to an address that is used again: the move was wrong."""
        self._before = self._before[: self._before.index(source)]
        self.home, self.last_received_at = source, now
        self.visitor, self.watches = None, False
        self._rests_until = now + MINUTE
