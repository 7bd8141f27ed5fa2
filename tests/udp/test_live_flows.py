"""Which flows end next, and which makes room."""

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.udp.live_flows import FlowTable, TimeoutQueue


@attrs.define(eq=False)
class Aged:
    name: int
    queue: TimeoutQueue | None = None
    entered_at: float = 0.0
    last_received_at: float = 0.0


class TableTests(SynchronousTestCase):
    happens = st.sampled_from(["new", "answered", "heard", "leave", "wait"])

    @given(st.lists(st.tuples(happens, st.integers(0, 12), st.floats(0.0, 20.0)), max_size=60))
    def test_like_a_plain_list(self, steps: list[tuple[str, int, float]]) -> None:
        table: FlowTable[Aged] = FlowTable()
        flows: dict[int, Aged] = {}
        now = 100.0
        for what, name, seconds in steps:
            flow = flows.get(name)
            if what == "new" and flow is None:
                flows[name] = Aged(name)
                table.enter(flows[name], (10.0, True, True), now)
            elif what == "answered" and flow is not None:
                table.enter(flow, (30.0, False, False), now)
            elif what == "heard" and flow is not None:
                assert flow.queue is not None
                has_time = not flow.queue.is_final or now - flow.entered_at < 10.0
                self.assertEqual(table.touch(flow, now), has_time)
            elif what == "leave" and flow is not None:
                table.leave(flows.pop(name))
            elif what == "wait":
                now += seconds
                due = {one for one in flows.values() if self.ends_at(one) <= now}
                found = []
                for one in table.over(now):
                    found.append(one)
                    table.leave(flows.pop(one.name))
                self.assertEqual(set(found), due)
            self.assertEqual(table.count, len(flows))
            ends = [self.ends_at(one) for one in flows.values()]
            self.assertEqual(table.next_at(), min(ends, default=math.inf))
            spare = [
                one.last_received_at for one in flows.values() if one.queue and one.queue.is_spare
            ]
            chosen = table.spare()
            shown = None if chosen is None else chosen.last_received_at
            self.assertEqual(shown, min(spare, default=None))

    @staticmethod
    def ends_at(flow: Aged) -> float:
        assert flow.queue is not None
        return flow.last_received_at + flow.queue.seconds

    def test_flow_that_stays_is_yielded_once(self) -> None:
        table: FlowTable[Aged] = FlowTable()
        table.enter(Aged(1), (1.0, True, False), 0.0)
        self.assertEqual(len([*table.over(5.0)]), 1)
        self.assertFalse(table.touch(Aged(1), 0.0))  # touch after the end gives no time
