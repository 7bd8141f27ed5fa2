"""The table of a listener's flows, the timer by which they end, and the poller of their sockets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from txmux.errors import MuxError
from txmux.net.sockets.poller import Poller, is_available
from txmux.udp import ancillary
from txmux.udp.migration import Migration
from txmux.udp.table import FlowTable, TimeoutQueue

if TYPE_CHECKING:
    from txmux.client.active_listener import ActiveListener


class LiveFlows:
    """The flows of one listener that have not ended.

    Attributes:
        buffer: Answers of servers are read into it.
        ports: How many ports may still add flows.
    """

    def __init__(self, listener: ActiveListener) -> None:
        if not is_available():
            raise MuxError("endpoints of type udp need Linux; remove them")
        self.listener = listener
        self.runtime = listener.runtime
        self.poller = Poller.for_reactor(self.runtime.reactor)
        self.seconds = self.runtime.clock.seconds
        self.table: FlowTable[Any] = FlowTable()
        self.migration: Migration[Any] = Migration()
        self.buffer = memoryview(bytearray(ancillary.LARGEST))
        self.ports = 0
        self._timer: IDelayedCall | None = None
        self._rings_at = math.inf

    def enter(self, flow: Any, seconds: float, *, is_spare: bool, is_final: bool = False) -> None:
        now, table = self.seconds(), self.table
        table.enter(flow, table.queue(seconds, is_spare=is_spare, is_final=is_final), now)
        if now + seconds < self._rings_at:
            self._ring_at(now + seconds, now)

    def rejoin(
        self, flow: Any, queue: TimeoutQueue, entered_at: float, last_received_at: float
    ) -> None:
        self.table.rejoin(flow, queue, entered_at, last_received_at)
        if last_received_at + queue.seconds < self._rings_at:
            self._ring_at(last_received_at + queue.seconds, self.seconds())

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

    def stop_timer_if_unused(self) -> None:
        # With short flows there is often none for a moment: as long as there is a port, the next one may use the timer.
        if self._timer is not None and not self.ports and not self.table.count:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf
