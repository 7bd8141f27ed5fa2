"""Tests of pools: who may be chosen, and servers whose addresses come and go."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import SPARE, Watched, servers
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.pool import Unavailable, is_name
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Check, Ejection
from txmux.rules.reading.endpoints import server


class ChoiceTests(SynchronousTestCase):
    """Who is chosen."""

    def test_balance(self) -> None:
        pool = Watched()
        self.assertEqual([pool.pick() for _ in range(4)], pool.members * 2)
        pool = Watched(balance="first")
        self.assertEqual({pool.pick() for _ in range(4)}, {pool.members[0]})

    def test_affinity_is_passed_on(self) -> None:
        pool = Watched(balance="source-hash")
        for number in range(20):
            client = f"10.0.0.{number}"
            self.assertIs(pool.pick(client=client), pool.pick(client=client))

    def test_tried(self) -> None:
        pool = Watched()
        first, second = pool.members
        self.assertIs(pool.pick(first), second)
        self.assertIs(pool.pick(second), first)
        self.assertIs(pool.pool.pick("", pool.members), Unavailable.NO_SERVER)

    def test_down(self) -> None:
        pool = Watched(*servers("a:1"), *servers("10.0.0.1:80", down=True), check=Check("tcp"))
        (member,) = pool.members
        self.assertIs(member.state, MemberState.DISABLED)
        for _ in range(5):
            pool.pool.check_result(member, ok=True, why="")
        self.assertIs(pool.pool.pick(), Unavailable.NO_SERVER)

    def test_backup(self) -> None:
        pool = Watched(
            *servers("10.0.0.1:80"), *servers("10.0.0.9:80", backup=True), eject=Ejection(1)
        )
        main, backup = pool.members
        self.assertEqual({pool.pick() for _ in range(5)}, {main})
        pool.take_out(main)
        self.assertIs(pool.pick(), backup)
        pool.clock.advance(10)
        self.assertIs(pool.pick(), main)
        self.assertIs(pool.pick(), backup)
        pool.pool.connected(main)
        self.assertIs(pool.pick(), main)

    def test_backup_of_one_connection(self) -> None:
        pool = Watched(*servers("10.0.0.1:80"), *servers("10.0.0.9:80", backup=True))
        main, backup = pool.members
        self.assertIs(pool.pick(main), backup)
        self.assertIs(pool.pool.pick("", (main, backup)), Unavailable.NO_SERVER)


class LimitTests(SynchronousTestCase):
    """``max_connections``."""

    def test_backend(self) -> None:
        pool = Watched(max_connections=2)
        first, second = pool.pick(), pool.pick()
        self.assertIs(pool.pool.pick(), Unavailable.FULL)
        pool.pool.connected(first)
        self.assertIs(pool.pool.pick(), Unavailable.FULL)
        pool.pool.released(first)
        pool.pick()
        self.assertIs(pool.pool.pick(), Unavailable.FULL)
        pool.pool.abandoned(second)
        pool.pool.failed(pool.pick())
        self.assertEqual(pool.pool.connections, 1)

    def test_server(self) -> None:
        pool = Watched(
            *servers("10.0.0.1:80", max_connections=1),
            *servers("10.0.0.2:80", max_connections=2),
            *servers("10.0.0.9:80", backup=True),
            balance="first",
        )
        first, second, _ = pool.members
        self.assertEqual([pool.pick() for _ in range(3)], [first, second, second])
        self.assertIs(pool.pool.pick(), Unavailable.FULL)
        self.assertIs(pool.pool.pick("", (second,)), Unavailable.FULL)
        pool.pool.released(first)
        self.assertIs(pool.pick(), first)

    def test_none_up_is_not_full(self) -> None:
        pool = Watched(
            *servers("10.0.0.1:80", max_connections=1), eject=Ejection(1), fallback=SPARE
        )
        pool.take_out(pool.members[0])
        self.assertIs(pool.pool.pick(), Unavailable.NO_SERVER)

    def test_retry_before_waiting_clients(self) -> None:
        pool = Watched(max_connections=1)
        first, second = pool.members
        asked: list[object] = []
        pool.pool.on_room = lambda: asked.append(pool.pool.pick())
        self.assertIs(pool.pick(), first)
        self.assertIs(pool.pool.retry(first, "", (first,)), second)
        self.assertEqual(asked, [Unavailable.FULL])
        self.assertIs(pool.pool.retry(second, "", (first, second)), Unavailable.NO_SERVER)
        self.assertEqual(asked[1:], [second])


class NameTests(SynchronousTestCase):
    """Servers whose addresses come and go."""

    def setUp(self) -> None:
        (self.server,) = servers("db.example.com:5432", weight=2, max_connections=1)
        self.watched = Watched(self.server, eject=Ejection(1))
        self.pool = self.watched.pool
        self.set("10.0.0.1", "10.0.0.2")

    def set(self, *hosts: str) -> None:
        self.pool.set_addresses(self.server, [ResolvedAddress(host, 5432) for host in hosts])

    def places(self) -> list[str]:
        return [member.target.text for member in self.pool.members]

    def test_which(self) -> None:
        for text, expected in {
            "db:1": True,
            "tcp:db:1": True,
            "10.0.0.1:1": False,
            "[::1]:1": False,
            "unix:/run/x.sock": False,
            "tls:db:1": False,
        }.items():
            self.assertEqual(is_name(server(text)), expected, text)
            self.assertEqual(len(Watched(server(text)).members), not expected, text)

    def test_not_known_yet(self) -> None:
        self.assertIs(Watched(self.server).pool.pick(), Unavailable.NO_SERVER)

    def test_member(self) -> None:
        self.set("2001:db8::1")
        (member,) = self.pool.members
        self.assertEqual(member.target.text, "[2001:db8::1]:5432")
        self.assertEqual((member.target.kind, member.target.host), ("tcp", "2001:db8::1"))
        self.assertEqual((member.name, member.weight), ("db.example.com", 2))
        self.assertIs(member.server, self.server)

    def test_those_that_stay(self) -> None:
        _, second = self.pool.members
        self.watched.take_out(second)
        self.set("10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.2")
        self.assertEqual(self.places(), ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"])
        self.assertIs(self.pool.members[1], second)
        self.assertIs(second.state, MemberState.EJECTED)

    def test_those_that_go(self) -> None:
        first = self.watched.pick()
        self.set("10.0.0.2")
        second = self.watched.pick()
        self.assertEqual(second.target.host, "10.0.0.2")
        self.assertIs(self.pool.pick(), Unavailable.FULL)
        self.pool.released(first)
        self.pool.released(second)
        self.assertEqual(self.pool.connections, 0)

    def test_those_that_return(self) -> None:
        """One that comes back is the same as before while it has connections, so that its limit holds."""
        first = self.watched.pick()
        self.set("10.0.0.2")
        self.set("10.0.0.1")
        self.assertEqual(self.pool.members, [first])
        self.assertIs(self.pool.pick(), Unavailable.FULL)
        self.set()
        self.assertIs(self.pool.pick(), Unavailable.NO_SERVER)
        self.pool.released(first)
        self.set("10.0.0.1")
        self.assertEqual((self.places(), first.connections), (["10.0.0.1:5432"], 0))

    def test_service_records(self) -> None:
        addresses = [
            ResolvedAddress("10.0.0.1", 1, weight=0, priority=20, name="spare.example.com"),
            ResolvedAddress("10.0.0.2", 2, weight=30, priority=10),
            ResolvedAddress("10.0.0.3", 3, weight=10, priority=10),
        ]
        self.pool.set_addresses(self.server, addresses)
        spare, heavy, light = self.pool.members
        self.assertEqual((spare.weight, heavy.weight, light.weight), (2, 60, 20))
        self.assertEqual((spare.name, heavy.name), ("spare.example.com", "db.example.com"))
        self.assertEqual(spare.target.port, 1)
        self.watched.take_out(heavy)
        self.watched.take_out(light)
        self.assertIs(self.watched.pick(), spare)

    def test_room(self) -> None:
        asked: list[object] = []
        self.watched.pick()
        self.watched.pick()
        self.pool.on_room = lambda: asked.append(self.pool.pick())
        self.set("10.0.0.1", "10.0.0.2", "10.0.0.3")
        self.assertEqual(asked, [self.pool.members[2]])
