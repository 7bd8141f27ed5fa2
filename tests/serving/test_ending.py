from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import Watched, servers
from txmux.access.bans import Banned
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Check
from txmux.rules.optional import states
from txmux.rules.reading.parser import parse
from txmux.serving import ending
from txmux.serving.ending import DeniedClients, EndOnDown, GradualEnd
from txmux.telemetry.documents import STATES
from txmux.telemetry.record import ConnectionRecord
from txmux.wire.proxyprotocol.header import Address

_RULES = (
    "[listen x]\nendpoint = 127.0.0.1:0\n[route back]\nmatch = any\nbackend = here\n"
    "[backend here]\nserver = 127.0.0.1:1\n"
)
_MANY = 1000
"""Connections: more than are looked at in one turn."""


class _Connection:
    admitted = True
    state = "relaying"

    def __init__(self, number: int) -> None:
        client = f"192.0.{number >> 8}.{number & 255}:5"
        self.record: Any = ConnectionRecord(0.0, str(number), "x", client)

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

    def test_those_that_wait_for_a_server(self) -> None:
        """They have the same time once they are served, as those have that may move to another process; but not for ever."""
        clock, ended = Clock(), list[float]()
        connections: Any = [_Connection(number) for number in range(4)]
        gradual = GradualEnd(clock, lambda: connections)
        connections[1].state = connections[2].state = "connecting"
        gradual.may_move = lambda one: one is connections[3]
        gradual.end_all_within(20, lambda: ended.append(clock.seconds()), longest_wait=30)
        for moment, drained in (
            (11, set()), (13, {0}), (19.5, {0}), (20.5, {0, 4}), (44.5, {0, 4}), (46.5, {0, 1, 4}),
            (49, {0, 1, 4}), (50.5, {0, 1, 4}),
        ):  # fmt: skip
            clock.pump([0.1] * round((moment - clock.seconds()) * 10))
            found = {int(one.record.id) for one in connections if one.record.reason}
            self.assertEqual(found, drained, moment)
            if moment == 11:
                connections.append(_Connection(4))
            elif moment == 20.5:
                clock.pump([0.1] * 45)
                connections[1].state = "relaying"
            elif moment == 44.5:
                gradual.may_move = lambda _: False
        self.assertAlmostEqual(ended.pop(), 50.0)
        gradual.call_later(5, lambda: ended.append(0))
        gradual.cancel_calls()
        gradual.cancel_calls()
        self.assertEqual((clock.getDelayedCalls(), ended), ([], []))

    def test_each_of_a_server_that_is_down(self) -> None:
        """Very many take several turns."""
        clock = Clock()
        connections: Any = [_Connection(number) for number in range(450)]
        connections[0].record.reason = "done"
        GradualEnd(clock, lambda: connections).end_each(iter(connections))
        for count in (199, 449, 449):
            self.assertEqual(sum(one.record.reason == "server-down" for one in connections), count)
            clock.advance(0)
        self.assertEqual((connections[0].record.reason, clock.getDelayedCalls()), ("done", []))

    def test_servers_that_go_down_together(self) -> None:
        """All connections are looked at once for many of them, and those to one that is up again go on."""
        clock, looks, upstreams = Clock(), list[float](), cast("Upstreams", None)
        hosts = [f"10.0.0.{number}:80" for number in range(1, 5)]
        pool = Watched(*servers(*hosts), check=Check("tcp"), end_on_down="yes").pool
        connections: Any = [_Connection(number) for number in range(4)]
        for connection, host in zip(connections, hosts, strict=True):
            connection.record.backend, connection.record.server = "b", host

        def seen() -> Any:
            looks.append(clock.seconds())
            return connections

        end = EndOnDown(GradualEnd(clock, seen), clock.seconds, seen, upstreams)
        for member in pool.members[:3]:
            pool.set_checked(member, ok=False, why="")
            end.look_for(pool.backend, member)
            clock.advance(0.05)
        pool.set_checked(pool.members[1], ok=True, why="")
        clock.pump([0.05] * 20)
        self.assertEqual([round(at, 2) for at in looks], [0.05, 0.25])
        reasons = [connection.record.reason for connection in connections]
        self.assertEqual(reasons, ["server-down", None, "server-down", None])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_of_what_was_removed(self) -> None:
        """Of routes and backends that are back, or came later under these names, none ends."""
        rules = parse(_RULES, Path("rules.ini"))
        connections: Any = [_Connection(number) for number in range(6)]
        for one, (version, route, backend) in zip(
            connections,
            ((1, "gone", "web"), (2, "gone", "web"), (1, "a", "gone"), (1, "a", "web"), (0, "back", "x"), (1, "a", "here")),
            strict=True,
        ):  # fmt: skip
            one.configuration = SimpleNamespace(version=version)
            one.record.route, one.record.backend = route, backend
        removed = {"routes": ["gone", "back"], "backends": ["gone", "here"]}
        found = ending.connections_of_removed(connections, rules, 2, **removed)
        self.assertEqual([one.record.id for one in found], ["0", "2"])
        later = {"routes": ["back"], "backends": []}
        ending.forget_restored([removed, later], rules)
        self.assertEqual(removed, {"routes": ["gone"], "backends": ["gone"]})
        self.assertEqual(later, {"routes": [], "backends": []})


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

    def test_where_clients_are_now(self) -> None:
        """Who has moved counts by the new address, who has none is not looked up; and none is ended twice, or unadmitted."""
        moved, unix, early, ended = self.connections[:4]
        moved.record.note(moved_to="198.51.100.1:5")
        unix.record.client = "unix"
        early.admitted = False
        ended.record.reason = "done"
        self.denied.update({"198.51.100.1", "192.0.0.0", "192.0.0.2", "192.0.0.3", "192.0.0.4"})
        self.checks.check_all()
        self.clock.advance(0)
        found = [one.record.reason for one in self.connections[:6]]
        self.assertEqual(found, ["denied", None, None, "done", "denied", None])

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
