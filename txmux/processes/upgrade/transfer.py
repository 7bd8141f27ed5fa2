"""Moves connections of a worker to other processes, and theirs to this one: at an upgrade, or when `workers` changes."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.channel.message import Message
from txmux.processes.upgrade.handover import Adopting, LeasedSlots, hand_over
from txmux.processes.workers.received_rules import sockets_of
from txmux.serving.serving import Serving
from txmux.tcp.lean import Stream
from txmux.tcp.listener import MuxFactory

if TYPE_CHECKING:
    from txmux.udp.port import DatagramPort

_MANY = 20_000
"""New objects for which a garbage collection takes over 5 ms, which clients would notice."""
_FEW = 250_000
"""Objects for which a garbage collection takes a tenth of a second; a supervisor has a quarter of them."""


class _Uncollected:
    """Turns the garbage collector off while connections move; a reentrant context.

    All their objects are in use, and all clients would wait for a collection. If there are many, they stay excluded
    afterwards, until `release`: the objects of a connection are freed by its end.
    """

    def __init__(self) -> None:
        self._count = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        if not self._count:
            self._was_enabled = gc.isenabled()
            gc.disable()
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            young = gc.get_count()[0]
            if young > _MANY:
                gc.freeze()
            if self._was_enabled:
                gc.enable()

    def release(self) -> None:
        """Collect the garbage that was excluded with the connections, after this process has handed them over.

        Does nothing while very many objects of other connections remain.
        """
        if not self._count and gc.get_freeze_count():
            gc.freeze()  # to count all objects
            if gc.get_freeze_count() < _FEW:
                gc.unfreeze()
                gc.collect()


UNCOLLECTED = _Uncollected()
"""The one of this process."""


_PATIENCE = 10.0
"""Seconds for connections on their way to arrive when this process ends."""

_log = Logger()


class ConnectionTransfer:
    """Hands connections of a worker over to other processes, and takes theirs."""

    def __init__(self, serving: Serving, reactor: Any) -> None:
        self._serving = serving
        self._reactor = reactor
        self._adopting: dict[Adopting, int] = {}  # with `ListeningPorts.awaited` at its start
        self._giving = 0
        self._leased_slots: set[LeasedSlots] = set()
        self._is_closed = False
        self._quiet: Deferred[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._giving > 0 or not all(one.has_all for one in self._adopting)

    async def close(self) -> None:
        """Take no further connections, since this process is about to end; wait for those on their way in either direction.

        Connections promised to another process would be lost with this one, without a line in the log.
        """
        self._is_closed = True
        for adopting in self._adopting:
            adopting.is_closed = True
        if self._is_moving():
            self._quiet = Deferred()
            with suppress(defer.TimeoutError):
                await self._quiet.addTimeout(_PATIENCE, self._reactor)
            self._quiet = None

    def _is_moving(self) -> bool:
        return self._giving > 0 or any(one.is_waiting for one in self._adopting)

    def _moved(self) -> None:
        if self._quiet is not None and not self._quiet.called and not self._is_moving():
            self._quiet.callback(None)

    async def _hand_over_flows(self, to: Sequence[LeasedSlots]) -> int:
        flows = [one for one in self._serving.connections() if not isinstance(one, Stream)]
        # Another process may have the flows already, on their way to others: then only that one knows when all have arrived.
        ports = self._serving.listening_ports
        owns_flows = ports.owns_flows
        moved = 0
        for slots in to:
            if flows:
                from txmux.udp.handover import hand_over_flows  # noqa: PLC0415 - imported only where there are flows

                # One may be of a version that knows no flows.
                with suppress(ChannelError, KeyError, TypeError):
                    moved += await hand_over_flows(flows, slots.channel)
            if owns_flows:
                slots.channel.send(messages.FLOWS_DONE)
                ports.flows_handed_over()
        return moved

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Move the connections that can be moved to the processes at the other ends; return how many were.

        The ends are closed.
        """
        all_slots = [*filter(None, map(self._open_lease, ends))]
        self._giving += 1
        try:
            # First, since datagrams wait nowhere for long.
            moved = await self._hand_over_flows(all_slots)
            connections = self._serving.connections()
            streams = [one for one in connections if isinstance(one, Stream)]
            return moved + await hand_over(streams, all_slots)
        finally:
            self._giving -= 1
            for slots in all_slots:
                slots.close_when_done()
            self._moved()

    def _open_lease(self, end: socket.socket) -> LeasedSlots | None:
        slots = LeasedSlots()

        def lost() -> None:
            self._leased_slots.discard(slots)
            slots.channel_lost()

        try:
            slots.channel = self._channel(end, slots.handlers, lost)
        except OSError as problem:  # descriptors may have run out
            _log.warn(
                "connections cannot be handed over, this process keeps them: {why}", why=problem
            )
            return None
        self._leased_slots.add(slots)
        return slots

    def release_slots(self) -> None:
        """Release the slots held for connections handed over."""
        for slots in self._leased_slots:
            slots.channel.close()

    def _adopt(self, end: socket.socket) -> None:
        adopting = Adopting(self._serving.factory_of, UNCOLLECTED, self._moved)
        adopting.is_closed = self._is_closed
        self._adopting[adopting] = awaited = self._serving.listening_ports.awaited

        handlers: dict[Message, Callable[..., object]] = {
            **adopting.handlers,
            messages.ADOPT_FLOWS: self._adopt_flows,
            messages.END_FLOWS: self._end_flows,
            messages.FLOWS_DONE: partial(self._serving.listening_ports.flows_are_here, awaited),
        }
        adopting.channel = self._channel(end, handlers, partial(self._adopted, adopting))

    def _adopt_flows(
        self, descriptors: Sequence[int] = (), flows: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """Adopt flows of datagrams, if this is the process that reads them."""
        from txmux.udp.handover import adopt_flows  # noqa: PLC0415 - imported only where there are datagram ports

        serving = self._serving
        if self._is_closed:
            for descriptor in descriptors:
                os.close(descriptor)
            return {"taken": []}

        def find(listener: str, place: str) -> tuple[MuxFactory, DatagramPort] | None:
            port = serving.listening_ports.reader_at(place)
            return None if port is None else (serving.factory_of(listener), port)

        return adopt_flows(descriptors, flows, find)

    def _end_flows(self, reasons: dict[str, Any]) -> None:
        from txmux.udp.handover import end_flows  # noqa: PLC0415 - as above

        end_flows(self._serving.connections(), reasons)

    def _adopted(self, adopting: Adopting) -> None:
        awaited = self._adopting.pop(adopting, 0)
        adopting.channel_lost()
        if awaited not in self._adopting.values():
            self._serving.listening_ports.flows_are_here(awaited)
        self._moved()

    def _channel(
        self,
        end: socket.socket,
        handlers: dict[Message, Callable[..., object]],
        lost: Callable[[], object],
    ) -> Channel:
        channel = Channel(handlers, lost, self._reactor)
        attach(self._reactor, channel, end)
        return channel

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        """The handlers for the channel to the supervisor."""

        async def give(descriptors: Sequence[int]) -> int:
            return await self.hand_over(sockets_of(descriptors))

        def take(descriptors: Sequence[int]) -> None:
            for end in sockets_of(descriptors):
                self._adopt(end)

        return {messages.HAND_OVER: give, messages.TAKE_OVER: take}
