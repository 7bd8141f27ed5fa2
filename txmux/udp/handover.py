"""Hands flows over to another process, each with its socket to its server.

That goes a batch at a time::

    old: adopt_flows   the fields of each flow (`Flow.as_json`), and its socket, if it has one; the flows are suspended here
    new:               the indexes of those that continue there; the others are resumed here
    old: end_flows     the IDs of those that were ended here meanwhile, and why
    old: flows_done    that was all, so a client that is not known there is new

No process reads a client's datagrams before it has the flow: what comes too early is queued, see `txmux.udp.port.EarlyDatagrams`.
"""

from __future__ import annotations

import os
import socket
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.net.addresses import address_in
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.rules.model import Backend, Refusal, Server
from txmux.telemetry.formatting import plural
from txmux.telemetry.reasons import understood
from txmux.telemetry.record import ConnectionRecord
from txmux.udp.connection_ids import ConnectionIds
from txmux.udp.flow import Flow
from txmux.udp.port import DatagramPort, FlowKey
from txmux.wire import codec

if TYPE_CHECKING:
    from txmux.udp.listener import UDPListener

    Found = tuple[Upstream, Member | None]
    Find = Callable[[str, str], tuple[UDPListener, DatagramPort] | None]

    class FlowTaker(Protocol):
        """The channel to the process that takes over flows."""

        def ask(
            self, message: Message, *, seconds: float, descriptors: Sequence[int], **values: Any
        ) -> Deferred[Any]: ...

        def send(self, message: Message, **values: Any) -> None: ...


_BATCH = 100  # flows in a message; a message takes 253 descriptors
_PATIENCE = 2.0  # seconds

_OLDER: WeakValueDictionary[Backend, Upstream] = WeakValueDictionary()  # shared by their flows
_log = Logger()


async def hand_over_flows(served: Iterable[object], to: FlowTaker) -> int:
    """Hand all flows over to another process, whatever their state; returns how many it has taken.

    Raises:
        MuxError: The other process does not answer, or cannot take flows. What it has not taken continues here.
    """
    flows = [flow for flow in served if isinstance(flow, Flow) and flow.record.reason is None]
    # The most recently active one first, so that the order of their queues there is the same.
    flows.sort(key=lambda flow: flow.last_received_at, reverse=True)
    # Those of removed listeners: meanwhile, what clients send waits in their sockets.
    reading = {flow.port for flow in flows if flow.port.is_reading}
    for port in reading:
        port.stopReading()
    moved = 0
    try:
        for start in range(0, len(flows), _BATCH):
            batch = [flow for flow in flows[start : start + _BATCH] if flow.record.reason is None]
            moved += await _hand_over(batch, to)
    finally:
        for port in reading:
            port.startReading()
    return moved


async def _hand_over(batch: Sequence[Flow], to: FlowTaker) -> int:
    taken: Collection[int] = ()
    fields = [flow.as_json() for flow in batch]
    sockets = [flow.sock for flow in batch]
    for flow in batch:
        flow.suspend()
    try:
        answer = await to.ask(
            messages.ADOPT_FLOWS,
            seconds=_PATIENCE,
            descriptors=[sock.fileno() for sock in sockets if sock is not None],
            flows=[
                {**values, "has_socket": sock is not None}
                for values, sock in zip(fields, sockets, strict=True)
            ],
        )
        taken = {*answer["taken"]}
    finally:
        ended = {}
        for index, flow in enumerate(batch):
            if index in taken:
                reason = flow.detach()
                if reason is not None:
                    ended[flow.record.id] = reason
            else:
                flow.resume()
        if ended:
            to.send(messages.END_FLOWS, reasons=ended)
    return len(taken)


def adopt_flows(
    descriptors: Sequence[int], flows: Sequence[Mapping[str, Any]], find: Find
) -> dict[str, Any]:
    """Continue flows of another process, with the sockets of those that have one.

    `find` returns the listener of a name and the port of a listen address; ``None`` if this process reads no datagrams there.
    """
    # A malformed flow counts as having a socket.
    has_socket = [not isinstance(row, dict) or bool(row.get("has_socket", True)) for row in flows]
    if sum(has_socket) != len(descriptors):  # it is unknown which flow each belongs to
        _log.error(
            "no flow is taken over: {sockets} for {flows} that had one",
            sockets=plural(len(descriptors), "socket"),
            flows=plural(sum(has_socket), "flow"),
        )
        for number in descriptors:
            os.close(number)
        return {"taken": []}
    taken = []
    left = iter(descriptors)
    for index, fields in enumerate(flows):
        server: socket.socket | None = None
        descriptor = next(left) if has_socket[index] else None
        try:
            if descriptor is not None:
                server = _socket_of(descriptor)
            is_taken = _adopt(fields, server, find)
        except Exception as problem:  # noqa: BLE001 - an invalid flow must not keep the others from moving
            _log.info("a flow cannot be taken over: {why}", why=repr(problem))
            is_taken = False
        if is_taken:
            taken.append(index)
        elif server is not None:
            server.close()
    if len(taken) < len(flows):
        _log.info(
            "flows that are not taken over: {count}; those of a removed listener stay in the old process, the others start anew",
            count=len(flows) - len(taken),
        )
    return {"taken": taken}


def _socket_of(descriptor: int) -> socket.socket:
    """Make a socket of a descriptor, which is closed if it is of something else."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _adopt(fields: Mapping[str, Any], server: socket.socket | None, find: Find) -> bool:
    name = fields["record"]["listener"]
    listening = find(name, fields.get("place") or "")
    if listening is None:
        return False
    listener, port = listening
    record = codec.read(ConnectionRecord, fields["record"])
    if record.reason is not None:
        raise ValueError(f"a flow that has ended: {record.reason!r}")
    key = (tuple(fields["peer"]), bytes.fromhex(fields["local"]))
    ids = _ids_of(fields)
    destination = _find_destination(listener, record, fields, server)
    if destination is None and _has_destination(fields):
        return False
    _remove_same_key(port, key, record, ids)
    if server is not None:
        listener.runtime.descriptors.client_accepted()

    def port_of(key: str) -> DatagramPort | None:
        at = find(name, key)
        return None if at is None else at[1]

    flow: Flow | None = None
    try:
        flow = listener.adopt(port, key, record, fields, ids)
        flow.restore(fields, destination, server, port_of)
    except BaseException:
        has_socket = flow is not None and flow.sock is not None
        if destination is not None and destination[1] is not None and not has_socket:
            pool = destination[0].pool
            (pool.released if fields.get("answered", True) else pool.abandoned)(destination[1])
        if flow is not None:
            flow.logged = False
            flow.end("error")
        raise
    port.arrived(key, flow)
    return True


def _remove_same_key(
    port: DatagramPort, key: FlowKey, record: ConnectionRecord, ids: ConnectionIds | None
) -> None:
    """Remove a flow with the key of one that comes."""
    for newer in port.at(key):
        if newer.record.id == record.id:
            newer.stop_following()  # the flow comes back before this process has let it go
            port.forget(key, newer)
        elif _is_same(newer.ids, ids):  # it has begun while this one was on its way
            newer.end("limit")


def _is_same(newer: ConnectionIds | None, ids: ConnectionIds | None) -> bool:
    """Return whether a flow began with a datagram of another one; servers may give no ID to any connection."""
    if newer is None or ids is None:
        return newer is ids
    first = newer.known[0]
    return first != b"" and first in ids.known


def _ids_of(fields: Mapping[str, Any]) -> ConnectionIds | None:
    """Return the connection IDs of a flow: from its fields, else from its first datagram, else from its path."""
    if "ids" in fields or fields.get("introduction") is not None:
        return None if fields.get("ids") is None else codec.read(ConnectionIds, fields["ids"])
    if fields.get("held"):
        return ConnectionIds.from_first(b64decode(fields["held"][0]))
    path = fields.get("trail") or {}
    if path.get("kind") != "q" or not path.get("ids"):
        return None
    last = path["ids"][-1]
    known = {"own": path["own_id"], "known": [last], "served": last, "current": last}
    return codec.read(ConnectionIds, known)


def _has_destination(fields: Mapping[str, Any]) -> bool:
    return fields.get("state", "relaying") in {"connecting", "relaying"}


def _find_destination(
    listener: UDPListener,
    record: ConnectionRecord,
    fields: Mapping[str, Any],
    server: socket.socket | None,
) -> Found | None:
    if not _has_destination(fields):
        return None
    backend = record.backend or ""
    if server is not None:
        is_answered = fields.get("answered", True)
        found = listener.upstreams.adopt(backend, record.server or "", is_established=is_answered)
        # One without an answer had better begin anew, at a server of these rules.
        return found or (_of_older_rules(listener, record, fields) if is_answered else None)
    upstream = next(iter(listener.upstreams.all([backend])), None)
    return None if upstream is None else (upstream, None)


def _of_older_rules(
    listener: UDPListener, record: ConnectionRecord, fields: Mapping[str, Any]
) -> Found | None:
    """Make the backend of a flow with a server that older rules had, and those here do not have."""
    text, way = record.server or "", fields.get("way") or {}
    address = address_in(text.removeprefix("udp:"))
    if address is None or "idle_timeout" not in way:  # of an older version
        return None
    backend = Backend(
        record.backend or "",
        (Server(text, "udp", str(address.host), address.port),),
        proxy_protocol="v2" if way["proxy_protocol"] == "v2" else "off",
        idle_timeout=max(0.0, float(way["idle_timeout"])),
        answers=int(way["answers"]),
        source=tuple(map(str, way["source"])),
    )
    upstream = _OLDER.get(backend)
    if upstream is None:
        upstream = _OLDER[backend] = Upstream(backend, listener.runtime.clock, Refusal.CLOSE)
    member = upstream.pool.adopt(text, is_established=True)
    return None if member is None else (upstream, member)


def end_flows(served: Iterable[object], reasons: Mapping[str, Any]) -> None:
    """End flows that ended in the other process while they were suspended, for these reasons by ID."""
    for flow in [*served]:
        if isinstance(flow, Flow) and flow.record.id in reasons:
            flow.end(understood(reasons[flow.record.id]))
