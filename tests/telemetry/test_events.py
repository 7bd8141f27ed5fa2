from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.events import MOST, Events, Sampling
from txmux.telemetry.record import ConnectionRecord


class SamplingTest(SynchronousTestCase):
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


class ListenTest(SynchronousTestCase):
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
