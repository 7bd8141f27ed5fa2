from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.bans import Banned
from txmux.rules.optional import states
from txmux.serving.ending import DeniedClients, GradualEnd
from txmux.telemetry.documents import STATES
from txmux.wire.proxyprotocol.header import Address

_MANY = 1000
"""Connections: more than are looked at in one turn."""


@attrs.define
class _Record:
    client: str
    facts: dict[str, str] = attrs.field(factory=dict)
    reason: str | None = None


class _Connection:
    admitted = True
    state = "relaying"

    def __init__(self, number: int) -> None:
        self.record = _Record(f"192.0.{number >> 8}.{number & 255}:5")

    def end(self, reason: str) -> None:
        self.record.reason = reason


class GradualTests(SynchronousTestCase):
    def test_one_after_the_other_in_the_second_half(self) -> None:
        clock, ended = Clock(), []
        connections: Any = [_Connection(number) for number in range(_MANY)]
        connections[0].state, connections[1].record.reason = "connecting", "done"
        GradualEnd(clock, lambda: connections).end_all_within(200, lambda: ended.append("all"))
        clock.advance(100)
        for seconds in range(101):
            drained = [one for one in connections if one.record.reason == "drained"]
            self.assertEqual(len(drained), 10 * seconds - min(seconds, 2))
            self.assertEqual(ended, ["all"] * (seconds == 100))
            clock.advance(1)
        self.assertEqual(clock.getDelayedCalls(), [])


class DeniedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.denied: set[str] = set()
        self.connections = [_Connection(number) for number in range(_MANY)]
        self.asked, self.takes = 0, 0.0
        self.settings = self
        self.end_denied = True
        self.banned = Banned(float)
        self.configuration = self.admission = self
        factories: Any = [self]
        self.checks = DeniedClients(self.clock, lambda: factories)

    def serves(self, client: Address) -> bool:
        self.asked += 1
        self.clock.rightNow += self.takes
        return str(client.host) not in self.denied

    def ended(self) -> set[str]:
        found = [one.record for one in self.connections if one.record.reason == "denied"]
        return {one.client.rpartition(":")[0] for one in found}

    def test_under_attack(self) -> None:
        """While somebody else is banned all the time, each is ended soon; one after another is not looked at for each."""
        for moment in range(1000):
            self.denied.add(str(ip_address(int(ip_address("192.0.0.0")) + moment)))
            self.checks.check_all()
            self.clock.advance(0.005)
        self.assertGreater(len(self.ended()), 800)
        self.assertLess(self.asked, 30 * _MANY)
        self.clock.advance(0.2)
        for _ in range(10):
            self.clock.advance(0)
        self.assertEqual(self.ended(), self.denied)
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_connections(self) -> None:
        """While bans arrive all the time, at most a third of it is spent on checks."""
        self.takes = 0.0005
        self.checks.check_all()
        self.clock.advance(0)
        self.assertEqual(self.asked, _MANY)
        self.checks.check_all()
        self.clock.advance(0.9)
        self.assertEqual(self.asked, _MANY)
        self.clock.advance(0.2)
        self.assertEqual(self.asked, 2 * _MANY)

    def test_stopped(self) -> None:
        """After the end nothing is looked at; where no listener wants it, neither."""
        self.checks.check_all()
        self.checks.stop_checks()
        self.end_denied = False
        self.checks.check_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.asked, 0)

    def test_stopped_by_a_check(self) -> None:
        """A worker that stops goes on at once when a check has ended its last connection."""
        first = self.connections[0]
        self.denied.add("192.0.0.0")

        def end(reason: str) -> None:
            first.record.reason = reason
            self.checks.stop_checks()

        self.patch(first, "end", end)
        self.checks.check_all()
        self.clock.advance(0)
        self.assertEqual(self.ended(), self.denied)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_banned_without_a_server(self) -> None:
        """Without `end_denied`, a ban ends those that have no server yet, whatever stage they are at; one that has sent a server its hello has one."""
        self.end_denied = False
        for connection, state in zip(self.connections, STATES, strict=False):
            connection.state = state
        self.banned.change([(4, 8, 192 << 16, None)])
        self.checks.check_all()
        for _ in range(10):
            self.clock.advance(0)
        ended = [one.state for one in self.connections if one.record.reason == "denied"]
        self.assertEqual(
            ended,
            [
                "introduction", *states(), "peeking", "handshaking", "awaiting-hello", "connecting",
            ],
        )  # fmt: skip
