import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.failures import Failures


class FailuresTest(SynchronousTestCase):
    def test_until_it_works_or_for_a_minute(self) -> None:
        clock = Clock()
        failures = Failures[str](clock.seconds)
        for number in range(1002):  # of so many sources, not all are counted
            one = failures.add("a", "refused", number.to_bytes(2))
        self.assertEqual(failures.add("a", "later", b"\0\0"), one)
        self.assertEqual((one.why, one.count, len(one.sources)), ("refused", 1003, 1000))
        self.assertEqual((one.sources[b"\0\0"], one.last), (2, 0.0))
        self.assertLess(abs(one.since - time.time()), 60)
        clock.advance(1)
        failures.add("b", "reset", "unix")
        failures.end("works")
        for seconds, failing, ended in (
            (58.5, {"a", "b"}, {"works"}), (0.5, {"b"}, {"works"}), (0.5, {"b"}, {"works"}), (0.5, set(), set()),
        ):  # fmt: skip
            clock.advance(seconds)
            failures.end_old()
            self.assertEqual((failures.failing.keys(), failures.ended.keys()), (failing, ended))
        failures.add("b", "reset", "unix")
        failures.end("b")
        self.assertEqual((failures.failing, failures.ended), ({}, {"b": 61.0}))
