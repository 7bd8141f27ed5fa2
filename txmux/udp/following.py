"""A flow that follows its client to another address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from txmux.access.admission import Refused
from txmux.rules.model.networks import unmapped
from txmux.udp import ancillary
from txmux.udp.buffered_replies import BufferedReplies
from txmux.udp.flow_ids import may_move
from txmux.wire.proxyprotocol.header import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from txmux.access.per_source import Permit
    from txmux.tcp.configuration import Configuration
    from txmux.telemetry.record import ConnectionRecord
    from txmux.udp.migration import MigratingPath, Migration
    from txmux.udp.port import DatagramPort, Key

    class MigratingFlow(Protocol):
        """A flow, as what has it follow its client sees it."""

        configuration: Configuration
        record: ConnectionRecord
        permit: Permit | None

        @property
        def newest_configuration(self) -> Configuration:
            """The rules under which new flows begin."""

        @property
        def client(self) -> Address:
            """The client's address."""

        def move_to(self, port: DatagramPort, key: Key, client: Address, /) -> None:
            """Send answers to another address."""

        def take(self, data: memoryview, size: int, /, *, is_home: bool) -> bool:
            """Take datagrams of the client."""

        def learn(self, answer: bytes, /) -> None:
            """Learn connection IDs from a datagram of the server."""

        def from_server(self, data: memoryview, size: int, /) -> None:
            """Send datagrams of the server."""

        def lost(self, count: int, /) -> None:
            """Count datagrams that were dropped."""


class Following:
    """Tells a flow's path of what comes and goes, and moves the flow along it.

    Args:
        flow: The flow.
        seconds: Tells the time.

    Attributes:
        path: Where the flow is. `of` sets it.
    """

    __slots__ = ("_at", "_flow", "_kept", "_reserved", "_seconds", "path")

    path: MigratingPath[Following]

    def __init__(self, flow: MigratingFlow, seconds: Any) -> None:
        self._flow = flow
        self._seconds = seconds
        self._at: object = None
        self._reserved: tuple[object, Permit] | None = None  # where it may move to
        self._kept = BufferedReplies()

    @classmethod
    def of(
        cls,
        migration: Migration[Following],
        flow: MigratingFlow,
        home: tuple[DatagramPort, Key],
        first: bytes,
        seconds: Any,
    ) -> Following | None:
        """Make one for a flow; ``None`` if its protocol cannot move.

        Args:
            migration: That of the listener.
            flow: The flow.
            home: The port that its client has asked, and its key there.
            first: Its first datagram.
            seconds: Tells the time.
        """
        if not may_move(first):
            return None
        following = cls(flow, seconds)
        path = migration.begin(following, home, first)
        if path is None:
            return None
        following.path, following._at = path, path.home
        return following

    def as_json(self) -> dict[str, Any]:
        """Return what another process needs to follow the client further, as values of JSON."""

        def write(source: Any) -> list[Any]:
            port, (peer, local) = source
            return [port.place, peer, local.hex()]

        return self.path.as_json(write, self._seconds())

    @classmethod
    def restored(
        cls,
        migration: Migration[Following],
        flow: MigratingFlow,
        home: tuple[DatagramPort, Key],
        fields: Mapping[str, Any],
        seconds: Any,
        port_of: Callable[[str], DatagramPort | None],
    ) -> Following | None:
        """Make one for a flow of another process.

        Args:
            migration: As for `of`.
            flow: As for `of`.
            home: As for `of`.
            fields: What `fields` gave there.
            seconds: As for `of`.
            port_of: Gives the port of a place; ``None`` if there is none here.
        """

        def read(written: Any) -> Any:
            name, peer, local = written
            port = port_of(name)
            return None if port is None else (port, (tuple(peer), bytes.fromhex(local)))

        following = cls(flow, seconds)
        path = migration.restore(following, home, fields, read, seconds())
        if path is None:
            return None
        following.path, following._at = path, path.home
        return following

    def from_home(self, length: int, count: int) -> None:
        """Record datagrams of the client, from where it is."""
        self.path.from_home(length, count, self._seconds())
        self._give_kept()

    def from_elsewhere(self, port: DatagramPort, key: Key, data: memoryview, size: int) -> bool:
        """Take datagrams that belong to the flow, and are not known to do so at their address.

        Returns:
            Whether they do: the address may be one that is not let in.
        """
        path, source, client = self.path, (port, key), _address(key)
        if source == path.home:  # which is another flow's, too
            return self._flow.take(data, size, is_home=True)
        is_new = not path.knows(source)
        if is_new and not (self._may_be_at(client) and self._reserve(source, client)):
            return False
        count, now = ancillary.datagrams_in(len(data), size), self._seconds()
        is_near = client.host == self._flow.client.host
        if path.from_elsewhere(source, len(data), count, now, is_near=is_near):
            self._follow()
            self._give_kept()
            self._flow.take(data, size, is_home=False)
        else:
            if is_new:
                self._give_back()
            self._flow.lost(count)
        return True

    def from_server(self, data: memoryview, size: int) -> bool:
        """Learn from what the server says, and tell whether it goes out."""
        path, length = self.path, len(data)
        if length and path.may_tell(data[0]):
            first = bytes(data[:size] if 0 < size < length else data)
            path.from_server(first)
            self._flow.learn(first)
        if not path.watches:
            return True
        goes = path.to_client(length, self._seconds())
        self._follow()
        if goes:
            self._give_kept()
        elif lost := self._kept.keep(data, size):
            self._flow.lost(lost)
        return goes

    def _give_kept(self) -> None:
        """Send what has waited, once the address has proved itself."""
        if self._kept and not self.path.watches:
            for datagram in self._kept.take():
                self._flow.from_server(memoryview(datagram), 0)

    def _may_be_at(self, client: Address) -> bool:
        """Return whether a client with this address is let in, and served by the route; a proxy in front is none."""
        configuration, name = self._flow.configuration, self._flow.record.route
        senders = configuration.settings.accept_proxy_from
        if senders is not None and client.host in senders:
            return False
        routes = configuration.top.detector.routes
        route = next((route for route in routes if route.name == name), None)
        is_served = route is None or route.clients.serves(client.host)
        now = self._flow.newest_configuration
        return is_served and configuration.admission.serves(client) and now.admission.serves(client)

    def _reserve(self, source: object, client: Address) -> bool:
        """Count the flow for another source, too, as it may move there; tell whether that may have one more."""
        self._give_back()
        flow = self._flow
        try:
            permit = flow.newest_configuration.admission.move(flow.permit, flow.client, client)
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
        """Count the flow for the source where it is now, and for no other one."""
        flow, before = self._flow, self._flow.permit
        if self._reserved is not None and self._reserved[0] == home:
            permit: Permit | None = self._reserved[1]
            self._reserved = None
        else:
            self._give_back()
            admission = flow.newest_configuration.admission
            permit = admission.move(before, flow.client, client, is_known=True)
        if permit is not before:
            flow.permit = permit
            if before is not None:
                before.release()

    def end(self) -> None:
        """Forget the flow."""
        if lost := len(self._kept.take()):
            self._flow.lost(lost)
        self._give_back()
        self.path.end()

    def _follow(self) -> None:
        if self._at is not self.path.home:
            home: Any = self.path.home
            self._at = home
            port, key = home
            client = _address(key)
            self._count_at(home, client)
            self._flow.move_to(port, key, client)
            self._flow.record.facts["moved_to"] = str(client)


def _address(key: Key) -> Address:
    return Address(unmapped(ip_address(key[0][0])), key[0][1])
