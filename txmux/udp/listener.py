"""The UDP listener: admits clients, and creates their flows."""

import math
import resource
import socket
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import attrs
from twisted.logger import Logger
from typing_extensions import override

from txmux.access.admission import Refused
from txmux.access.per_source import Permit, source_of
from txmux.backends.upstreams import Upstreams
from txmux.client.active_listener import ActiveListener
from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.session import new_id
from txmux.interfaces import Transport
from txmux.net.addresses import address_in
from txmux.telemetry.access_log import AccessLog
from txmux.telemetry.reasons import EndReason, LimitName
from txmux.telemetry.record import ConnectionRecord
from txmux.udp import ancillary
from txmux.udp.connection_ids import ConnectionIds
from txmux.udp.flow import Flow, address_of_peer, host_and_text
from txmux.udp.live_flows import FLOWS, LiveFlows
from txmux.udp.port import DatagramPort, FlowKey
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.fields import header_facts
from txmux.wire.proxyprotocol.header import Address, ProxyHeader
from txmux.wire.quic.header import LONG_HEADER

_DESCRIPTOR_SHARE = 0.7  # of RLIMIT_NOFILE, for all listeners; each flow has a socket to its server
_BEYOND = 1.2  # times that, for listeners that have less than an equal part of it
_LIMITS: Mapping[LimitName | None, LimitName] = {
    "max_connections_per_source": "max_flows_per_source"
}
"""Limits whose option has another name for UDP."""

_OF_ALL = frozenset({"max_flows", "descriptors"})  # limits whose refusals are none of a source's
_LOG_INTERVAL = 60.0  # seconds between two warnings of refused flows
_MOST_LINES = 1000  # of refused flows in the access log, per interval

_log = Logger()


def _most_by_descriptors() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else max(1, int(_DESCRIPTOR_SHARE * limit))


def _end(spare: Flow | None) -> bool:
    if spare is not None:
        spare.end("limit")
    return spare is not None


class UDPListener(ActiveListener):
    """Owns the flows of all ports of one UDP listener.

    Raises:
        MuxError: The system has no epoll.
    """

    transport = Transport.UDP

    def __init__(
        self,
        configuration: Configuration,
        runtime: IORuntime,
        upstreams: Upstreams,
        access_log: AccessLog | None = None,
    ) -> None:
        super().__init__(configuration, runtime, upstreams, access_log)
        self.live = live = LiveFlows(self)
        self.seconds = live.seconds
        self.paths = live.migration.paths
        self._descriptors = runtime.descriptors
        self._most = 0.0
        self._refusals = Refusals(self.seconds)

    @override
    def listen(self, opened: socket.socket) -> DatagramPort:
        port = DatagramPort(self.live.poller, opened.dup(), self)
        self.runtime.loop_detector.add_address(*opened.getsockname()[:2])
        port.startListening()
        return port

    def attach(self) -> None:
        self.live.ports += 1
        if self.live.ports == 1:
            self.start_destinations()

    def detach(self) -> None:
        self.live.ports -= 1
        self.live.stop_timer_if_unused()
        if not self.live.ports:
            self.stop_destinations()

    def begin_flow(
        self, port: DatagramPort, key: FlowKey, data: memoryview, size: int
    ) -> Flow | None:
        """Create the flow of a new client, if the client is admitted; `data` has its first datagrams, of `size` bytes each."""
        configuration = self.configuration
        peer, local = key
        host, text = host_and_text(peer[0])
        client_text = f"{text}:{peer[1]}"
        client: Address | None = None
        local_text = port.local_text(local) if local else port.own_text
        header: ProxyHeader | None = None
        permit: Permit | None = None
        refused: Refused | None = None
        senders = configuration.settings.accept_proxy_from
        if senders is not None and host in senders:
            decoded = decode_datagram(ancillary.first(data, size))
            if decoded is None:
                refused = Refused("proxy-header")
            else:
                header = decoded.header
                if header.source is not None and header.destination is not None:
                    client, local_text = header.source, str(header.destination)
                    client_text = str(client)
        if refused is None:
            try:
                permit = self._admit(configuration, client, peer)
            except Refused as problem:
                refused = problem
        if refused is not None and not self._count_refused(
            configuration, refused, client or address_of_peer(peer), client_text
        ):
            return None
        name = configuration.settings.name
        record = ConnectionRecord(time.time(), new_id(), name, client_text, local_text)
        flow = Flow(self.live, port, key, configuration, record, client, permit)
        flow.proxy_header = header
        if header is not None:
            # The datagrams come from the proxy's address, so connection IDs cannot show a migration of the client.
            record.note({name: printable(text) for name, text in header_facts(header).items()})
        elif data and data[0] >= LONG_HEADER:
            flow.ids = ConnectionIds.from_first(ancillary.first(data, size))
        configuration.counts.accepted()
        self.opened(flow)
        if refused is not None:
            flow.refuse(refused.reason, len(data), ancillary.datagrams_in(len(data), size))
            return None
        port.enter(key, flow)
        return flow

    def _count_refused(
        self, configuration: Configuration, refused: Refused, client: Address, text: str
    ) -> bool:
        """Count a refused client; returns whether the access log gets a line."""
        clients, limit = self.runtime.clients, _LIMITS.get(refused.limit, refused.limit)
        if limit is not None:
            clients.limited(configuration.settings.name, limit, text)
        is_logged = self._refusals.count(configuration, refused.reason, limit, client)
        if not is_logged:  # nor is there a flow that counts it when it ends
            clients.turned_away(text, time.time())
        return is_logged

    def _admit(
        self, configuration: Configuration, client: Address | None, peer: Any
    ) -> Permit | None:
        """Admit a client. At ``max_flows``, this ends the least valuable flow; for want of descriptors, that of any listener.

        Raises:
            Refused: A limit is reached, or the client may not connect.
        """
        admission = configuration.admission
        if client is None and admission.needs_address:
            client = address_of_peer(peer)
        permit = admission.enter(client)
        most = configuration.settings.max_flows
        is_full = FLOWS.count >= self._most if most is None else 0 < most <= self.live.table.count
        if (is_full or not self._descriptors.room()) and not self._make_room(most):
            admission.leave(permit)
            raise Refused("limit", "max_flows" if self._descriptors.room() else "descriptors")
        return permit

    def _make_room(self, most: int | None) -> bool:
        table = self.live.table
        if most and table.count >= most:
            return _end(table.spare())
        has_descriptor = self._descriptors.room() > 0
        if most is None:
            self._most = _most_by_descriptors()
            if has_descriptor and FLOWS.count < self._most:
                return True
        listeners = FLOWS.count_listeners() + (not table.count)
        has_less = table.count * listeners < self._most and FLOWS.count < _BEYOND * self._most
        return (has_descriptor and has_less) or _end(FLOWS.spare())

    def pass_to_migrated(
        self, port: DatagramPort, key: FlowKey, data: memoryview, size: int
    ) -> bool:
        """Pass datagrams from an unknown address to the flow whose client has migrated to it; returns whether there is one."""
        migration = self.live.migration
        if not migration.paths:
            return False
        path = migration.find(ancillary.first(data, size))
        return path is not None and bool(path.flow.receive_at_new_address(port, key, data, size))

    def adopt(
        self,
        port: DatagramPort,
        key: FlowKey,
        record: ConnectionRecord,
        fields: Mapping[str, Any],
        ids: ConnectionIds | None,
    ) -> Flow:
        """Add a flow of another process; call `Flow.restore` afterwards.

        Raises:
            ValueError: The client's address cannot be read.
        """
        text = str(fields.get("client", record.client))
        client = address_in(text)
        if client is None:
            raise ValueError(f"{text!r} is not an address and a port")
        configuration, version = self.configuration, fields.get("generation", 0)
        is_older = version < configuration.version
        if is_older and version:
            configuration = attrs.evolve(configuration, version=version)
        permit = configuration.admission.adopt(client, has_moved=False)
        flow = Flow(self.live, port, key, configuration, record, client, permit)
        flow.ids, flow.was_moved_here = ids, is_older
        port.enter(key, flow)
        self.opened(flow)
        return flow

    def count_lost(self, count: int) -> None:
        self.configuration.counts.lost(count)

    def count_dropped(self, count: int) -> None:
        """Count datagrams of new clients that were dropped because the queue is too long."""
        configuration = self.configuration
        configuration.counts.lost(count)
        self._refusals.add(configuration, "a long queue", count)

    def count_cut(self, count: int) -> None:
        self.configuration.counts.cut(count)


class Refusals:
    """Counts refused flows, and limits their lines in the logs."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._counted: dict[str, int] = {}
        self._logged_at = self._listed_at = -math.inf
        self._listed: set[Hashable] = set()

    def count(
        self,
        configuration: Configuration,
        reason: EndReason,
        limit: LimitName | None,
        client: Address,
    ) -> bool:
        """Count a refusal; returns whether the access log gets a line, which is for the first of each source in a minute."""
        if limit is not None:
            configuration.counts.refused(limit)
        why = limit or ("no PROXY header" if reason == "proxy-header" else "allow, deny or a ban")
        self.add(configuration, why, 1, f", the last one from {client.host}")
        return limit not in _OF_ALL and self._is_first_of_source(client)

    def add(
        self, configuration: Configuration, why: str, count: int, last_client: str = ""
    ) -> None:
        """Count refusals for a warning once a minute; `last_client` describes the last one."""
        self._counted[why] = self._counted.get(why, 0) + count
        now = self._seconds()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            counted, self._counted = self._counted, {}
            _log.warn(
                "[{listener}] refused flows, by reason: {why}{whose}; this is logged once a minute",
                listener=configuration.settings.name,
                why=", ".join(f"{name}: {count}" for name, count in counted.items()),
                whose=last_client,
            )

    def _is_first_of_source(self, client: Address) -> bool:
        now = self._seconds()
        if now - self._listed_at >= _LOG_INTERVAL:
            self._listed_at = now
            self._listed.clear()
        source = source_of(client.host)
        if source in self._listed or len(self._listed) >= _MOST_LINES:
            return False
        self._listed.add(source)
        return True
