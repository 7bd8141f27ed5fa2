"""Outside sources: when one is down, what is logged, and when an operator should know."""

import attrs
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.sources import Source, SourceLog, SourceState, worst


class SourceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.seen = 0
        logs = capturedLogs()
        self.events = logs.__enter__()
        self.addCleanup(logs.__exit__, None, None, None)

    def make(self, steady: float = 0.0, *, logs: bool = True) -> Source:
        where, clock = "192.0.2.53:53", self.clock.seconds
        return Source("names", where, "names stay", clock, steady=steady, logs=logs)

    def lines(self) -> list[str]:
        seen, self.seen = self.seen, len(self.events)
        return [formatEvent(event) for event in self.events[seen:]]

    def after(self, source: Source, seconds: float) -> SourceState:
        self.clock.advance(seconds)
        return source.state()

    def test_each_reason_is_logged_once_and_so_is_the_end(self) -> None:
        source = self.make()
        for why in ("refused", "no answer", "refused"):
            source.requested()
            source.failed(why)
        where = "names 192.0.2.53:53"
        lines = [f"{where}: refused; names stay", f"{where}: no answer; names stay"]
        self.assertEqual(self.lines(), lines)
        for _ in range(2):
            source.requested()
            source.answered()
        self.assertEqual(self.lines(), [f"{where}: good again"])
        source = self.make()  # ten reasons of an outage are logged
        for number in range(20):
            source.failed(f"error {number}")
        self.assertEqual(len(self.lines()), 10)

    def test_two_failures_a_minute_after_the_first_question_are_overdue(self) -> None:
        source = self.make()
        source.requested()
        source.failed("refused")
        self.assertFalse(self.after(source, 100).is_overdue)  # one datagram may be lost
        source.failed("refused")
        state = self.after(source, 0)
        self.assertEqual((state.is_overdue, state.failing, state.age), (True, 100, None))
        sentence = "names 192.0.2.53:53: no good answer for 1 min 40 s: refused; names stay"
        self.assertEqual(state.sentence, sentence)
        self.assertEqual(state.outage, "names")  # which all name servers have in common
        redis = Source("redis", "192.0.2.53:53", "", self.clock.seconds).state()
        self.assertEqual(redis.outage, "192.0.2.53:53")
        row = {"source": state.name, "up": False, "age": None, "why": "refused"}
        self.assertEqual(state.as_json(), row)
        sent = ["names \n", *attrs.astuple(state)[1:]]
        self.assertEqual(SourceState.read([sent]), [attrs.evolve(state, name="names \\n")])
        source.answered()
        state = self.after(source, 10)
        self.assertEqual((state.up, state.is_overdue, state.age), (True, False, 10))
        source = self.make()  # without an answer
        source.requested()
        self.assertTrue(self.after(source, 59).up)
        state = self.after(source, 1)
        self.assertEqual((state.up, state.is_overdue, state.why), (False, True, "no answer yet"))
        source.dropped()
        self.assertFalse(source.state().is_overdue)

    def test_steady_source_ignores_short_changes(self) -> None:
        source = self.make(steady=5)
        source.answered()
        for _ in range(3):  # it flaps
            source.failed("slow")
            self.clock.advance(1)
            source.answered()
            self.clock.advance(1)
        self.assertTrue(source.up)
        source.failed("slow")
        self.assertEqual((source.up, len(self.lines())), (False, 1))
        self.clock.advance(9)
        for pause in (4, 1):
            source.answered()
            self.assertFalse(source.up)
            self.clock.advance(pause)
        source.answered()
        self.assertEqual((source.up, len(self.lines())), (True, 1))
        for pause in (5, 0):
            source.failed("slow")
            self.clock.advance(pause)
        source.answered()
        self.assertEqual([self.after(source, pause).up for pause in (4, 1)], [False, True])

    def test_steady_source_that_never_answered_is_down_after_two_failures(self) -> None:
        source = self.make(steady=5)
        for is_up in (True, False):
            source.failed("refused")
            self.assertEqual(source.state().up, is_up)
        source.answered()
        self.assertEqual((source.state().up, self.lines()), (True, []))

    def test_worst_process_counts_and_is_logged_once(self) -> None:
        sources = [self.make(logs=False) for _ in range(3)]
        sources[1].failed("refused")
        log = SourceLog()
        for _ in range(2):
            states = [source.state() for source in sources]
            self.assertEqual([state.up for state in worst(states)], [False])
            log.record(states)
        self.assertEqual(self.lines(), ["names 192.0.2.53:53: refused; names stay"])
        sources[1].answered()
        log.record(source.state() for source in sources)
        self.assertEqual(self.lines(), ["names 192.0.2.53:53: good again"])
