"""A listening UDP socket: finds the flow of each datagram, and sends the answers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from typing_extensions import override
from zope.interface import implementer

from txmux.net.sockets.plainsocket import host_of
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import EVERY_ADDRESS, WatchedPort
from txmux.udp import ancillary
from txmux.udp.connection_ids import HEAD
from txmux.udp.shared_address import Beside, SharedAddress

if TYPE_CHECKING:

    class PortFlow(Beside, Protocol):
        """A flow, as its port sees it."""

        def from_client(self, data: memoryview, size: int, /) -> bool: ...
        def find(self, head: bytes, /) -> PortFlow | None: ...
        def may_open(self, datagram: bytes, /) -> bool: ...
        def flow_for_unknown_id(self, head: bytes, /) -> PortFlow: ...
        def take(self, data: memoryview, size: int, /) -> bool: ...
        def open(self, data: memoryview, /) -> None: ...

    class PortListener(Protocol):
        """The flows of a listener, as its port sees them."""

        @property
        def seconds(self) -> Callable[[], float]: ...

        @property
        def paths(self) -> Mapping[Any, Any]: ...

        def attach(self) -> None: ...
        def detach(self) -> None: ...
        def pass_to_migrated(
            self, port: Any, key: FlowKey, data: memoryview, size: int, /
        ) -> bool: ...

        def begin_flow(
            self, port: Any, key: FlowKey, data: memoryview, size: int, /
        ) -> PortFlow | None: ...

        def count_lost(self, count: int, /) -> None: ...
        def count_dropped(self, count: int, /) -> None: ...
        def count_cut(self, count: int, /) -> None: ...


_log = Logger()

_NO_FIELDS = (b"", 0)
_NO_DATAGRAMS = memoryview(b"")
_CUT = int(socket.MSG_TRUNC)
_AT_ONCE = 64  # batches before others have their turn
_TRY_EACH = 8  # wake-ups
_WANTED_BUFFER = 4 * 1024 * 1024  # bytes that may wait in the socket, if the system allows it
_LONG_QUEUE = 2 * 1024 * 1024  # bytes that wait, headers and all: of short datagrams some 2,700
_NEWCOMERS = 2  # new flows in each `_AT_ONCE` datagrams while the queue is long
_LONGEST_WAIT = 5.0  # as long as `txmux.processes.supervisor.pool` waits for it
"""Seconds for which datagrams wait at most for flows of another process, which arrive within a fraction of one."""
_MOST_WAITING = 8 * 1024 * 1024  # bytes of them
_BUFFER = memoryview(bytearray(ancillary.LARGEST))
"""Of all ports: what is read there is passed on before the next read."""
_EACH_WAITING = 200  # overhead of a datagram
_UNSENDABLE = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.EOPNOTSUPP})

FlowKey = tuple[Any, bytes]
"""The client's address as the socket gives it, and the address it was sent to."""


class EarlyDatagrams:
    """Datagrams that come before their flow, which another process hands over; in order for each client."""

    def __init__(
        self, reactor: Any, over: Callable[[], object], lost: Callable[[int], object]
    ) -> None:
        self.datagrams: dict[Any, list[tuple[bytes, int]]] = {}
        self._room = _MOST_WAITING
        self._lost = lost
        self._timer = reactor.callLater(_LONGEST_WAIT, over)

    def keep(self, key: Any, data: memoryview, size: int, count: int) -> None:
        """Keep datagrams of a client, or drop them if there are too many."""
        needed = len(data) + _EACH_WAITING
        if needed > self._room:
            self._lost(count)
            return
        self._room -= needed
        self.datagrams.setdefault(key, []).append((bytes(data), size))

    def take(self, key: Any) -> list[tuple[memoryview, int]]:
        """Return the datagrams of a client, and forget them."""
        early = self.datagrams.pop(key, [])
        self._room += sum(len(data) + _EACH_WAITING for data, _ in early)
        return [(memoryview(data), size) for data, size in early]

    def end(self) -> list[tuple[Any, memoryview, int]]:
        """Stop, and return what is left."""
        if self._timer.active():
            self._timer.cancel()
        early, self.datagrams = self.datagrams, {}
        return [(key, memoryview(data), size) for key, all_ in early.items() for data, size in all_]


@implementer(IListeningPort)
class DatagramPort(WatchedPort):
    """Passes datagrams to their flows.

    Attributes:
        flows: By their keys; several may share an address.
        is_accepting: False once the port is closed for new clients.
        lets_in: False while new clients are refused.
        place: The key of its place, by which other processes know it.
    """

    def __init__(self, poller: Poller, bound: socket.socket, to: PortListener) -> None:
        super().__init__(poller, bound)
        name = bound.getsockname()
        if name[0] in EVERY_ADDRESS:
            ancillary.ask_for_addresses(bound)
        ancillary.gather(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WANTED_BUFFER)
        room = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._long_queue = min(_LONG_QUEUE, room // 2)
        # Another process may have had the socket, and counted earlier drops.
        _, self._dropped = ancillary.queue_of(bound)
        self._name = name
        self.own_text = ancillary.endpoint_text(*name[:2])
        form = IPv6Address if bound.family == socket.AF_INET6 else IPv4Address
        self.host: IAddress = form("UDP", name[0], name[1])
        self._to = to
        self._has_more = self._has_few = False
        self._wakes = 0
        self.is_accepting = self.lets_in = True
        self.flows: dict[FlowKey, PortFlow | SharedAddress[PortFlow]] = {}
        self.place = ""
        self.early: EarlyDatagrams | None = None
        # How many flows may still begin; how many datagrams were dropped.
        self._newcomers = self._refused = 0

    def startListening(self) -> None:
        self._open()
        self._to.attach()

    def lead(self, to: PortListener) -> None:
        """Begin new flows in another listener; existing ones stay where they are."""
        before, self._to = self._to, to
        to.attach()
        before.detach()

    def stopListening(self) -> Deferred[None]:
        """Stop beginning flows; the socket is closed when the last one has ended."""
        if self.is_accepting:
            self.is_accepting = False
            for flow in [*self.flows.values()]:
                flow.port_is_shut()
            self.await_no_more()
            self._close_if_unused()
            self._to.detach()
        return succeed(None)

    def listen_again(self, to: PortListener) -> bool:
        """Begin flows again after `stopListening`, if the port is still open for older ones; returns whether it is."""
        if not self._is_open or self.is_accepting:
            return False
        self._to = to
        self.is_accepting = self.lets_in = True
        self.startReading()
        to.attach()
        return True

    def _close_if_unused(self) -> None:
        if self._is_open and not self.is_accepting and not self.flows:
            self._close()

    def getHost(self) -> IAddress:
        return self.host

    def local_address(self, local: bytes) -> tuple[str, int]:
        return ancillary.address_text(local) or self._name[0], self._name[1]

    def local_host(self, local: bytes) -> str:
        """Return the local address, a link-local one with its interface, by the second part of a key."""
        if not local:
            return host_of(self._name)
        return host_of((*self.local_address(local), 0, ancillary.link_of(local)))

    def enter(self, key: FlowKey, flow: PortFlow) -> None:
        at = self.flows.get(key)
        if at is None:
            self.flows[key] = flow
        elif isinstance(at, SharedAddress):
            at.add(flow)
        else:
            self.flows[key] = SharedAddress(self._to.seconds, at, flow)

    def forget(self, key: FlowKey, flow: PortFlow) -> None:
        """Remove a flow that has ended, or has another address now."""
        at = self.flows.get(key)
        if at is flow:
            del self.flows[key]
        elif isinstance(at, SharedAddress) and flow in at:
            at.remove(flow)
            if len(at) == 1:
                [left] = at.flows
                at.remove(left)
                self.flows[key] = left
        if not self.is_accepting:
            self._close_if_unused()

    def at(self, key: FlowKey) -> list[Any]:
        at = self.flows.get(key)
        return at.flows if isinstance(at, SharedAddress) else [] if at is None else [at]

    @override
    def _ready(self, events: int) -> None:
        # Beginning a flow takes as long as passing many datagrams. In a flood, those of flows must not wait for all new clients;
        # but some are admitted, as the long queue may be a single flow's. Clients whose flows may be on their way from another
        # process only wait.
        had_more, self._has_more = self._has_more, False
        is_long = had_more and self._measure_queue() > self._long_queue and self.early is None
        self._newcomers, self._refused = _NEWCOMERS if is_long else _AT_ONCE, 0
        self._read()
        if had_more and not self._has_more and self._is_open:
            self._measure_queue()
        if self._refused:
            self._to.count_dropped(self._refused)

    def _measure_queue(self) -> int:
        """Return how many bytes wait, and count the datagrams that the system has dropped since the last call."""
        waiting, dropped = ancillary.queue_of(self.socket)
        lost, self._dropped = ancillary.since(dropped, self._dropped), dropped
        if lost:
            self._to.count_lost(lost)
        return waiting

    def _read(self) -> None:
        receive, buffer, flows = self.socket.recvmsg_into, _BUFFER, self.flows
        buffers, space = [buffer], ancillary.SPACE
        # If datagrams come one by one, a second read is tried only now and then, as in `ServerSocket`.
        self._wakes += 1
        most = _AT_ONCE if self._has_few or not self._wakes % _TRY_EACH else 1
        self._has_few = True
        for count in range(most):
            try:
                length, fields, flags, peer = receive(buffers, space)
            except BlockingIOError:
                self._has_few = count > 1
                return
            except OSError as problem:
                # An error of earlier sends; their flows notice the silence.
                _log.debug("a port for datagrams: {why}", why=problem)
                continue
            local, size = ancillary.read(fields) if fields else _NO_FIELDS
            if flags & _CUT:
                self._to.count_cut(1)
                continue
            key = (peer, local)
            flow = flows.get(key)
            data = buffer[:length]
            if flow is None and self.early is None and not self._to.paths:
                if rest := self._begin(key, data, size):
                    self._sort(key, rest, size)
            elif flow is None or not flow.from_client(data, size):
                self._sort(key, data, size)
            if not self.is_reading:
                return
        self._has_more = self._has_few = most > 1

    def await_flows(self) -> None:
        """Keep datagrams of unknown clients, whose flows another process may be handing over."""
        if self.early is None and self.is_accepting:
            self.early = EarlyDatagrams(
                self._poller.reactor, self.await_no_more, self._to.count_lost
            )

    def await_no_more(self) -> None:
        """Begin the flows of clients that are still unknown: no other process hands them over."""
        waiting, self.early = self.early, None
        early = () if waiting is None else waiting.end()
        self._newcomers = sum(ancillary.datagrams_in(len(data), size) for _, data, size in early)
        for key, data, size in early:
            flow = self.flows.get(key)
            if flow is None or not flow.from_client(data, size):
                self._sort(key, data, size)

    def arrived(self, key: FlowKey, flow: PortFlow) -> None:
        """Pass a flow of another process the datagrams that came before it."""
        at = self.flows.get(key, flow)  # its address may already be shared
        for data, size in () if self.early is None else self.early.take(key):
            if not at.from_client(data, size):
                self._sort(key, data, size)

    def _sort(self, key: FlowKey, data: memoryview, size: int) -> None:
        """Find the flow of each datagram that is not certainly of the only flow of its address, or begin one."""
        size = size if 0 < size < len(data) else len(data)
        while True:
            # Each turn may begin the flow of the next datagrams, or end it.
            at, flow, run = self.flows.get(key), None, data
            if at is not None:
                flow, run = _run(at.find, data, size)
                if flow is not None and not flow.take(run, size):
                    at, flow = self.flows.get(key), None
                    run = data if at is None else data[:size]
            rest = self._take_unknown(key, at, run, size) if flow is None else _NO_DATAGRAMS
            data = rest or data[len(run) :]
            if not data:
                return

    def _take_unknown(
        self,
        key: FlowKey,
        at: PortFlow | SharedAddress[PortFlow] | None,
        data: memoryview,
        size: int,
    ) -> memoryview:
        """Take datagrams of an address without a flow, or one that is of none of its flows for certain; returns what is left, as `_begin`."""
        if self.early is not None:
            self.early.keep(key, data, size, ancillary.datagrams_in(len(data), size))
        elif not self._to.pass_to_migrated(self, key, data, size) and (
            at is None
            or at.may_open(bytes(data))
            or not at.flow_for_unknown_id(bytes(data[:HEAD])).take(data, 0)
        ):
            return self._begin(key, data, size)
        return _NO_DATAGRAMS

    def _begin(self, key: FlowKey, data: memoryview, size: int) -> memoryview:
        """Begin a flow, unless too many begin or it is not admitted; returns the datagrams behind its first one."""
        count = ancillary.datagrams_in(len(data), size) if size else 1
        if not self._newcomers:
            self._refused += count
            return _NO_DATAGRAMS
        self._newcomers -= 1
        flow = (
            self._to.begin_flow(self, key, data, size)
            if self.is_accepting and self.lets_in
            else None
        )
        if flow is None:
            self._to.count_lost(count)
        elif count == 1:
            flow.open(data)
        else:
            flow.open(data[:size])
            return data[size:]
        return _NO_DATAGRAMS

    def send(self, key: FlowKey, data: Any, size: int) -> int:
        """Send datagrams to the client of a flow, from the address that it has sent to; returns how many were dropped."""
        peer, local = key
        if local or size:
            control = ancillary.answer_from(local) if local else ()
            return send(self.socket, data, size, control, peer)
        try:
            self.socket.sendto(data, peer)
        except OSError:  # never of an earlier datagram, as the socket is not connected
            return 1
        return 0

    def local_text(self, local: bytes) -> str:
        return ancillary.endpoint_text(*self.local_address(local)) if local else self.own_text


def _run(
    find: Callable[[bytes], PortFlow | None], data: memoryview, size: int
) -> tuple[PortFlow | None, memoryview]:
    """Return the flow of the first datagram, and it with those behind it of the same flow; without a flow, it alone."""
    flow, end = find(bytes(data[:HEAD])), size
    while flow is not None and end < len(data) and find(bytes(data[end : end + HEAD])) is flow:
        end += size
    return flow, data[:end]


def send(
    sender: socket.socket,
    data: Any,
    size: int,
    control: tuple[ancillary.Ancillary, ...] = (),
    peer: Any = None,
) -> int:
    """Send datagrams; returns how many were dropped. A `ConnectionRefusedError` answers an earlier datagram."""
    many = 0 < size < len(data)
    try:
        if many:
            sender.sendmsg((data,), (*control, *ancillary.cut_into(size)), 0, peer)
        elif control:
            sender.sendmsg((data,), control, 0, peer)
        elif peer is not None:
            sender.sendto(data, peer)
        else:
            sender.send(data)
    except ConnectionRefusedError:
        raise
    except OSError as problem:
        if many and problem.errno in _UNSENDABLE:
            # The route cannot segment: datagrams exceed its packets, or its device cannot.
            return sum(send(sender, part, 0, control, peer) for part in ancillary.split(data, size))
        return ancillary.datagrams_in(len(data), size)
    return 0
