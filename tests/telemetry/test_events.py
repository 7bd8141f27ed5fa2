import time
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.access_log import fields_of
from txmux.telemetry.events import MOST, Events, Sampling, server_event
from txmux.telemetry.record import ConnectionRecord


class EventsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[dict[str, Any]] = []
        self.sampling = Sampling(self.clock, self.told.append)
        self.clock.advance(5)

    def flood(self, more: int) -> None:
        for number in range(MOST + more):
            self.sampling.pass_on({"event": "begin", "number": number})

    def test_first_hundred_of_a_second_and_the_number_skipped(self) -> None:
        self.flood(7)
        self.assertEqual([one["number"] for one in self.told], list(range(MOST)))
        self.clock.rightNow += 1  # the timer is late
        self.sampling.pass_on({"event": "end"})
        self.assertEqual([one["event"] for one in self.told[MOST:]], ["skipped", "end"])
        self.assertEqual(self.told[MOST]["count"], 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_skipped_ones_are_reported_once_after_a_quiet_second(self) -> None:
        self.flood(7)
        self.clock.advance(0.9)
        self.assertEqual(len(self.told), MOST)
        self.clock.advance(0.1)
        self.assertEqual([one["event"] for one in self.told[MOST:]], ["skipped"])
        self.assertEqual(self.told[MOST]["count"], 7)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.sampling.pass_on({"event": "end"})
        self.assertEqual([one["event"] for one in self.told[MOST:]], ["skipped", "end"])
        self.setUp()
        self.flood(0)  # no timer while nothing is skipped
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_each_has(self) -> None:
        """And those who follow decisions get them, without a listener, too."""
        events, told, followed = Events(Clock()), list[dict[str, Any]](), list[Any]()
        known = {"id": "1", "listener": "m", "client": "192.0.2.1:5", "local": None}
        record = ConnectionRecord(0.0, "1", "m", "192.0.2.1:5", route="r", facts={"sni": "x"})
        session = SimpleNamespace(record=record)

        def happen() -> None:
            events.begun(record)
            events.decided(session)
            record.detect_ms = 1.26
            events.decided(session)
            events.ended(record)
            events.server(server_event("b", "s", "a", "up", "down", "refused"))

        for _ in range(MOST):  # they take nobody's place
            happen()
        events.listen(told.append)
        events.follow_decisions(followed.append)
        record.detect_ms = None
        happen()
        events.listen(None)
        happen()
        self.assertEqual(followed, [session] * 4)
        for one in told:
            self.assertLess(abs(one.pop("at") - time.time()), 60)
        decision = {"event": "decide", **known, "route": "r", "facts": {"sni": "x"}}
        self.assertEqual(
            told,
            [
                {"event": "begin", **known}, {**decision, "detect_ms": None}, {**decision, "detect_ms": 1.3},
                {"event": "end", **fields_of(record)},
                {"event": "server", "backend": "b", "server": "s", "address": "a", "before": "up", "state": "down", "why": "refused"},
            ],
        )  # fmt: skip

    def test_decisions_are_made_events_for_those_who_want_them(self) -> None:
        events, follower = Events(Clock()), lambda _: None
        for step, sees in (
            ((events.listen, follower), True), ((events.listen, None), False),
            ((events.follow_decisions, follower), True), ((events.listen, follower), True),
            ((events.listen, None), True), ((events.follow_decisions, None), False),
        ):  # fmt: skip
            step[0](step[1])
            self.assertIs(events.sees_decisions, sees)

    def test_next_listener_hears_nothing_skipped_before(self) -> None:
        clock = Clock()
        events = Events(clock)
        record = ConnectionRecord(0.0, "1", "m", "192.0.2.1:5")
        first: list[dict[str, Any]] = []
        second: list[dict[str, Any]] = []
        events.listen(first.append)
        for _ in range(MOST + 7):
            events.begun(record)
        events.listen(first.append)  # as with each beat
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        events.listen(None)
        self.assertEqual(clock.getDelayedCalls(), [])
        events.listen(second.append)
        clock.advance(5)
        events.begun(record)
        self.assertEqual([one["event"] for one in second], ["begin"])
        self.assertEqual(len(first), MOST)
