"""The flows of a listener: who may begin one, and when each of them ends."""

from __future__ import annotations

import functools
import math
import resource
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import attrs

from txmux.access.admission import Refused
from txmux.errors import MuxError
from txmux.net.addresses import address_in
from txmux.net.sockets.poller import Poller, is_available
from txmux.rules.model.networks import unmapped
from txmux.tcp.listener import new_id
from txmux.telemetry.record import ConnectionRecord
from txmux.udp import ancillary
from txmux.udp.connection_ids import ConnectionIds
from txmux.udp.flow import Flow
from txmux.udp.following import Following
from txmux.udp.migration import Migration
from txmux.udp.moving import client_of
from txmux.udp.port import DatagramPort
from txmux.udp.refusals import Refusals
from txmux.udp.table import FlowTable
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.fields import told_by
from txmux.wire.proxyprotocol.header import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall

    from txmux.access.per_source import Permit
    from txmux.rules.model import IPAddress
    from txmux.tcp.configuration import Configuration
    from txmux.tcp.listener import MuxFactory
    from txmux.telemetry.reasons import LimitName
    from txmux.udp.port import Key
    from txmux.udp.table import TimeoutQueue
    from txmux.wire.proxyprotocol.header import Header

__all__ = ["Flows", "flows_of", "listen"]

_PART = 0.7  # of the descriptors that there may be
_LIMITS: Mapping[LimitName | None, LimitName] = {
    "max_connections_per_source": "max_flows_per_source"
}
"""Limits that are called otherwise for flows."""


def listen(factory: MuxFactory, bound: socket.socket) -> DatagramPort:
    """Serve the datagrams of a socket, of which a duplicate is taken.

    Raises:
        MuxError: This system has no epoll.
    """
    flows = flows_of(factory)
    port = DatagramPort(flows.poller, bound.dup(), flows)
    port.startListening()
    return port


def flows_of(factory: MuxFactory) -> Flows:
    """Return the flows of a listener.

    Raises:
        MuxError: This system has no epoll.
    """
    if not isinstance(factory.flows, Flows):
        factory.flows = Flows(factory)
    return factory.flows


def _most_by_descriptors() -> float:
    """Return the most flows, where the rules do not tell."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else max(1, int(_PART * limit))


@functools.lru_cache(maxsize=1024)
def _host_of(text: str) -> tuple[IPAddress, str]:
    """Return a client's address, and how it is written before a port."""
    host = unmapped(ip_address(text))
    return host, f"[{host}]" if host.version == 6 else str(host)


def _ids_of(header: Header | None, data: memoryview, size: int) -> ConnectionIds | None:
    """Return the connection IDs of a new flow; one that a proxy in front tells of is known by the proxy's address alone."""
    return None if header else ConnectionIds.of(bytes(ancillary.split(data, size)[0]))


class Flows:
    """The flows of one listener, by whichever of its ports they have come.

    Args:
        factory: The listener.

    Raises:
        MuxError: This system has no epoll.

    Attributes:
        table: All of them, by when they end.
        runtime: What they work with.
        poller: Watches their sockets.
        seconds: Tells the time.
        buffer: Takes what servers say.
    """

    def __init__(self, factory: MuxFactory) -> None:
        if not is_available():
            raise MuxError("endpoints of type udp need Linux; remove them")
        self._factory = factory
        self.runtime = runtime = factory.runtime
        self.poller = Poller.for_reactor(runtime.reactor)
        self.seconds = runtime.clock.seconds
        self.table: FlowTable[Flow] = FlowTable()
        self.buffer = memoryview(bytearray(ancillary.LARGEST))
        self._migration: Migration[Following] = Migration()
        self._ports = 0
        self._timer: IDelayedCall | None = None
        self._rings_at = math.inf
        self._most = 0.0
        self._refusals = Refusals(self.seconds)

    @property
    def configuration(self) -> Configuration:
        return self._factory.configuration

    def attach(self) -> None:
        """Record that a port leads here."""
        self._ports += 1
        self._factory.doStart()

    def detach(self) -> None:
        """Record that one leads here no more."""
        self._ports -= 1
        self._stop_timer_if_unused()
        self._factory.doStop()

    # Beginning.

    def begin(self, port: DatagramPort, key: Key, data: memoryview, size: int) -> Flow | None:
        """Begin a flow, unless the client is not let in.

        Args:
            port: Where it has come.
            key: Its own there.
            data: What it says.
            size: The bytes of each datagram but the last; 0 if there is one.
        """
        configuration = self._factory.configuration
        peer, local = key
        host, text = _host_of(peer[0])
        client, client_text = Address(host, peer[1]), f"{text}:{peer[1]}"
        asked = ancillary.endpoint_text(*port.local_address(local))
        header: Header | None = None
        permit: Permit | None = None
        refused: Refused | None = None
        senders = configuration.settings.accept_proxy_from
        if senders is not None and client.host in senders:
            found = decode_datagram(bytes(ancillary.split(data, size)[0]))
            if found is None:
                refused = Refused("proxy-header")
            else:
                header = found.header
                if header.source is not None and header.destination is not None:
                    client, asked = header.source, str(header.destination)
                    client_text = str(client)
        if refused is None:
            try:
                permit = self._let_in(configuration, client, port)
            except Refused as problem:
                refused = problem
        if refused is not None:
            limit = _LIMITS.get(refused.limit, refused.limit)
            if not self._refusals.count(configuration, refused.reason, limit, client):
                return None
        name = configuration.settings.name
        record = ConnectionRecord(time.time(), new_id(), name, client_text, asked)
        if header is not None:
            record.facts = {name: printable(text) for name, text in told_by(header).items()}
        flow = Flow(self, port, key, configuration, record, client, permit)
        flow.proxy_header = header
        flow.ids = _ids_of(header, data, size)
        configuration.counts.accepted()
        self._factory.opened(flow)
        if refused is not None:
            flow.refuse(refused.reason, len(data), ancillary.datagrams_in(len(data), size))
            return None
        port.enter(key, flow)
        return flow

    def _let_in(
        self, configuration: Configuration, client: Address, port: DatagramPort
    ) -> Permit | None:
        """Let a client in; who may not come in makes nobody else go.

        Raises:
            Refused: It is not let in.
        """
        permit = configuration.admission.enter(client, port.getHost())
        if not self._has_room(configuration):
            configuration.admission.leave(permit)
            raise Refused("limit", "max_flows")
        return permit

    def take_over(self, port: DatagramPort, key: Key, data: memoryview, size: int) -> bool:
        """Take datagrams of an unknown address, if they belong to a flow that may have moved; tell whether they do."""
        if self._migration.is_empty():
            return False
        path = self._migration.find(bytes(data[:size] if 0 < size < len(data) else data))
        return path is not None and path.flow.from_elsewhere(port, key, data, size)

    def following(self, flow: Flow, port: DatagramPort, key: Key, first: bytes) -> Following | None:
        """Make what has a flow follow its client; ``None`` if its protocol cannot move, or a proxy in front tells of its client."""
        if flow.proxy_header is not None:
            return None
        return Following.of(self._migration, flow, (port, key), first, self.seconds)

    def following_of(
        self,
        flow: Flow,
        port: DatagramPort,
        key: Key,
        fields: Mapping[str, Any],
        port_of: Callable[[str], DatagramPort | None],
    ) -> Following | None:
        """Make what has a flow of another process follow its client; see `Following.as_json`."""
        return Following.restored(self._migration, flow, (port, key), fields, self.seconds, port_of)

    def adopt(
        self,
        port: DatagramPort,
        key: Key,
        record: ConnectionRecord,
        fields: Mapping[str, Any],
        ids: ConnectionIds | None,
    ) -> Flow:
        """Add a flow of another process, with which `Flow.go_on` is next.

        Args:
            port: Where its client's datagrams come in.
            key: Its own there.
            record: What is known of it.
            fields: What else the other process has told.
            ids: Its connection IDs, if its client speaks QUIC.

        Raises:
            ValueError: The client's address cannot be read.
        """
        client = address_in(client_of(fields))
        if client is None:
            raise ValueError(f"{client_of(fields)!r} is not an address and a port")
        configuration = self._factory.configuration
        if 0 < fields.get("generation", 0) < configuration.version:
            configuration = attrs.evolve(configuration, version=fields["generation"])
        permit = configuration.admission.adopt(client)
        flow = Flow(self, port, key, configuration, record, client, permit)
        flow.ids = ids
        port.enter(key, flow)
        self._factory.opened(flow)
        return flow

    def _has_room(self, configuration: Configuration) -> bool:
        """Return whether there may be one more; the one that is the least loss makes room for it."""
        most: float | None = configuration.settings.max_flows
        if most is None:
            if self.table.count >= self._most:
                self._most = _most_by_descriptors()
            most = self._most
        if (not most or self.table.count < most) and self.runtime.descriptors.room():
            return True
        spare = self.table.spare()
        if spare is None:
            return False
        spare.over("limit")
        return True

    # The time that they have.

    def enter(self, flow: Flow, seconds: float, *, is_spare: bool, is_final: bool = False) -> None:
        """Move a flow to another timeout queue; see `txmux.udp.table.TimeoutQueue`."""
        now = self.seconds()
        self.table.enter(flow, self.table.queue(seconds, is_spare=is_spare, is_final=is_final), now)
        if now + seconds < self._rings_at:
            self._ring_at(now + seconds, now)

    def rejoin(self, flow: Flow, queue: TimeoutQueue, entered_at: float, heard_at: float) -> None:
        """Insert a flow in a queue as if it had been there for a while; see `FlowTable.rejoin`."""
        self.table.rejoin(flow, queue, entered_at, heard_at)
        if heard_at + queue.seconds < self._rings_at:
            self._ring_at(heard_at + queue.seconds, self.seconds())

    def _ring_at(self, at: float, now: float) -> None:
        self._rings_at = at
        if self._timer is not None:
            self._timer.reset(max(0.0, at - now))
        else:
            self._timer = self.runtime.reactor.callLater(max(0.0, at - now), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._rings_at = math.inf
        now = self.seconds()
        for flow in self.table.over(now):
            flow.time_is_over()
        next_at = self.table.next_at()
        if next_at < self._rings_at:
            self._ring_at(next_at, now)

    # The end.

    def closed(self, flow: Flow) -> None:
        """Report the end of a flow."""
        self._stop_timer_if_unused()
        self._factory.closed(flow)

    def _stop_timer_if_unused(self) -> None:
        # With short flows there is often none for a moment: as long as there is a port, the next one may use the timer.
        if self._timer is not None and not self._ports and not self.table.count:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf

    def lost(self, count: int) -> None:
        self._factory.configuration.counts.lost(count)

    def shed(self, count: int) -> None:
        """Count datagrams of unknown clients that were dropped, since the queue was too long for more flows."""
        configuration = self._factory.configuration
        configuration.counts.lost(count)
        self._refusals.note(configuration, "a long queue", count)

    def cut(self, count: int) -> None:
        self._factory.configuration.counts.cut(count)
