"""Tests of when servers are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.backends.health.checked import Checked, Dialled
from tests.backends.pool.pools import servers
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Check

if TYPE_CHECKING:
    from txmux.rules.model import Server


class ScheduleTests(SynchronousTestCase):
    """When which server is checked. Whatever is dialled is refused."""

    def refusing(self, *of: Server, check: Check | None = None, **options: Any) -> Checked:
        checked = Checked(*of, check=check, **options)
        checked.at_once = Dialled.refuse
        return checked

    def test_first_checks_are_random_and_soon(self) -> None:
        for interval, within in ((2.0, 2.0), (3600.0, 3.0)):
            many = [f"10.0.0.{number}:80" for number in range(100)]
            check = Check("tcp", interval=interval, fall=1)
            checked = self.refusing(*servers(*many), check=check)
            checked.advance(within / 2)
            self.assertGreater(len(checked.attempts), 30)
            self.assertLess(len(checked.attempts), 70)
            checked.advance(within / 2)
            self.assertEqual(sorted(checked.targets()), sorted(many))

    def test_second_checks_are_spread(self) -> None:
        many = [f"10.0.0.{number}:80" for number in range(100)]
        checked = self.refusing(*servers(*many), check=Check("tcp", interval=60, fall=1))
        checked.advance(3)
        checked.attempts.clear()
        checked.advance(30)
        self.assertGreater(len(checked.attempts), 30)
        self.assertLess(len(checked.attempts), 70)
        checked.advance(30)
        self.assertEqual(len(set(checked.targets())), 100)
        checked.advance(60)
        self.assertEqual(sorted(checked.targets()), sorted(many))

    def test_dead_from_the_beginning(self) -> None:
        for interval in (3.0, 3600.0):
            checked = self.refusing(check=Check("tcp", interval=interval))
            checked.advance(3 + 2.1)
            self.assertEqual([member.state for member in checked.members], [MemberState.DOWN] * 2)
            self.assertEqual(
                checked.members[0].why, "checks that failed: 3, the last one: connection refused"
            )
            for member in checked.members:
                times = [d.at for d in checked.attempts if d.server == member.target]
                self.assertLess(times[2] - times[0], 2.2)
                self.assertLessEqual(len(times), 4)

    def test_interval(self) -> None:
        checked = self.refusing(*servers("10.0.0.1:80"), check=Check("tcp", interval=1))
        checked.advance(5)
        checked.attempts.clear()
        checked.advance(100)
        times = [dialled.at for dialled in checked.attempts]
        self.assertIn(len(times), (99, 100, 101))
        for number, at in enumerate(times):
            self.assertAlmostEqual(at - times[0], number, delta=0.001)

    def test_one_at_a_time(self) -> None:
        check = Check("tcp", interval=1, timeout=5, fall=1)
        checked = Checked(*servers("10.0.0.1:80"), check=check)
        checked.advance(5)
        self.assertEqual([dialled.cancelled for dialled in checked.attempts], [False])
        checked.advance(11)
        flags = [dialled.cancelled for dialled in checked.attempts]
        self.assertEqual(flags, [True] * (len(flags) - 1) + [False])
        self.assertEqual(checked.results[0][1:], (False, "timed out after 5 s"))

    def test_disabled(self) -> None:
        up, down = servers("10.0.0.1:80"), servers("10.0.0.2:80", down=True)
        checked = self.refusing(*up, *down)
        checked.advance(10)
        self.assertEqual(set(checked.targets()), {"10.0.0.1:80"})

    def test_lack_of_descriptors_is_not_reported(self) -> None:
        checked = Checked(*servers("10.0.0.1:80"))

        def fail(_: Dialled) -> None:
            raise OSError(24, "Too many open files")

        checked.at_once = fail
        checked.advance(30)
        self.assertIn(len(checked.attempts), (10, 11))
        self.assertEqual(checked.results, [])
        self.assertIs(checked.members[0].state, MemberState.UP)


class MembersTests(SynchronousTestCase):
    """Members come and go, and checks with them."""

    def setUp(self) -> None:
        (self.name,) = servers("a.example:80")
        self.checked = Checked(self.name, check=Check("tcp", interval=1, timeout=1))

    def lead_to(self, *hosts: str) -> None:
        self.checked.pool.set_addresses(self.name, [ResolvedAddress(host, 80) for host in hosts])
        self.checked.checks.refresh()

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
        checked = Checked(self.name, check=Check("http"))
        checked.pool.set_addresses(self.name, [ResolvedAddress("10.0.0.1", 80)])
        checked.checks.refresh()
        checked.advance(3)
        request = checked.checks._watches["a.example:80 10.0.0.1:80"]._checking._probe.request  # type: ignore[index, union-attr]
        self.assertIn(b"Host: a.example\r\n", request)

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

    def test_stopped_by_result(self) -> None:
        self.lead_to("10.0.0.1")
        self.checked.advance(1)

        def stop(*_: object, **__: object) -> None:
            self.checked.checks.stop()

        self.checked.checks.on_result = stop
        self.checked.attempts[0].refuse()
        self.assertEqual(self.checked.clock.getDelayedCalls(), [])
