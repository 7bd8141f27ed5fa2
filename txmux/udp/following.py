"""Moves a flow when its client's address changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from txmux.access.admission import Refused
from txmux.access.per_source import Permit
from txmux.transport import unmapped
from txmux.udp import ancillary
from txmux.wire.codec import Origin
from txmux.wire.proxyprotocol.header import Address

if TYPE_CHECKING:
    from txmux.client.configuration import Configuration
    from txmux.telemetry.record import ConnectionRecord
    from txmux.udp.live_flows import LiveFlows
    from txmux.udp.migration import MigratingPath
    from txmux.udp.port import DatagramPort, FlowKey
    from txmux.udp.server_socket import VisitSocket

    class MigratingFlow(Protocol):
        """A flow, as `Following` sees it."""

        configuration: Configuration
        record: ConnectionRecord
        permit: Permit | None

        @property
        def client(self) -> Address: ...
        def move_to(
            self, port: DatagramPort, key: FlowKey, client: Address, /, *, is_noticed: bool
        ) -> None: ...
        def take(
            self,
            data: memoryview,
            size: int,
            /,
            *,
            is_home: bool,
            through: VisitSocket | None = None,
        ) -> bool: ...
        def learn(self, answer: bytes, /) -> None: ...
        def visit(
            self, client: Address, answered: Callable[[memoryview], None], /
        ) -> VisitSocket | None: ...
        def move_in(
            self, visit: VisitSocket, answered: Callable[[memoryview], None], /
        ) -> VisitSocket | None: ...
        def to_visitor(self, port: DatagramPort, key: FlowKey, data: memoryview, /) -> None: ...
        def count_lost(self, count: int, /) -> None: ...


_STILL_TOLD = 1.0  # seconds in which a client that is there says that it has got an answer


class Following:
    """Reports a flow's datagrams to its path, and moves the flow along it."""

    __slots__ = ("_at", "_flow", "_left", "_live", "_reserved", "_still_told", "_visit", "path")

    path: MigratingPath[Following]

    def __init__(self, live: LiveFlows, flow: MigratingFlow) -> None:
        self._live = live
        self._flow = flow
        self._at: object = None
        self._reserved: tuple[object, Permit] | None = None  # for an address that it may move to
        # Of a visitor that has to prove itself.
        self._visit: tuple[object, VisitSocket] | None = None
        self._left: tuple[object, VisitSocket] | None = None
        """The address that the flow has left, with its socket: who forges can have it leave, but not the server, which still sends there."""

        self._still_told: tuple[object, float | None] | None = None
        """The port that the flow has left without the server's notice, and until when that gets the answers, too, counted from the first one."""

    @classmethod
    def for_flow(
        cls, live: LiveFlows, flow: MigratingFlow, home: tuple[DatagramPort, FlowKey], first: bytes
    ) -> Following | None:
        """Make one for a flow, by its port and key and its first datagram; ``None`` if its protocol cannot move."""
        following = cls(live, flow)
        return following._along(live.migration.begin_path(following, home, first))

    @classmethod
    def restored(
        cls,
        live: LiveFlows,
        flow: MigratingFlow,
        home: tuple[DatagramPort, FlowKey],
        fields: Mapping[str, Any],
        port_of: Callable[[str], DatagramPort | None],
    ) -> Following | None:
        """Make one for a flow of another process; `port_of` returns the port of a listen address, if there is one here."""

        def read(written: Any) -> Any:
            name, peer, local = written
            port = port_of(name)
            return None if port is None else (port, (tuple(peer), bytes.fromhex(local)))

        following = cls(live, flow)
        its = Origin(live.seconds(), find_place=read)
        return following._along(live.migration.restore(following, home, fields, its))

    def _along(self, path: MigratingPath[Following] | None) -> Following | None:
        if path is None:
            return None
        self.path, self._at = path, path.home
        return self

    def as_json(self) -> dict[str, Any]:
        def write(source: Any) -> list[Any]:
            port, (peer, local) = source
            return [port.place, peer, local.hex()]

        return self.path.as_json(Origin(self._live.seconds(), name_place=write))

    def from_home(self) -> None:
        self.path.from_home(self._live.seconds())

    def receive_at_new_address(
        self, port: DatagramPort, key: FlowKey, data: memoryview, size: int
    ) -> bool:
        """Take datagrams that may belong to the flow; returns false if their address is not admitted."""
        path, source, client = self.path, (port, key), _address(key)
        if source == path.home:  # which several flows share
            return self._flow.take(data, size, is_home=True)
        is_new = not path.knows(source)
        if is_new and not (self._may_be_at(client) and self._reserve(source, client)):
            return False
        count, now = ancillary.datagrams_in(len(data), size), self._live.seconds()
        is_near = client.host == self._flow.client.host
        if path.receive_at_new_address(source, len(data), now, is_near=is_near):
            self._follow()
            if not path.must_be_noticed(now):
                self._flow.take(data, size, is_home=False)
                return True
            visit = self._visit_of(source, client)
            if visit is not None:
                self._flow.take(data, size, is_home=False, through=visit)
                return True
        elif is_new:
            self._give_back()
        self._flow.count_lost(count)
        return True

    def _visit_of(self, source: object, client: Address) -> VisitSocket | None:
        """Return the socket by which the server notices a visitor; ``None`` if there cannot be one."""
        if self._visit is None or self._visit[0] != source:
            self._end_visit()
            made = self._flow.visit(client, self._answered)
            self._visit = None if made is None else (source, made)
        return None if self._visit is None else self._visit[1]

    def _answered(self, data: memoryview) -> None:
        """Pass on what the server has sent to a visitor."""
        visit = self._visit
        if visit is None:
            return
        at: Any = visit[0]
        port, key = at
        if data and self.path.may_tell(data[0]):
            self._learn(data, 0)
        if self.path.to_visitor(len(data)):
            self._flow.to_visitor(port, key, data)
        else:
            self._flow.count_lost(1)

    def _answered_where_it_was(self, data: memoryview) -> None:
        """Pass on what the server has sent to the address that the flow has left."""
        if self._left is not None:
            at: Any = self._left[0]
            port, key = at
            self._learn(data, 0)
            self._flow.to_visitor(port, key, data)

    def _end_visit(self) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            visit[1].close()

    def _end_left(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left[1].close()

    def from_server(self, data: memoryview, size: int) -> None:
        """Learn from an answer of the server to the address where the flow is."""
        path = self.path
        if data and path.may_tell(data[0]):
            self._learn(data, size)
        if path.watches:
            path.settle(self._live.seconds())
            self._follow()
        if self._still_told is not None:
            self._tell_where_it_was(data, size)

    def _tell_where_it_was(self, data: memoryview, size: int) -> None:
        """Answer a client that has not moved, so that it speaks, and the flow returns."""
        if self._still_told is None:
            return
        at: Any
        at, until = self._still_told
        now = self._live.seconds()
        if until is None:
            self._still_told = at, now + _STILL_TOLD
        elif now > until:
            self._still_told = None
            return
        port, key = at
        port.send(key, data, size)

    def _learn(self, data: memoryview, size: int) -> None:
        first = ancillary.first(data, size)
        self.path.from_server(first)
        self._flow.learn(first)

    def _may_be_at(self, client: Address) -> bool:
        """Return whether a client with this address is admitted, and served by the route; a trusted proxy is not."""
        configuration, name = self._flow.configuration, self._flow.record.route
        senders = configuration.settings.accept_proxy_from
        if senders is not None and client.host in senders:
            return False
        route = configuration.top.detector.route_called(name or "")
        is_served = route is None or route.clients.serves(client.host)
        now = self._live.listener.configuration
        return is_served and configuration.admission.serves(client) and now.admission.serves(client)

    def _reserve(self, source: object, client: Address) -> bool:
        """Count the flow for another source too, as it may move there; returns whether the limits allow it."""
        self._give_back()
        flow = self._flow
        try:
            permit = self._live.listener.configuration.admission.move(
                flow.permit, flow.client, client
            )
        except Refused:
            return False
        if permit is not None and permit is not flow.permit:
            self._reserved = source, permit
        return True

    def _give_back(self) -> None:
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved[1].release()

    def _count_at(self, home: object, client: Address) -> None:
        """Count the flow for its current source only."""
        flow, before = self._flow, self._flow.permit
        if self._reserved is not None and self._reserved[0] == home:
            permit: Permit | None = self._reserved[1]
            self._reserved = None
        else:
            self._give_back()
            admission = self._live.listener.configuration.admission
            permit = admission.move(before, flow.client, client, is_known=True)
        if permit is not before:
            flow.permit = permit
            if before is not None:
                before.release()

    def end(self) -> None:
        path = self.path
        visitor: Any = path.visitor
        # The client has left the old address, as far as is known; the flow would have moved soon.
        if path.must_be_noticed(self._live.seconds()) and visitor.is_proved:
            self._flow.record.note(moved_to=str(_address(visitor.address[1])))
        self._end_visit()
        self._end_left()
        self._give_back()
        path.end()

    def _follow(self) -> None:
        if self._at is not self.path.home:
            home: Any = self.path.home
            before, self._at = self._at, home
            port, key = home
            client = _address(key)
            self._count_at(home, client)
            is_noticed = self._change_socket(before, home)
            is_back = before not in self.path.before
            self._still_told = None if is_noticed or is_back else (before, None)
            self._flow.move_to(port, key, client, is_noticed=is_noticed)
            self._flow.record.note(moved_to=str(client))

    def _change_socket(self, before: object, home: object) -> bool:
        """Use the socket by which the server has noticed an address; return whether there is one."""
        visit, left = self._visit, self._left
        if left is not None and left[0] == home:  # it was wrong to leave
            self._left = None
            wrong = self._flow.move_in(left[1], self._answered_where_it_was)
            if wrong is not None:
                wrong.close()
        elif visit is not None and visit[0] == home:
            self._visit = None
            self._end_left()
            kept = self._flow.move_in(visit[1], self._answered_where_it_was)
            self._left = None if kept is None else (before, kept)
            return True
        else:
            left = None
        self._end_visit()
        return left is not None


def _address(key: FlowKey) -> Address:
    return Address(unmapped(ip_address(key[0][0])), key[0][1])
