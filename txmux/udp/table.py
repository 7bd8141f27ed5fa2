"""Which flows there are, which of them end next, and which makes room when there are too many; without a clock."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Aged", "FlowTable", "Lane"]


class Aged(Protocol):
    """What a table has to know of a flow; the table alone changes it.

    Attributes:
        lane: Where it is; ``None`` once it is over.
        entered_at: When it came into that lane.
        heard_at: When it was last heard of.
    """

    lane: Lane | None
    entered_at: float
    heard_at: float


F = TypeVar("F", bound=Aged)


class Lane:
    """Flows that have the same time, the one that was not heard of for longest first.

    Args:
        seconds: How long a flow may be quiet.
        is_spare: Whether its flows make room for others: no server has answered them.
        is_final: Whether that is all the time that a flow has here, heard of or not.
    """

    __slots__ = ("flows", "is_final", "is_spare", "seconds")

    def __init__(self, seconds: float, *, is_spare: bool, is_final: bool) -> None:
        self.seconds = seconds
        self.is_spare = is_spare
        self.is_final = is_final
        self.flows: OrderedDict[Aged, None] = OrderedDict()


class FlowTable(Generic[F]):
    """The flows of a listener, by how long they were quiet. All times are of one clock that never goes back.

    Attributes:
        count: How many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lanes: dict[tuple[float, bool, bool], Lane] = {}

    def lane(self, seconds: float, *, is_spare: bool, is_final: bool = False) -> Lane:
        """Give the lane of flows of a kind; see `Lane`."""
        key = (seconds, is_spare, is_final)
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = Lane(seconds, is_spare=is_spare, is_final=is_final)
        return found

    def enter(self, flow: F, lane: Lane, now: float) -> bool:
        """Have a flow in a lane, new or from another one; tell whether it is the first there."""
        self.leave(flow)
        self.count += 1
        flow.lane = lane
        flow.entered_at = flow.heard_at = now
        lane.flows[flow] = None
        return len(lane.flows) == 1

    def rejoin(self, flow: F, lane: Lane, entered_at: float, heard_at: float) -> None:
        """Have a flow in a lane as if it had been there for a while.

        Flows that come one after another are in their places if the one that was heard of last comes first.
        """
        first = next(iter(lane.flows), None)
        self.enter(flow, lane, heard_at)
        flow.entered_at = entered_at
        if first is not None and heard_at <= first.heard_at:
            lane.flows.move_to_end(flow, last=False)

    def heard(self, flow: F, now: float) -> bool:
        """Note that a flow was heard of; tell whether it goes on, which it does not if its lane gives it no more time."""
        lane = flow.lane
        if lane is None:
            return False
        flow.heard_at = now
        lane.flows.move_to_end(flow)
        return not lane.is_final or now - flow.entered_at < lane.seconds

    def leave(self, flow: F) -> None:
        """Forget a flow."""
        lane, flow.lane = flow.lane, None
        if lane is not None:
            del lane.flows[flow]
            self.count -= 1

    def spare(self) -> F | None:
        """Give the flow that makes room for another one: of those that no server has answered, the one that was quiet for longest."""
        first = [
            next(iter(lane.flows)) for lane in self._lanes.values() if lane.is_spare and lane.flows
        ]
        found: F | None = min(first, key=lambda flow: flow.heard_at, default=None)  # type: ignore[assignment]
        return found

    def over(self, now: float) -> Iterator[F]:
        """Give all flows whose time is over, one after another; whoever takes one has to have it `leave`."""
        for lane in [*self._lanes.values()]:
            flows = lane.flows
            while flows:
                flow: F = next(iter(flows))  # type: ignore[assignment]
                if flow.heard_at + lane.seconds > now:
                    break
                yield flow
                if flow.lane is lane and next(iter(flows)) is flow:
                    break  # whoever took it has left it there

    def next_at(self) -> float:
        """Tell when the time of a flow is over next, if nothing is heard until then; infinite if there are none."""
        return min(
            (
                next(iter(lane.flows)).heard_at + lane.seconds
                for lane in self._lanes.values()
                if lane.flows
            ),
            default=math.inf,
        )
