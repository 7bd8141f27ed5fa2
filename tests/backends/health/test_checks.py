import time
from collections.abc import Callable
from random import Random
from typing import Any
from unittest.mock import Mock, patch

from twisted.internet import error
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.backends.pool.pools import Watched, servers
from tests.support.dialler import played
from tests.support.mux import VirtualTime, server_at
from tests.support.peers import PeerFactory, listen, reactor
from txmux.backends.health.checks import CheckPace, HealthChecks, key_of
from txmux.backends.pool.member import Member, ResolvedAddress
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstreams import Upstreams
from txmux.client.io_runtime import IORuntime
from txmux.rules.model import Backend, Check, Server

REFUSED = Failure(error.ConnectionRefusedError(111, "Connection refused"))


class Dialled:
    def __init__(self, server: Server, factory: Any, at: float) -> None:
        self.server = server
        self.factory = factory
        self.at = at
        self.cancelled = False

    def refuse(self) -> None:
        self.factory.clientConnectionFailed(None, REFUSED)

    def cancel(self) -> None:
        self.cancelled = True


class Checked(Watched):
    """A pool whose members are checked, with attempts that the test decides; with `at_once`, each is over at once."""

    def __init__(
        self, *of: Server, check: Check | None = None, pace: CheckPace | None = None, **options: Any
    ) -> None:
        check = check or Check("tcp")
        super().__init__(*of, check=check, **options)
        self.attempts: list[Dialled] = []
        self.results: list[tuple[bool, str]] = []
        self.at_once: Callable[[Dialled], None] = lambda _: None
        dialler, random = played(self.dial), Random(1)
        self.checks = HealthChecks(dialler, self.clock, self.pool, check, self.take, random=random)
        self.checks.pace = pace or CheckPace()
        self.checks.start()

    def dial(self, server: Server, factory: Any, _: float, **__: Any) -> Callable[[], None]:
        dialled = Dialled(server, factory, self.clock.seconds())
        self.attempts.append(dialled)
        self.at_once(dialled)
        return dialled.cancel

    def take(self, member: Member, *, ok: bool, why: str, is_first: bool) -> None:
        self.results.append((ok, why))
        self.pool.check_result(member, ok=ok, why=why)

    def advance(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end:
            self.clock.advance(max(1e-9, calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def targets(self) -> list[str]:
        targets = [dialled.server.text for dialled in self.attempts]
        self.attempts.clear()
        return targets


class ScheduleTests(SynchronousTestCase):
    """When which server is checked. Whatever is dialled is refused."""

    def refusing(self, *of: Server, check: Check | None = None, **options: Any) -> Checked:
        checked = Checked(*of, check=check, **options)
        checked.at_once = Dialled.refuse
        return checked

    def test_checks_are_spread(self) -> None:
        for interval, within in ((2.0, 2.0), (3600.0, 3.0), (60.0, 60.0)):
            many = [f"10.0.0.{number}:80" for number in range(100)]
            check = Check("tcp", interval=interval, fall=1)
            checked = self.refusing(*servers(*many), check=check)
            if interval == 60.0:  # second checks are spread
                checked.advance(3)
                checked.attempts.clear()
            checked.advance(within / 2)
            self.assertIn(len(checked.attempts), range(31, 70))
            checked.advance(within / 2)
            self.assertEqual(sorted(checked.targets()), sorted(many))
        checked.advance(60)
        self.assertEqual(sorted(checked.targets()), sorted(many))

    def test_pace(self) -> None:
        """Servers of one owner have at most so many checks in all; what no longer has any makes room."""
        pace, check = CheckPace(10), Check("tcp", interval=1)
        few = self.refusing(*servers("10.0.0.1:80"), check=check, pace=pace)
        few.advance(10)
        self.assertIn(len(few.attempts), (10, 11))
        some = [f"10.0.1.{number}:80" for number in range(99)]
        many = self.refusing(*servers(*some), check=check, pace=pace)
        for its, count in ((many, 99), (few, 1)):
            its.advance(20)
            its.attempts.clear()
            its.advance(100)
            self.assertEqual(len(its.attempts), 10 * count)
        many.checks.stop()
        few.advance(10)
        few.attempts.clear()
        few.advance(10)
        self.assertEqual(len(few.attempts), 10)

    def test_goes_on_after_an_error(self) -> None:
        """A check that cannot be made, such as for want of memory, is logged; the next one is made after the interval, and only one."""
        for part in ("make_check", "start_check"):
            checked = self.refusing(*servers("10.0.0.1:80"), check=Check("tcp", interval=2))
            with patch.object(checked.checks.probe_target, part, side_effect=MemoryError) as lack:
                checked.advance(10)
            self.assertGreater(lack.call_count, 3)
            self.assertEqual(len(self.flushLoggedErrors(MemoryError)), lack.call_count)
            checked.advance(10)
            checked.attempts.clear()
            checked.advance(20)
            self.assertEqual(len(checked.attempts), 10)

    def test_dead_from_the_beginning(self) -> None:
        for interval in (3.0, 3600.0):
            checked = self.refusing(check=Check("tcp", interval=interval))
            checked.advance(3)
            self.assertEqual([member.state for member in checked.members], [MemberState.DOWN] * 2)
            self.assertEqual(checked.members[0].why, "1 check failed; last: connection refused")
            self.assertEqual(len({dialled.server for dialled in checked.attempts}), 2)

    def test_last(self) -> None:
        checked = self.refusing(*servers("10.0.0.1:80"), check=Check("tcp", interval=3))
        checked.advance(100)
        now, last = checked.clock.seconds(), checked.checks.last_check(checked.members[0])
        assert last is not None
        shown = last.as_json(now)
        ago = now - checked.attempts[-1].at
        self.assertEqual(round(time.time() - shown["last"] - ago), 0)
        self.assertEqual((shown["ok"], shown["result"]), (False, "connection refused"))

    def test_lack_of_descriptors_is_not_reported(self) -> None:
        checked = Checked(*servers("10.0.0.1:80"))
        checked.at_once = Mock(side_effect=OSError(24, "Too many open files"))
        checked.advance(30)
        self.assertIn(len(checked.attempts), (10, 11))
        self.assertEqual(checked.results, [])
        self.assertIs(checked.members[0].state, MemberState.UP)

    def test_interval(self) -> None:
        checked = self.refusing(*servers("10.0.0.1:80"), check=Check("tcp", interval=1))
        checked.advance(5)
        checked.attempts.clear()
        checked.advance(100)
        times = [dialled.at for dialled in checked.attempts]
        self.assertIn(len(times), (99, 100, 101))
        for number, at in enumerate(times):
            self.assertAlmostEqual(at - times[0], number, delta=0.001)
        up, down = servers("10.0.0.1:80"), servers("10.0.0.2:80", down=True)  # disabled
        checked = self.refusing(*up, *down)
        checked.advance(10)
        self.assertEqual(set(checked.targets()), {"10.0.0.1:80"})
        check = Check("tcp", interval=1, timeout=5, fall=1)  # one at a time
        checked = Checked(*servers("10.0.0.1:80"), check=check)
        checked.advance(5)
        self.assertEqual([dialled.cancelled for dialled in checked.attempts], [False])
        checked.advance(11)
        flags = [dialled.cancelled for dialled in checked.attempts]
        self.assertEqual(flags, [True] * (len(flags) - 1) + [False])
        self.assertEqual(checked.results[0], (False, "timed out after 5 s"))


class MembersTests(SynchronousTestCase):
    def setUp(self) -> None:
        (self.name,) = servers("a.example:80")
        self.checked = Checked(self.name, check=Check("tcp", interval=1, timeout=1))

    def lead_to(self, *hosts: str) -> None:
        self.checked.pool.set_addresses(self.name, [ResolvedAddress(host, 80) for host in hosts])
        self.checked.checks.refresh(self.name.text)

    def test_new_and_gone(self) -> None:
        self.checked.advance(5)
        self.assertEqual(self.checked.attempts, [])
        self.lead_to("10.0.0.1", "10.0.0.2")
        self.checked.advance(1)
        self.assertEqual(len(self.checked.attempts), 2)
        under_way = {dialled.server.host: dialled for dialled in self.checked.attempts}
        self.checked.attempts.clear()
        self.lead_to("10.0.0.2", "10.0.0.3")
        self.assertTrue(under_way["10.0.0.1"].cancelled)
        self.assertFalse(under_way["10.0.0.2"].cancelled)
        self.checked.advance(3)
        self.assertEqual(set(self.checked.targets()), {"10.0.0.2:80", "10.0.0.3:80"})
        self.lead_to()
        self.checked.advance(3)
        self.assertEqual(self.checked.targets(), [])
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])

    def test_http_host_is_the_name(self) -> None:
        self.checked = Checked(self.name, check=Check("http"))
        self.lead_to("10.0.0.1")
        self.checked.advance(1)
        (dialled,) = self.checked.attempts
        dialled.factory.buildProtocol(None).makeConnection(transport := StringTransport())
        self.assertIn(b"Host: a.example\r\n", transport.value())
        both = servers("a.example:80", "b.example:80")  # keys differ by server
        pool = Watched(*both).pool
        for server in both:
            pool.set_addresses(server, [ResolvedAddress(f"10.0.0.{at}", 80) for at in (1, 2)])
        self.assertEqual(len({key_of(member) for member in pool.members}), 4)

    def test_stop(self) -> None:
        self.lead_to("10.0.0.1")
        self.checked.checks.stop()
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])
        self.checked.checks.start()
        self.lead_to("10.0.0.1", "10.0.0.2")
        self.checked.advance(1)
        self.checked.checks.stop()
        self.assertEqual([d.cancelled for d in self.checked.attempts], [True, True])
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])
        self.lead_to("10.0.0.3")
        self.checked.checks.stop()
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])
        # So it is if a result stops them.
        self.checked.checks.start()
        self.checked.advance(1)
        self.checked.checks.on_result = lambda *_, **__: self.checked.checks.stop()
        self.checked.attempts[-1].refuse()
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])


class FlappingTests(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.server = PeerFactory()
        self.port = listen(self, self.server)
        check = Check("redis", interval=1, timeout=0.5, rise=2, fall=3)
        backend = Backend("b", (server_at(self.port),), check=check)
        self.runtime = IORuntime(self.time)
        self.sent: list[tuple[bool, str]] = []
        clock, dialler = self.time.clock, self.runtime.dialler
        self.upstreams = Upstreams(clock, self.runtime.clock, dialler, publish=self.publish)
        self.other = Upstreams(clock, self.runtime.clock, dialler, checking=False)
        both = self.upstreams, self.other
        self.members = [process.upstream_of(backend).pool.members[0] for process in both]
        self.upstreams.start()
        self.addCleanup(self.stop)

    def publish(self, backend: str, key: str, ok: bool, why: str) -> None:  # noqa: FBT001 - a message's fields
        self.sent.append((ok, why))
        self.other.apply_check(backend, key, ok=ok, why=why)

    async def stop(self) -> None:
        await self.upstreams.stop()
        self.runtime.clock.drop_idle()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])
        for peer in self.server.peers:
            await peer.is_lost()

    async def another(self) -> None:
        number = len(self.server.peers)
        while len(self.server.peers) == number:
            self.time.advance(0.05)
            await deferLater(reactor, 0)

    async def check(self, answer: bytes) -> None:
        await self.another()
        peer = self.server.peers[-1]
        await peer.has(1)
        if not answer:
            self.time.advance(0.5)
        peer.send(answer)
        await peer.is_lost()

    async def test_flapping(self) -> None:
        """Other processes get the first result, and then only what changes the state, which they take over."""
        good, bad = b"+PONG\r\n", b"-LOADING Redis is loading\r\n"
        failed = "3 checks failed; last: no PONG: -LOADING Redis is loading"
        for answers, finding in (
            ((good, bad, bad, good, bad, b"", good), (True, "")),
            ((bad, b"", bad, bad, bad), (False, failed)),
            ((good, bad, good, good, good), (True, "2 checks succeeded")),
        ):
            for answer in answers:
                await self.check(answer)
            self.assertEqual(self.sent, [finding])
            self.sent.clear()
            for member in self.members:
                self.assertEqual((member.state is MemberState.UP, member.why), finding)

    async def test_other_process_has_an_older_state(self) -> None:
        self.other.apply_check("b", key_of(self.members[1]), ok=False, why="refused")
        self.assertIs(self.members[1].state, MemberState.DOWN)
        await self.check(b"+PONG\r\n")
        self.assertIs(self.members[1].state, MemberState.UP)

    async def test_stop_in_the_middle(self) -> None:
        await self.another()
        await self.stop()
