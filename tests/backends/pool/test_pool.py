from collections import Counter
from functools import partial
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import SPARE, Watched, servers
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.pool import Availability, Unavailable, is_name
from txmux.backends.pool.server_health import BackendHealth, MemberState
from txmux.rules.model import Check, Ejection
from txmux.rules.reading.endpoints import server
from txmux.telemetry.counting.counter_groups import SERVER

ONCE = Ejection(1, seconds=60.0, lone=True)
_HOSTS = st.frozensets(st.integers(1, 3), max_size=3)
_WITH_BACKUP = (*servers("10.0.0.1:80"), *servers("10.0.0.9:80", backup=True))


class ChoiceTests(SynchronousTestCase):
    def test_balance_and_down(self) -> None:
        pool = Watched(balance="source-hash")
        for number in range(20):
            client = f"10.0.0.{number}"
            self.assertIs(pool.pick(client=client), pool.pick(client=client))
        pool = Watched(*servers("a:1"), *servers("10.0.0.1:80", down=True), check=Check("tcp"))
        (member,) = pool.members
        self.assertIs(member.state, MemberState.DISABLED)
        for _ in range(5):
            pool.pool.check_result(member, ok=True, why="")
        self.assertIs(pool.pool.pick(), Unavailable.NO_SERVER)
        # Connections of other processes count.
        pool = Watched(balance="least-connections")
        first, second = pool.pick(), pool.pick()
        pool.pool.backend_health.expect({first.server.text: 3})
        self.assertEqual([pool.pick() for _ in range(3)], [second] * 3)

    def test_backup(self) -> None:
        pool = Watched(*_WITH_BACKUP, eject=Ejection(1))
        main, backup = pool.members
        self.assertEqual({pool.pick() for _ in range(5)}, {main})
        pool.take_out(main)
        self.assertIs(pool.pick(), backup)
        pool.clock.advance(10)
        self.assertIs(pool.pick(), main)
        self.assertIs(pool.pick(), backup)
        pool.pool.connected(main)
        self.assertIs(pool.pick(), main)
        # Backups take what full servers cannot.
        of = [attrs.evolve(one, max_connections=1) for one in _WITH_BACKUP]
        pool = Watched(*of, queue=1)
        (main, backup), pick = pool.members, pool.pool.pick
        self.assertEqual([pick(), pick()], [main, Unavailable.FULL])
        pool = Watched(*of, eject=Ejection(1))
        (main, backup), pick = pool.members, pool.pool.pick
        self.assertEqual([pick(), pick(), pick()], [main, backup, Unavailable.FULL])
        pool.pool.failed(backup)
        # One that is ejected gets no clients of a full one.
        self.assertEqual([pick(), pick("", (main,))], [Unavailable.FULL, backup])

    def test_server_twice(self) -> None:
        """A server that the rules have twice has one state, and each pool counts both, with those of older rules."""
        health, of = BackendHealth(), servers("10.0.0.1:80", "10.0.0.2:80")
        of += servers("10.0.0.1:80", weight=2)
        older = Watched(*of[:2], backend_health=health, check=Check("tcp"))
        pool = Watched(*of, backend_health=health, clock=older.clock, check=Check("tcp"))
        older.pool.retire()
        pool.pool.commit()
        first, last, _ = pool.members
        for member, ok, expected in (
            (first, False, Availability.SOME),
            (last, False, Availability.NONE),
            (first, True, Availability.SOME),
            (last, True, Availability.ALL),
        ):
            pool.pool.set_checked(member, ok=ok, why="")
            found = pool.pool.availability, older.pool.availability
            self.assertEqual(found, (expected, expected))
        self.assertEqual([one for one in pool.changes if "->" not in one], ["short", "up again"])

    def test_final(self) -> None:
        """A share that is refused stays refused, and moves neither to the others nor from them."""
        of = servers("10.0.0.1:80", "10.0.0.2:80"), servers("10.0.0.9:80", final=True, weight=2)
        pool = Watched(*of[0], *of[1], eject=Ejection(1, lone=False), check=Check("tcp"))
        first, second, final = pool.members
        for _ in range(5):
            for _ in range(10):
                after = pool.pool.next_after(pool.pick(first, second), "", (final,))
                self.assertIs(after, Unavailable.NO_SERVER)
            picked = [pool.pick() for _ in range(20)]
            self.assertEqual([picked.count(one) for one in (first, second, final)], [5, 5, 10])
        self.assertEqual(pool.changes, [])
        pool.take_out(first)
        self.assertEqual({pool.pick() for _ in range(9)}, {second, final})
        pool.pool.check_result(second, ok=False, why="")
        self.assertEqual(pool.changes[-1], "short")
        self.assertIs(pool.pool.pick(), first)  # the last resort, as without the other
        pool = Watched(*of[0][:1], *of[1], eject=Ejection(1, lone=False))
        first, final = pool.members  # one server beside a final one is not ejected
        pool.pool.failed(pool.pick(final))
        self.assertIs(first.state, MemberState.UP)
        pool = Watched(*of[1])
        self.assertIs(pool.pool.pick(), Unavailable.NO_SERVER)

    def test_ejection_that_is_over(self) -> None:
        """A client tries such a server, unless it is a final one since, beside which no other is left."""
        both = servers("10.0.0.1:80", "10.0.0.2:80")
        for final in (False, True):
            before = Watched(*both, eject=ONCE, check=Check("tcp"))
            self.assertFalse(before.pool.has_due)
            before.take_out(before.members[0])
            before.pool.check_result(before.members[1], ok=False, why="")
            its: Any = {"backend_health": before.pool.backend_health, "clock": before.clock}
            pool = Watched(attrs.evolve(both[0], final=final), both[1], eject=ONCE, **its)
            self.assertFalse(pool.pool.has_due)
            pool.clock.advance(60)
            self.assertIs(pool.pool.has_due, not final)

    def test_retry_before_waiting_clients(self) -> None:
        pool = Watched(max_connections=1)
        first, second = pool.members
        asked: list[object] = []
        pool.pool.on_room = lambda: asked.append(pool.pool.pick())
        self.assertIs(pool.pick(), first)
        self.assertIs(pool.pool.next_after(first, "", (first,)), second)
        self.assertEqual(asked, [Unavailable.FULL])
        self.assertIs(pool.pool.next_after(second, "", (first, second)), Unavailable.NO_SERVER)
        self.assertEqual(asked[1:], [second])


class NameTests(SynchronousTestCase):
    def setUp(self) -> None:
        (self.server,) = servers("db.example.com:5432", weight=2, max_connections=1)
        self.watched = Watched(self.server, eject=Ejection(1))
        self.pool = self.watched.pool
        self.set("10.0.0.1", "10.0.0.2")

    def set(self, *hosts: str) -> None:
        self.pool.set_addresses(self.server, [ResolvedAddress(host, 5432) for host in hosts])

    def places(self) -> list[str]:
        return [member.target.text for member in self.pool.members]

    def test_member(self) -> None:
        self.set("2001:db8::1")
        (member,) = self.pool.members
        self.assertEqual(member.target.text, "[2001:db8::1]:5432")
        self.assertEqual((member.target.kind, member.target.host), ("tcp", "2001:db8::1"))
        self.assertEqual((member.name, member.full_weight), ("db.example.com", 2))
        self.assertIs(member.server, self.server)
        self.assertIs(Watched(self.server).pool.pick(), Unavailable.NO_SERVER)  # not known yet
        for text, expected in {
            "db:1": True, "tcp:db:1": True, "10.0.0.1:1": False, "[::1]:1": False,
            "unix:/run/x.sock": False, "tls:db:1": False,
        }.items():  # fmt: skip
            self.assertEqual(is_name(server(text)), expected, text)
            self.assertEqual(len(Watched(server(text)).members), not expected, text)
        addresses = [
            ResolvedAddress("10.0.0.1", 1, weight=0, priority=20, name="spare.example.com"),
            ResolvedAddress("10.0.0.2", 2, weight=30, priority=10),
            ResolvedAddress("10.0.0.3", 3, weight=10, priority=10),
        ]
        self.pool.set_addresses(self.server, addresses)
        spare, heavy, light = self.pool.members
        self.assertEqual((spare.full_weight, heavy.full_weight, light.full_weight), (2, 60, 20))
        self.assertEqual((spare.name, heavy.name), ("spare.example.com", "db.example.com"))
        self.assertEqual(spare.target.port, 1)
        self.watched.take_out(heavy)
        self.watched.take_out(light)
        self.assertIs(self.watched.pick(), spare)

    @given(st.lists(st.tuples(st.integers(0, 5), _HOSTS, st.integers(0, 9), st.booleans())))
    def test_counts(self, steps: list[tuple[int, frozenset[int], int, bool]]) -> None:
        """How many members have each state is right whatever addresses names have, and whatever checks find that rules without any undo."""
        names = (*servers("a.example:80", "b.example:80"), *servers("a.example:80", weight=2))
        health, checks = BackendHealth(), (Check("tcp"), None)
        both = [Watched(*names, check=check, backend_health=health).pool for check in checks]
        for number, hosts, checked, ok in steps:
            addresses = [ResolvedAddress(f"10.0.0.{host}", 80) for host in sorted(hosts)]
            both[number // 3].set_addresses(names[number % 3], addresses)
            if members := both[0].members:
                both[0].set_checked(members[checked % len(members)], ok=ok, why="")
            for pool in both:
                states = [member.state for member in pool.members]
                self.assertEqual(+pool.states, Counter(states))
                is_all = all(map(pool.members_of, names)) and {*states} == {MemberState.UP}
                some = Availability.SOME if MemberState.UP in states else Availability.NONE
                self.assertIs(pool.availability, Availability.ALL if is_all else some)

    def test_those_that_stay(self) -> None:
        _, second = self.pool.members
        self.watched.take_out(second)
        self.set("10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.2")
        self.assertEqual(self.places(), ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"])
        self.assertIs(self.pool.members[1], second)
        self.assertIs(second.state, MemberState.EJECTED)

    def test_those_that_go(self) -> None:
        """One that comes back is the same as before while it has connections, so that its limit holds."""
        first = self.watched.pick()
        self.set("10.0.0.2")
        second = self.watched.pick()
        self.assertEqual(second.target.host, "10.0.0.2")
        self.assertIs(self.pool.pick(), Unavailable.FULL)
        self.pool.released(second)
        self.set("10.0.0.1")
        self.assertEqual(self.pool.members, [first])
        self.assertIs(self.pool.pick(), Unavailable.FULL)
        self.set()
        self.assertIs(self.pool.pick(), Unavailable.NO_SERVER)
        self.pool.released(first)
        self.assertEqual(self.pool.connections, 0)
        self.set("10.0.0.1", "10.0.0.2")
        self.assertEqual(self.places(), ["10.0.0.1:5432", "10.0.0.2:5432"])
        self.assertFalse({*map(id, self.pool.members)} & {id(first), id(second)})
        self.assertEqual(first.connections, 0)

    def test_room(self) -> None:
        asked: list[object] = []
        self.watched.pick()
        self.watched.pick()
        self.pool.on_room = lambda: asked.append(self.pool.pick())
        self.set("10.0.0.1", "10.0.0.2", "10.0.0.3")
        self.assertEqual(asked, [self.pool.members[2]])

    def test_several_freed_at_once(self) -> None:
        """Each that waits for a slot is called for one of them, and nobody for the others."""
        health, called = self.pool.backend_health, list[int]()
        health.connections = 5
        for number in range(2):
            health.call_when_freed(partial(called.append, number))
        health.connections = 4
        health.call_freed()
        self.assertEqual(called, [0])
        health.connections = 1
        health.call_freed()
        self.assertEqual(called, [0, 1])


class EjectionTests(SynchronousTestCase):
    def failures(self, pool: Watched, *times: float) -> None:
        for time in times:
            pool.clock.advance(time - pool.clock.seconds())
            pool.pool.failed(pool.pick(*pool.members[1:]))

    def test_window(self) -> None:
        """Failures that are farther apart are forgiven, in whatever window, if a connection has stood between them."""
        pool = Watched()
        for at in (0, 6, 11, 17, 22):
            self.failures(pool, at)
            pool.pool.connected(pool.members[0])
        self.assertIs(pool.members[0].state, MemberState.UP)
        self.failures(pool, 26.9)
        self.assertIs(pool.members[0].state, MemberState.EJECTED)
        # Failures in a row count however long each has taken: a server that answers nobody takes all the time there is.
        pool = Watched()
        self.failures(pool, 0, 20)
        self.assertIs(pool.members[0].state, MemberState.UP)
        self.failures(pool, 40)
        self.assertIs(pool.members[0].state, MemberState.EJECTED)
        self.assertEqual(pool.members[0].why, "3 connections in a row failed")
        pool = Watched(eject=None)
        self.failures(pool, *[0.0] * 20)
        self.assertEqual(pool.changes, [])
        pool = Watched(eject=ONCE)  # one after which another server is tried
        first, second = pool.members
        self.assertIs(pool.pool.next_after(pool.pick(second), "", (first,)), second)
        self.assertIs(first.state, MemberState.EJECTED)

    def test_probe(self) -> None:
        pool = Watched()
        first, second = pool.members
        self.failures(pool, 0, 5, 10)
        self.assertEqual(first.why, "3 connections failed within 10 s")
        pool.clock.advance(9.9)
        self.assertEqual({pool.pick() for _ in range(4)}, {second})
        pool.clock.advance(0.1)
        self.assertEqual(sorted(pool.pick() is first for _ in range(4)), [False] * 3 + [True])
        self.assertIs(first.state, MemberState.PROBING)
        pool.pool.connected(first)
        self.assertEqual({pool.pick(), pool.pick()}, {first, second})
        changes = ["up -> ejected", "ejected -> probing", "probing -> up"]
        self.assertEqual(pool.changes, [f"10.0.0.1:80: {change}" for change in changes])
        # A server whose probe fails, or is given up, stays out.
        pool = Watched()
        first, second = pool.members
        self.failures(pool, 1, 1, 1, 11)
        self.assertIs(first.state, MemberState.EJECTED)
        pool.clock.advance(9)
        self.assertEqual({pool.pick() for _ in range(4)}, {second})
        pool.clock.advance(1)
        self.assertIs(pool.pick(second), first)
        self.assertEqual(pool.pool.since(first), 20)  # it has been out all the time
        pool.pool.connected(first)
        self.assertEqual(pool.pool.since(first), 0)
        pool = Watched()  # probe given up
        first, second = pool.members
        self.failures(pool, 0, 0, 0)
        pool.clock.advance(10)
        pool.pool.abandoned(pool.pick(second))
        self.assertIs(first.state, MemberState.EJECTED)
        self.assertIs(pool.pick(second), first)
        pool = Watched(*servers("10.0.0.1:80"), eject=ONCE, fallback=SPARE)
        pool.take_out(pool.members[0])
        pool.clock.advance(60)
        found = [pool.pool.pick() for _ in range(3)]  # the others go to the fallback
        self.assertEqual(found, [*pool.members, *[Unavailable.NO_SERVER] * 2])

    def test_late_news(self) -> None:
        """What was on its way when a server was taken out neither brings it back nor prolongs its time; of a drained one it is not told."""
        pool = Watched()
        first, second = pool.members
        late = [pool.pick(second) for _ in range(2)]
        self.failures(pool, 0, 0, 0)
        pool.clock.advance(5)
        pool.pool.failed(late[0])
        pool.pool.connected(late[1])
        self.assertIs(first.state, MemberState.EJECTED)
        pool.clock.advance(5)
        self.assertIs(pool.pick(second), first)
        pool = Watched(eject=ONCE)
        first, second = pool.members
        late, first.health.held = [pool.pick(second)], MemberState.DRAIN
        pool.pool.failed(late[0])
        self.assertEqual((first.health.state, pool.changes), (MemberState.EJECTED, []))

    def test_of_each_client(self) -> None:
        """What is another server for each client is never ejected, neither for failures nor for flows without an answer."""
        for texts in (("{local}:80", "{local}:81"), ("udp:{local}:80", "udp:{local}:81")):
            pool = Watched(*servers(*texts), eject=Ejection(unanswered=1))
            self.failures(pool, 0, 0, 0, 0)
            pool.pool.unanswered(pool.pick(*pool.members[1:]), 1)
            self.assertEqual({member.state for member in pool.members}, {MemberState.UP})
            self.assertEqual(pool.changes, [])
        pool = Watched(*servers("{local}:80", "{local}:81"))  # adopted of each client
        first, second = pool.members
        adopted = {"192.0.2.1:81": second, "[2001:db8::1]:80": first, "1.2.3.4:8": None}
        self.assertEqual({text: pool.pool.adopt(text) for text in adopted}, adopted)


class LastResortTests(SynchronousTestCase):
    """When checks and ejections leave no server, and there is no fallback, those that are ejected are used."""

    def shortage(self, **options: Any) -> Watched:
        pool = Watched(eject=Ejection(1), **options)
        for member in pool.members:
            pool.take_out(member)
        return pool

    def test_all_ejected(self) -> None:
        pool = self.shortage()
        for _ in range(5):
            first, second = pool.pick(), pool.pick()
            self.assertEqual({first, second}, {*pool.members})
            pool.pool.failed(first)
            pool.pool.failed(second)
        ejected = [f"10.0.0.{number}:80: up -> ejected" for number in (1, 2)]
        self.assertEqual(pool.changes, [*ejected, "short"])
        pool = self.shortage()
        pool.clock.advance(10)
        self.assertEqual({pool.pick() for _ in range(2)}, {*pool.members})
        self.assertEqual([member.state for member in pool.members], 2 * [MemberState.PROBING])
        self.assertEqual({pool.pick() for _ in range(2)}, {*pool.members})

    def test_end(self) -> None:
        """A connection that stands brings its server back, and then the other is left alone until its time is over."""
        pool = self.shortage()
        first, second = pool.members
        pool.pool.connected(pool.pick(second))
        self.assertIs(first.state, MemberState.UP)
        self.assertEqual({pool.pick() for _ in range(4)}, {first})
        pool.take_out(first)
        self.assertEqual(pool.changes.count("short"), 2)
        pool = Watched(eject=Ejection(1), check=Check("tcp", fall=1))  # down
        first, second = pool.members
        pool.take_out(first)
        self.assertNotIn("short", pool.changes)
        pool.pool.check_result(second, ok=False, why="")
        self.assertEqual(pool.changes[-1], "short")
        self.assertEqual({pool.pick() for _ in range(3)}, {first})
        pool.pool.check_result(first, ok=False, why="")
        self.assertIs(pool.pool.pick(), Unavailable.NO_SERVER)
        pool = Watched(*_WITH_BACKUP, eject=Ejection(1))
        main, backup = pool.members
        pool.take_out(main)
        self.assertEqual({pool.pick() for _ in range(3)}, {backup})
        pool.take_out(backup)
        self.assertEqual({pool.pick() for _ in range(3)}, {main})
        self.assertIs(pool.pick(main), backup)
        (name,) = servers("db.example.com:80")  # other addresses
        pool = Watched(name, eject=Ejection(1))
        addresses = [ResolvedAddress(f"10.0.0.{number}", 80) for number in (1, 2)]
        pool.pool.set_addresses(name, addresses)
        first, _ = pool.pool.members
        pool.take_out(first)
        pool.pool.set_addresses(name, addresses[:1])
        self.assertEqual(pool.changes[-1], "short")
        self.assertIs(pool.pick(), first)

    def test_lone_server(self) -> None:
        pool = Watched(*servers("10.0.0.1:80"), eject=Ejection(1, lone=True))
        (member,) = pool.members
        pool.take_out(member)
        self.assertIs(pool.pick(), member)
        pool.clock.advance(10)
        self.assertIs(pool.pick(), member)
        self.assertIs(member.state, MemberState.PROBING)
        self.assertIs(pool.pick(), member)
        # A connection that has tried all that are up comes to one that is ejected, which it does not bring back.
        pool = Watched(eject=Ejection(1))
        first, second = pool.members
        pool.take_out(first)
        self.assertIs(pool.pick(second), first)
        pool.pool.connected(first)
        self.assertIs(first.state, MemberState.EJECTED)
        self.assertNotIn("short", pool.changes)


class CheckTests(SynchronousTestCase):
    def results(self, pool: Watched, results: str) -> list[str]:
        pool.changes.clear()
        for result in results:
            pool.pool.check_result(pool.members[0], ok=result == "+", why="refused")
        return [line.partition(": ")[2] for line in pool.changes]

    def test_checks_that_recover(self) -> None:
        """Those that have taken it down do not count, nor those of a server that an operator has drained."""
        pool = Watched(check=Check("tcp", rise=2, fall=3))
        (member, *_), at = pool.members, SERVER.names.index("checks recovered")
        for results, count in (("+++", 0), ("-++-+", 2), ("--", 2), ("-++", 2), ("+-+", 3)):
            self.results(pool, results)
            self.assertEqual(member.counts.cells[at], count, results)
        member.health.held = MemberState.DRAIN
        self.results(pool, "-+-+")
        self.assertEqual(member.counts.cells[at], 3)

    def test_what_takes_down_and_brings_back(self) -> None:
        pool = Watched(check=Check("tcp", rise=2, fall=3))
        member = pool.members[0]
        self.assertEqual(self.results(pool, "+--+--"), [])
        self.assertEqual(self.results(pool, "-"), ["up -> down"])
        self.assertEqual(member.why, "3 checks failed; last: refused")
        self.assertNotIn(member, {pool.pick() for _ in range(4)})
        self.assertEqual(self.results(pool, "+-+"), [])
        self.assertEqual(self.results(pool, "+"), ["down -> up"])
        self.assertIn(member, {pool.pick() for _ in range(4)})
        self.assertEqual(self.results(Watched(), "-" * 9), [])  # without checks
        pool = Watched(check=Check("tcp", fall=1))  # connections do not bring back
        first, second = pool.members
        late = [pool.pick(second) for _ in range(4)]
        self.results(pool, "-")
        pool.pool.connected(late[0])
        for member in late[1:]:
            pool.pool.failed(member)
        self.assertIs(first.state, MemberState.DOWN)
        # A check that succeeds does not end an ejection; checks that fail do, and their end is a new beginning.
        pool = Watched(check=Check("tcp", rise=1, fall=1))
        member = pool.members[0]
        pool.take_out(member)
        self.assertEqual(self.results(pool, "+"), [])
        self.assertIs(member.state, MemberState.EJECTED)
        self.assertEqual(self.results(pool, "-+"), ["ejected -> down", "down -> up"])
        pool.pool.failed(pool.pick(pool.members[1]))
        self.assertIs(member.state, MemberState.UP)
        # Nothing is known of a server before; later, and with a change of rules, `fall` counts.
        pool = Watched(check=Check("tcp", rise=2, fall=3))
        self.assertEqual(self.results(pool, "-"), ["up -> down"])
        self.assertEqual(pool.members[0].why, "1 check failed; last: refused")
        self.assertEqual(self.results(pool, "++--"), ["down -> up"])
        self.assertEqual(self.results(pool, "-"), ["up -> down"])
        pool = Watched(check=Check("tcp", rise=1, fall=1), eject=Ejection(unanswered=2))
        first, second = pool.members  # flows without an answer before it came up
        pool.pool.unanswered(pool.pick(second), 1)
        self.results(pool, "-+")
        pool.pool.unanswered(pool.pick(second), 2)
        self.assertIs(first.state, MemberState.UP)
        # Flows without an answer of one source say nothing of a server: the source may be the one that gets none.
        pool = Watched(eject=Ejection(unanswered=4))
        first, second = pool.members
        for source in (1, 1, 1, 1, 1, 2, 3):
            self.assertIs(first.state, MemberState.UP)
            pool.pool.unanswered(pool.pick(second), source)
        found = (first.state, first.why)
        self.assertEqual(found, (MemberState.EJECTED, "7 flows in a row unanswered"))

    def test_state_under_other_rules(self) -> None:
        """A server stays out only as long as the rules have what would bring it back."""
        check, eject = Check("tcp", fall=1), Ejection(1)
        for before, rules, after in (
            (MemberState.DOWN, {"check": check, "eject": None}, MemberState.DOWN),
            (MemberState.DOWN, {"eject": eject}, MemberState.UP),
            (MemberState.EJECTED, {"eject": eject}, MemberState.EJECTED),
            (MemberState.EJECTED, {"check": check, "eject": None}, MemberState.UP),
        ):
            health = BackendHealth()
            old = Watched(check=check, eject=eject, backend_health=health)
            if before is MemberState.DOWN:
                self.results(old, "-")
            else:
                old.take_out(old.members[0])
            self.assertIs(old.members[0].state, before)
            new = Watched(backend_health=health, **rules)
            new.pool.commit()
            self.assertIs(new.members[0].state, after, (before, rules))
