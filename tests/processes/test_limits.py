"""Limits for sources that hold for several processes together."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import Child
from txmux.frontend.limits.admission import Refused
from txmux.frontend.limits.per_source import SourceLimits, source_of
from txmux.processes.counters import unnamed_file
from txmux.processes.limits import SharedLimits, SharedTable
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from txmux.frontend.limits.admission import Admission

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)

RULES = """
[txmux]
workers = 2
max_connections = 3

[listen plain]
endpoint = 127.0.0.1:0

[listen counted]
endpoint = 127.0.0.1:0
max_connections_per_source = 2

[listen timed]
endpoint = 127.0.0.1:0
max_connections = 2
connection_rate_per_source = 1/s burst=3
"""

# Comes and goes as fast as it can, beside ever new sources, and tells the most that the one source has had.
RACE = """
import random, sys, time
from txmux.frontend.limits.per_source import SourceLimits
from txmux.processes.limits import SharedTable
descriptor, column = map(int, sys.argv[1:])
table = SharedTable(descriptor, 2)
per_source = table.per_source(SourceLimits(connections=1), time.time, column)
most = refused = 0
print("racing", flush=True)
sys.stdin.read(1)
for number in range(20000):
    permit = per_source.enter(7)
    if permit is None:
        refused += 1
    else:
        most = max(most, table._table.total(table._table.find(7, 0)))
        permit.release()
    if not number % 8:
        per_source.enter(random.getrandbits(64)).release()
print("most", most % 2**32, "refused", refused)
"""


class SharedLimitsTest(SynchronousTestCase):
    """Two workers, as their parent sees them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rules = parse(RULES, "x")
        self.limits = SharedLimits.make(self.rules, 2)
        self.addCleanup(self.limits.close)
        self.made = [self.limits.admissions(worker, self.clock.seconds) for worker in (0, 1)]

    def admissions(self, name: str) -> list[Admission]:
        """Make those of a listener in both workers."""
        (listener,) = (one for one in self.rules.listeners if one.name == name)
        return [make(listener) for make in self.made]

    def assert_refused(self, admission: Admission) -> None:
        """Find that the client is not let in."""
        refused = self.assertRaises(Refused, admission.enter, None, CLIENT)
        self.assertEqual(refused.reason, "limit")

    def test_what_is_needed(self) -> None:
        """There is a table for each listener that counts sources, and none for the others."""
        self.assertEqual(len(self.limits.descriptors), 3)

    def test_per_source(self) -> None:
        """What a client has in one worker is missing in the other."""
        one, other = self.admissions("counted")
        permit = one.enter(None, CLIENT)
        other.enter(None, CLIENT)
        self.assert_refused(one)
        self.assert_refused(other)
        one.leave(permit)
        other.enter(None, CLIENT)
        self.assert_refused(one)

    def test_rate(self) -> None:
        """The bucket is one for both, too."""
        one, other = self.admissions("timed")
        for worker in (one, other, one):
            worker.leave(worker.enter(None, CLIENT))
        self.assert_refused(other)
        self.clock.advance(1)
        other.leave(other.enter(None, CLIENT))
        self.assert_refused(one)

    def test_listeners(self) -> None:
        """A listener's own limit is that of both, and so is the service's."""
        one, other = self.admissions("timed")
        one.enter(None, CLIENT)
        other.enter(None, CLIENT)
        self.assert_refused(one)
        plain, beside = self.admissions("plain")
        plain.enter(None, CLIENT)
        self.assert_refused(beside)

    def test_worker_gone(self) -> None:
        """What a worker had that is no more is free again; what the other has is not."""
        gone, left = self.admissions("counted")
        gone.enter(None, CLIENT)
        left.enter(None, CLIENT)
        self.limits.clear(0)
        left.enter(None, CLIENT)
        self.assert_refused(left)


class RaceTest(SynchronousTestCase):
    """Two processes at the same time."""

    def test_race(self) -> None:
        """However they compete, a source never has more than its limit, and nothing is left in the end."""
        table = SharedTable(unnamed_file(), 2)
        self.addCleanup(table.close)
        racers = [self.start_racer(table.descriptor, column) for column in (0, 1)]
        for racer in racers:
            racer.wait_for("racing")
        for racer in racers:
            racer.say(b"go")
        for racer in racers:
            found = racer.wait_for(r"most (\d+) refused \d+")
            self.assertEqual(int(found[1]), 1)
            self.assertEqual(racer.wait(), 0)
        per_source = table.per_source(SourceLimits(connections=1), Clock().seconds, 0)
        self.assertIsNotNone(per_source.enter(7))
        self.assertIsNotNone(per_source.enter(source_of(ip_address("192.0.2.1"))))

    def start_racer(self, descriptor: int, column: int) -> Child:
        """Start one of the processes."""
        own = f"/proc/{os.getpid()}/fd/{descriptor}"
        program = f"import os, sys; sys.argv[1] = os.open({own!r}, os.O_RDWR)\n{RACE}"
        child = Child(sys.executable, "-c", program, "0", str(column), stdin=True)
        self.addCleanup(child.end)
        return child
