"""Moves connections between a worker and other processes: at an upgrade, or when `workers` changes."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredLock, TimeoutError  # noqa: A004 - this is what it raises
from twisted.logger import Logger

from txmux.access.admission import Tally
from txmux.client.session import ClientSession, has_ended
from txmux.control.conditions import Conditions
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD
from txmux.net.turns import Turns
from txmux.processes.worker.handover import Adopting, Round, Taker, opened
from txmux.processes.worker.received_rules import sockets_of
from txmux.serving.serving import Serving
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.moving import MAY_MOVE_LATER, StayReason

if TYPE_CHECKING:
    from txmux.udp.listener import UDPListener
    from txmux.udp.port import DatagramPort

_NOT_YET = -1
"""For a process that has not been sent `takes` yet; no flows are awaited under this number."""

_PATIENCE = 10.0
"""Seconds for connections on their way to arrive when this process ends."""

_PROMPT = 1.0
"""Seconds for which a request of all connections waits for some to arrive, and a hand-over for such a request."""

_log = Logger()


class ConnectionTransfer:
    """The transfers of a worker, in both directions; see `txmux.processes.worker.handover`."""

    def __init__(self, serving: Serving, reactor: Any, awaited: Tally) -> None:
        self._serving = serving
        self._awaited = awaited
        self._reactor = reactor
        self._adopting: dict[Adopting, int] = {}  # with `ListeningPorts.awaited` at its start
        self._handing_over = 0
        self._moving = DeferredLock()
        self._takers: set[Taker] = set()
        self._asked_again: list[Taker] = []  # which keep room for what they have not taken
        self._are_left = False  # connections that are offered again, after the last round
        self._is_closed = False
        self._requests = 0  # of all connections, under way
        self._changes = Conditions()

    @property
    def is_busy(self) -> bool:
        is_moving = self._handing_over > 0 or not all(one.has_all for one in self._adopting)
        return is_moving or self._passes_slots_on()

    def _passes_slots_on(self) -> bool:
        # With this process, one that a connection has left before would take its end for that of the connection.
        return bool(self._adopting) and any(taker.passes_on for taker in self._takers)

    async def until_slots_are_free(self, seconds: float) -> None:
        """Wait for connections that are handed over, and for the ends of those that other processes still count, and that went through this one."""
        await self._within(_PATIENCE, lambda: not self._handing_over)
        await self._within(seconds, lambda: not self._passes_slots_on())

    async def close(self) -> None:
        """Refuse further connections, and wait for those that are moving in either direction.

        Connections promised to another process would be lost with this one, without a line in the log.
        """
        self._is_closed = True
        for adopting, awaited in self._adopting.items():
            adopting.is_closed = True
            if awaited == _NOT_YET:
                adopting.channel.close()
        await self._within(_PATIENCE, self._is_quiet)

    def _is_quiet(self) -> bool:
        return not self._handing_over and not self._undecided()

    def _undecided(self) -> int:
        return sum(adopting.undecided for adopting in self._adopting)

    async def _hand_over_flows(self, takers: Sequence[Taker]) -> tuple[int, Counter[StayReason]]:
        flows = [
            connection
            for connection in self._serving.connections()
            if not isinstance(connection, MuxProtocol)
        ]
        # If another process has taken the flows, and passes them on, only that one knows when all have arrived.
        ports = self._serving.listening_ports
        reader = next((taker for taker in takers if taker.reads_datagrams), None)
        if reader is None:
            return 0, Counter({"not taken": len(flows)})
        moved = 0
        if flows:
            from txmux.udp.handover import hand_over_flows  # noqa: PLC0415 - imported only where there are flows

            try:
                moved = await hand_over_flows(flows, reader.channel)
            except ChannelError:
                return 0, Counter({"not taken": len(flows)})
        if ports.owns_flows:
            for taker in takers:
                taker.channel.send(messages.FLOWS_DONE)
            ports.flows_handed_over()
        return moved, Counter({"UDP": len(flows) - moved})

    async def hand_over(self, ends: Sequence[socket.socket]) -> dict[str, Any]:
        """Move connections to the processes at the other ends, as soon as these can take them.

        The ends are closed. Returns how many have `moved`, and how many `stay` by the reason.
        """
        for taker in self._takers:
            taker.share_slots(on=False)
        for adopting in self._adopting:  # what comes after the last round would stay here
            adopting.is_closed = True
        takers = [*filter(None, map(self._make_taker, ends))]
        before, self._asked_again = self._asked_again, []
        for taker in before:  # the new channels keep the room from here on
            taker.offer_again(0)
            taker.close_when_done()
        left = 0
        self._handing_over += 1
        try:
            able = await opened(takers, self._reactor)
            # No connection is offered to two processes: an upgrade may begin while connections move to other workers.
            async with self._moving:
                await self._within(_PROMPT, lambda: not (self._requests or self._undecided()))
                # Flows first, since datagrams are buffered for a short time only.
                flows, stays = await self._hand_over_flows(able)
                connections = self._serving.connections()
                streams = [
                    connection for connection in connections if isinstance(connection, MuxProtocol)
                ]
                moving = Round(streams, able)
                await moving.run()
            left = moving.stays["not taken"]
            self._are_left = not MAY_MOVE_LATER.isdisjoint(moving.stays)
            return {"moved": flows + moving.moved, "stays": +(stays + moving.stays)}
        finally:
            self._handing_over -= 1
            open_takers = [taker for taker in takers if taker.channel.is_open]
            for taker in open_takers:
                taker.offer_again(-(-left // len(open_takers)))
            if left:
                self._asked_again += open_takers
            else:
                for taker in takers:
                    taker.close_when_done()
            self._reactor.callLater(0, self._changes.check)  # after the answer

    def may_move_later(self, connection: ClientSession) -> bool:
        """Return whether a connection is offered again, which was not taken, or had no server then."""
        if not self._are_left or not isinstance(connection, MuxProtocol):
            return False
        return connection.cannot_move_because is None

    async def _within(self, seconds: float, condition: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            await self._changes.until(condition).addTimeout(seconds, self._reactor)

    def of_moving(
        self, handle: Callable[..., Coroutine[Any, Any, Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Apply a request to each connection, also one that is on its way; see `messages.OF_MOVING`.

        What was offered to this process before it is decided first, and no connection is handed over meanwhile.
        """

        async def handle_all(**fields: Any) -> Any:
            offered = [(it, batch) for it in self._adopting for batch in it.batches]
            await self._within(
                _PROMPT, lambda: not any(batch in it.batches for it, batch in offered)
            )
            self._requests += 1
            try:
                return await handle(**fields)
            finally:
                self._requests -= 1
                self._changes.check()

        return handle_all

    async def would_stay(self) -> dict[str, Any]:
        """Count the connections that `hand_over` would move, and those that it would not, by the reason; nothing is suspended."""
        moves, stays = 0, Counter[StayReason]()
        async for connection in Turns().each(self._serving.connections(), has_ended):
            # Flows move whatever their state.
            why = connection.cannot_move_because if isinstance(connection, MuxProtocol) else None
            if why is None:
                moves += 1
            else:
                stays[why] += 1
        return {"moves": moves, "stays": stays}

    def _make_taker(self, end: socket.socket) -> Taker | None:
        taker = Taker()

        def lost() -> None:
            self._takers.discard(taker)
            taker.channel_lost()
            self._changes.check()

        try:
            taker.channel = Channel(taker.handlers, lost, self._reactor)
            attach(self._reactor, taker.channel, end)
        except OSError as problem:  # descriptors may have run out
            _log.info("a process takes no connections: {why}", why=problem)
            return None
        self._takers.add(taker)
        return taker

    def share_slots(self) -> None:
        """Take no more slots from the processes of connections that have moved: this one serves again, and has slots of its own."""
        for taker in self._takers:
            taker.share_slots(on=True)

    def accept(self) -> None:
        self._serving.listening_ports.accept()
        for adopting in self._adopting:
            self._open(adopting)

    def _adopt(self, end: socket.socket, offered: int = 0) -> None:
        make, descriptors = self._serving.factory_of, self._serving.runtime.descriptors
        adopting = Adopting(
            make, UNCOLLECTED_FOR_GOOD, self._decided, self._count, descriptors, self._awaited
        )
        adopting.keep_room(offered)
        adopting.is_closed = self._is_closed
        self._adopting[adopting] = _NOT_YET
        handlers: dict[Message, Callable[..., object]] = {
            **adopting.handlers,
            messages.ADOPT_FLOWS: self._adopt_flows,
            messages.END_FLOWS: self._end_flows,
            messages.FLOWS_DONE: lambda: self._flows_are_here(adopting),
        }
        adopting.channel = Channel(handlers, partial(self._adopted, adopting), self._reactor)
        attach(self._reactor, adopting.channel, end)
        if self._is_closed:
            adopting.channel.close()
        elif self._serving.listening_ports.accepting:
            self._open(adopting)

    def _decided(self) -> None:
        self._serving.end_denied()  # the ban may have come while they were on their way
        self._changes.check()

    def _open(self, adopting: Adopting) -> None:
        ports = self._serving.listening_ports
        if self._adopting[adopting] == _NOT_YET:
            self._adopting[adopting] = ports.awaited
            adopting.open(reads=ports.reads_datagrams)

    def _count(self) -> int:
        return len(self._serving.connections()) + self._undecided()

    def _flows_are_here(self, adopting: Adopting) -> None:
        self._serving.listening_ports.flows_are_here(self._adopting[adopting])

    def _adopt_flows(
        self, descriptors: Sequence[int], flows: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        from txmux.udp.handover import adopt_flows  # noqa: PLC0415 - imported only where there are datagram ports

        serving, ports = self._serving, self._serving.listening_ports
        if self._is_closed or not (ports.reads_datagrams and ports.keys()):
            close_all(descriptors)  # they are offered to the next reader
            raise ChannelError("the process reads no datagrams")

        def find(listener: str, key: str) -> tuple[UDPListener, DatagramPort] | None:
            port = ports.reader_at(key)
            return None if port is None else (serving.udp_listener_of(listener), port.port)

        taken = adopt_flows(descriptors, flows, find)
        serving.end_denied()
        return taken

    def _end_flows(self, reasons: dict[str, Any]) -> None:
        from txmux.udp.handover import end_flows  # noqa: PLC0415 - as above

        end_flows(self._serving.connections(), reasons)

    def _adopted(self, adopting: Adopting) -> None:
        awaited = self._adopting.pop(adopting)
        adopting.channel_lost()
        if awaited not in self._adopting.values():
            self._serving.listening_ports.flows_are_here(awaited)
        self._changes.check()

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        def hand_over(descriptors: Sequence[int]) -> Coroutine[Any, Any, dict[str, Any]]:
            return self.hand_over(sockets_of(descriptors))

        def take_over(descriptors: Sequence[int], offered: int = 0) -> None:
            ends = sockets_of(descriptors)
            for end in ends:
                self._adopt(end, offered // len(ends))

        return {
            messages.ACCEPT: self.accept,
            messages.HAND_OVER: hand_over,
            messages.WOULD_STAY: self.would_stay,
            messages.TAKE_OVER: take_over,
        }
