"""A listener's flows in the order in which they end, the timer that ends them, and the poller of their sockets."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from twisted.internet.interfaces import IDelayedCall

from txmux.client.active_listener import ActiveListener
from txmux.errors import MuxError
from txmux.net.sockets.poller import Poller, is_available
from txmux.udp import ancillary
from txmux.udp.migration import Migration


class Aged(Protocol):
    """A flow as its table sees it; only the table changes these attributes."""

    queue: TimeoutQueue | None  # the queue that it is in; ``None`` once it is over
    entered_at: float  # when it entered the queue
    last_received_at: float  # when it last had a datagram


F = TypeVar("F", bound=Aged)

Timeout = tuple[float, bool, bool]
"""How long a flow may be quiet; whether it makes room for others, since no server has answered it; and whether that is all the time
that it has here, with datagrams or without."""


class TimeoutQueue:
    """Flows that have the same timeout, the one without a datagram for longest first."""

    __slots__ = ("flows", "is_final", "is_spare", "seconds", "timeout")

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout
        self.seconds, self.is_spare, self.is_final = timeout
        self.flows: OrderedDict[Aged, None] = OrderedDict()


class ProcessFlows:
    """The flows of all listeners of a process, which share its descriptors."""

    def __init__(self) -> None:
        self.count = 0
        self.tables: WeakSet[FlowTable[Any]] = WeakSet()

    def spare(self) -> Any | None:
        """Return the flow that makes room for one of any listener: `FlowTable.spare` of the one that has most of those.

        So a listener that is flooded makes room for others, and they not for it.
        """
        table = max(self.tables, key=FlowTable.count_spare, default=None)
        return None if table is None else table.spare()

    def count_listeners(self) -> int:
        return sum(table.count > 0 for table in self.tables)


FLOWS = ProcessFlows()  # of this process


class FlowTable(Generic[F]):
    """The flows of a listener, by how long they were quiet. All times are of one clock that never goes back."""

    def __init__(self, process: ProcessFlows | None = None) -> None:
        self.count = 0
        self._queues: dict[Timeout, TimeoutQueue] = {}
        self._process = process or ProcessFlows()
        self._process.tables.add(self)

    def enter(self, flow: F, timeout: Timeout, now: float) -> None:
        if flow.queue is not None:
            self.leave(flow)
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = TimeoutQueue(timeout)
        self.count += 1
        self._process.count += 1
        flow.queue = queue
        flow.entered_at = flow.last_received_at = now
        queue.flows[flow] = None

    def rejoin(self, flow: F, timeout: Timeout, entered_at: float, last_received_at: float) -> None:
        """Insert a flow in a queue as if it had been there for a while.

        Flows have to be inserted in the order of their activity, the most recently active one first.
        """
        self.enter(flow, timeout, last_received_at)
        flow.entered_at = entered_at
        flows = self._queues[timeout].flows
        if last_received_at <= next(iter(flows)).last_received_at:
            flows.move_to_end(flow, last=False)

    def touch(self, flow: F, now: float) -> bool:
        """Record a datagram of a flow; returns false if the flow's time is over."""
        queue = flow.queue
        if queue is None:
            return False
        flow.last_received_at = now
        queue.flows.move_to_end(flow)
        return not queue.is_final or now - flow.entered_at < queue.seconds

    def leave(self, flow: F) -> None:
        queue, flow.queue = flow.queue, None
        if queue is not None:
            del queue.flows[flow]
            self.count -= 1
            self._process.count -= 1

    def count_spare(self) -> int:
        return sum(len(queue.flows) for queue in self._queues.values() if queue.is_spare)

    def spare(self) -> F | None:
        """Return the flow that makes room for another one: among those without an answer, the one that was quiet for longest."""
        first = [
            next(iter(queue.flows))
            for queue in self._queues.values()
            if queue.is_spare and queue.flows
        ]
        return min(first, key=lambda flow: flow.last_received_at, default=None)  # type: ignore[return-value]

    def over(self, now: float) -> Iterator[F]:
        """Yield all flows whose time is over, one after another; the caller has each `leave`."""
        for queue in [*self._queues.values()]:
            flows = queue.flows
            while flows:
                flow: F = next(iter(flows))  # type: ignore[assignment]
                if flow.last_received_at + queue.seconds > now:
                    break
                yield flow
                if flow.queue is queue and next(iter(flows)) is flow:
                    break  # the caller has left it there

    def next_at(self) -> float:
        """Return when the next flow ends if no datagram comes before."""
        return min(
            (
                next(iter(queue.flows)).last_received_at + queue.seconds
                for queue in self._queues.values()
                if queue.flows
            ),
            default=math.inf,
        )


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
        self.table: FlowTable[Any] = FlowTable(FLOWS)
        self.migration: Migration[Any] = Migration()
        self.buffer = memoryview(bytearray(ancillary.LARGEST))
        self.ports = 0
        self._timer: IDelayedCall | None = None
        self._rings_at = math.inf

    def enter(self, flow: Any, seconds: float, *, is_spare: bool, is_final: bool = False) -> None:
        now = self.seconds()
        self.table.enter(flow, (seconds, is_spare, is_final), now)
        if now + seconds < self._rings_at:
            self._ring_at(now + seconds, now)

    def rejoin(
        self, flow: Any, timeout: Timeout, entered_at: float, last_received_at: float
    ) -> None:
        self.table.rejoin(flow, timeout, entered_at, last_received_at)
        ends_at = last_received_at + timeout[0]
        if ends_at < self._rings_at:
            self._ring_at(ends_at, self.seconds())

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
        # Between short flows there is often none: the next one may use the timer, as long as there is a port.
        if self._timer is not None and not self.ports and not self.table.count:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf
