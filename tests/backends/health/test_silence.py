"""Servers of TCP that are ejected since clients get no byte from them."""

import itertools
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import Watched, servers
from txmux.backends.health.silence import SilenceWatch
from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Check, Ejection
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.testing.predicates import calls_in

EJECT = Ejection(unanswered=3, after=5.0, seconds=60.0)
_OUT = "10.0.0.1:80: up -> ejected"


def _answer(member: Member) -> None:
    member.counts.answered(ProcessCounters().backend("b"), 1.0)


class SilenceTest(SynchronousTestCase):
    def begin(
        self, eject: Ejection = EJECT, *texts: str, check: Check | None = None
    ) -> tuple[Watched, Member]:
        options: dict[str, Any] = {"eject": eject, "check": check}
        watched = Watched(*servers(*texts), **options)
        watch = SilenceWatch(watched.clock)
        watch.add(watched.pool)
        self.addCleanup(lambda: self.assertEqual(watched.clock.getDelayedCalls(), []))
        self.addCleanup(watch.stop)
        return watched, watched.members[0]

    def ask(self, watched: Watched, member: Member, *times: float) -> None:
        """Have clients of several sources ask, each after so many seconds."""
        for source, seconds in enumerate(times):
            watched.clock.pump([1.0] * int(seconds))
            member.counts.asked(source)
        watched.clock.advance(1)

    def test_clients_in_a_row(self) -> None:
        watched, member = self.begin()
        self.ask(watched, member, 0, 0, 9)
        watched.clock.pump([1.0] * 4)
        self.assertEqual(watched.changes, [])
        watched.clock.advance(1)
        self.assertEqual(watched.changes, [_OUT])
        hint = "it may expect a PROXY header: see proxy_protocol"
        self.assertEqual(member.health.why, f"no byte to 3 clients in a row for 5 s; {hint}")
        watched, member = self.begin()
        self.ask(watched, member, 0, 0)
        _answer(member)
        self.ask(watched, member, 2, 0)
        watched.clock.pump([1.0] * 60)
        self.assertEqual(watched.changes, [])

    def test_one_source_is_not_enough(self) -> None:
        """Nor are two, unless the rules say so."""
        for unanswered, sources, states in ((3, 2, "UP"), (7, 2, "UP"), (7, 3, "EJECTED"), (2, 2, "EJECTED"), (1, 1, "EJECTED")):  # fmt: skip
            watched, member = self.begin(Ejection(unanswered=unanswered, after=5.0))
            for number in range(9):
                member.counts.asked(number % sources)
                watched.clock.advance(1)
            watched.clock.pump([1.0] * 9)
            self.assertEqual(member.state.name, states, (unanswered, sources))
        # It stays, unless the rules say otherwise.
        for lone, state in ((False, MemberState.UP), (True, MemberState.EJECTED)):
            eject = Ejection(unanswered=1, after=2.0, lone=lone)
            watched, member = self.begin(eject, "10.0.0.1:80")
            self.ask(watched, member, 0)
            watched.clock.pump([1.0] * 9)
            self.assertIs(member.state, state)

    def test_fewer_are_enough_once_it_is_back(self) -> None:
        """But of as many sources."""
        watched, member = self.begin(attrs.evolve(EJECT, unanswered=5))
        self.ask(watched, member, 0, 0, 0, 0, 0)
        watched.clock.pump([1.0] * 70)
        others = [other for other in watched.members if other is not member]
        watched.pool.connected(watched.pick(*others))
        self.assertIs(member.state, MemberState.UP)
        self.ask(watched, member, 0, 0)
        watched.clock.pump([1.0] * 9)
        self.assertIs(member.state, MemberState.UP)
        self.ask(watched, member, 0, 0, 0)
        watched.clock.pump([1.0] * 5)
        self.assertIs(member.state, MemberState.EJECTED)
        watched.clock.pump([1.0] * 60)
        watched.pool.connected(watched.pick(*others))
        self.ask(watched, member, 0)
        _answer(member)
        self.ask(watched, member, 1, 0, 0, 0)
        watched.clock.pump([1.0] * 30)
        self.assertIs(member.state, MemberState.UP)

    def test_once_its_checks_find_it_well(self) -> None:
        """Clients from before then do not eject it."""
        watched, member = self.begin(check=Check("tcp", fall=3, rise=3))
        for ok in (False, True):
            self.ask(watched, member, 0, 0, 0)
            for _ in range(3):
                watched.pool.check_result(member, ok=ok, why="refused")
            watched.clock.advance(1)
        watched.clock.pump([1.0] * 20)
        self.assertIs(member.state, MemberState.UP)
        self.ask(watched, member, 0, 0)
        watched.clock.pump([1.0] * 20)
        self.assertIs(member.state, MemberState.UP)

    def test_servers_without_clients_cost_a_comparison_each(self) -> None:
        """Also of as many backends, which have no timers of their own."""
        of_one, clock = [f"10.0.0.{n}:80" for n in range(250)], Clock()
        watch = SilenceWatch(clock)
        for texts in (*([text] for text in of_one), of_one):
            watch.add(Watched(*servers(*texts), clock=clock, eject=EJECT).pool)
        self.assertLess(calls_in(lambda: clock.advance(1)), 3 * len(of_one) + 50)
        watch.stop()

    second = st.tuples(st.integers(0, 2), st.sampled_from((*9 * (False,), True)))

    @given(st.lists(second, min_size=15, max_size=40))
    def test_never_while_it_answers_in_time(self, seconds: list[tuple[int, bool]]) -> None:
        """Whatever comes, a server is out only if it has answered none of enough clients for `after`."""
        watched, member = self.begin()
        clients = quiet = 0
        sources = itertools.count()
        for asked, answered in seconds:
            for _ in range(asked):
                member.counts.asked(next(sources))
            if answered:
                _answer(member)
            clients = 0 if answered else clients + asked
            quiet = quiet + 1 if clients >= 3 else 0
            watched.clock.advance(1)
            if watched.changes:
                self.assertGreater(quiet, EJECT.after)
                return
