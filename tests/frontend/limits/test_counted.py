"""What is counted over changes of the rules."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.frontend.limits.admission import Admission, Refused
from txmux.frontend.limits.counted import Counted
from txmux.rules.model import Listener, Rate

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)


class CountedTest(SynchronousTestCase):
    """Admissions of one process, under one version of the rules after another."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counted = Counted(self.clock.seconds)

    def admission(self, name: str = "x", most: int = 0, **keys: Any) -> Admission:
        """Make what the next rules have."""
        return self.counted.admission(Listener(name, **keys), most)

    def assert_full(self, admission: Admission) -> None:
        """Find that nobody is let in any more."""
        self.assertRaises(Refused, admission.enter, None, CLIENT)

    def test_listener(self) -> None:
        """A limit counts those who came when there was none, and who leaves leaves room."""
        old = self.admission()
        old.enter(None, CLIENT)
        new = self.admission(max_connections=1)
        self.admission("y", max_connections=1).enter(None, CLIENT)
        self.assert_full(new)
        old.leave(None)
        new.enter(None, CLIENT)

    def test_service(self) -> None:
        """The same holds for the limit of all listeners together."""
        old = self.admission("gone")
        old.enter(None, CLIENT)
        new = self.admission("new", most=1)
        self.assert_full(new)
        old.leave(None)
        new.enter(None, CLIENT)

    def test_sources(self) -> None:
        """A source keeps its connections and its bucket."""
        old = self.admission(max_connections_per_source=2)
        permit = old.enter(None, CLIENT)
        new = self.admission(max_connections_per_source=1)
        self.assert_full(new)
        old.leave(permit)
        new.enter(None, CLIENT)
        rate = Rate(1, 1)
        slow = self.admission("slow", connection_rate_per_source=rate)
        slow.enter(None, CLIENT)
        self.assert_full(self.admission("slow", connection_rate_per_source=rate))

    def test_forgotten(self) -> None:
        """What nobody counts any more takes no memory."""
        admission = self.admission(max_connections_per_source=2)
        self.assertEqual((len(self.counted._listeners), len(self.counted._sources)), (1, 1))
        del admission
        self.assertEqual((len(self.counted._listeners), len(self.counted._sources)), (0, 0))
