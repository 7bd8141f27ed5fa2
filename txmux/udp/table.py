"""Which flows there are, which of them end next, and which makes room when there are too many; without a clock."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import attrs


class Aged(Protocol):
    """A flow as its table sees it; only the table changes these attributes."""

    queue: TimeoutQueue | None  # the queue that it is in; ``None`` once it is over
    entered_at: float  # when it entered that queue
    last_received_at: float  # when it last had a datagram


F = TypeVar("F", bound=Aged)


@attrs.define(eq=False)
class TimeoutQueue:
    """Flows that have the same time, the one without a datagram for longest first."""

    seconds: float  # how long a flow may be quiet
    is_spare: bool  # whether its flows make room for others: no server has answered them
    is_final: bool  # whether that is all the time that a flow has here, with datagrams or without
    flows: OrderedDict[Aged, None] = attrs.field(factory=OrderedDict, init=False)


class FlowTable(Generic[F]):
    """The flows of a listener, by how long they were quiet. All times are of one clock that never goes back."""

    def __init__(self) -> None:
        self.count = 0
        self._queues: dict[tuple[float, bool, bool], TimeoutQueue] = {}

    def queue(self, seconds: float, *, is_spare: bool, is_final: bool = False) -> TimeoutQueue:
        key = (seconds, is_spare, is_final)
        found = self._queues.get(key)
        if found is None:
            found = self._queues[key] = TimeoutQueue(*key)
        return found

    def enter(self, flow: F, queue: TimeoutQueue, now: float) -> None:
        if flow.queue is not None:
            self.leave(flow)
        self.count += 1
        flow.queue = queue
        flow.entered_at = flow.last_received_at = now
        queue.flows[flow] = None

    def rejoin(
        self, flow: F, queue: TimeoutQueue, entered_at: float, last_received_at: float
    ) -> None:
        """Insert a flow in a queue as if it had been there for a while.

        Flows that come one after another are in their places if the most recently active one comes first.
        """
        first = next(iter(queue.flows), None)
        self.enter(flow, queue, last_received_at)
        flow.entered_at = entered_at
        if first is not None and last_received_at <= first.last_received_at:
            queue.flows.move_to_end(flow, last=False)

    def touch(self, flow: F, now: float) -> bool:
        """Record a datagram of a flow; returns whether the flow continues, which it does not if the time of its queue is over."""
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

    def spare(self) -> F | None:
        """Return the flow that makes room for another one: of those that no server has answered, the one that was quiet for longest."""
        first = [
            next(iter(queue.flows))
            for queue in self._queues.values()
            if queue.is_spare and queue.flows
        ]
        found: F | None = min(first, key=lambda flow: flow.last_received_at, default=None)  # type: ignore[assignment]
        return found

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
        """Return when the time of a flow is over next, if no datagram comes until then."""
        return min(
            (
                next(iter(queue.flows)).last_received_at + queue.seconds
                for queue in self._queues.values()
                if queue.flows
            ),
            default=math.inf,
        )
