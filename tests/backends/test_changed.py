"""What a process goes on knowing of its backends when the rules change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import attrs
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import servers
from tests.support.folders import make_folder
from txmux.backends.health.checks import key_of
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Backend, Check, Ejection, Rules, ServerTLS, Settings

if TYPE_CHECKING:
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.backends.upstreams import PreparedUpstreams

ONCE = Ejection(failures=1, within=10, seconds=10, lone=True)


class ChangedTest(SynchronousTestCase):
    """Backends of the same names, whose keys or servers change."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock, self.clock, _dial)
        self.upstreams.start()

    def prepare(self, *backends: Backend) -> PreparedUpstreams:
        named = {backend.name: backend for backend in backends}
        return self.upstreams.prepare(Rules(Path("rules"), Settings(), (), (), named))

    def change(self, *texts: str, **keys: Any) -> Upstream:
        backend = Backend("b", servers(*texts), **keys)
        self.prepare(backend).commit()
        return self.upstreams.upstream_of(backend)

    def pick(self, upstream: Upstream) -> Member:
        found = upstream.pool.pick()
        assert found is not None
        return found  # type: ignore[return-value]

    def test_same(self) -> None:
        self.assertIs(self.change("10.0.0.1:80"), self.change("10.0.0.1:80"))

    def test_counts(self) -> None:
        old = self.change("10.0.0.1:80")
        member = self.pick(old)
        new = self.change("10.0.0.1:80 max_connections=1", queue=1)
        (same,) = new.pool.members
        self.assertEqual((same.connections, new.pool.connections), (1, 1))
        room: list[bool] = []
        queue = new.queue
        assert queue is not None

        def turn() -> bool:
            room.append(same.has_room())
            return room[-1]

        queue.add_client(turn, lambda: None)
        old.pool.connected(member)
        old.pool.released(member)
        self.assertEqual((same.connections, room), (0, [True]))

    def test_not_installed(self) -> None:
        """What cannot be imported any more changes nothing, and once it can be, it is as if nothing had been."""
        named = Backend("b", servers("web.test:80"), check=Check("tcp"))
        for module in ("addresses", "lookup"):
            name = f"txmux.backends.names.{module}"
            with patch.dict(sys.modules, {name: None}):
                self.assertRaises(ImportError, self.prepare, named)
        self.assertEqual(self.upstreams.all(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_turns(self) -> None:
        first = self.pick(self.change("10.0.0.1:80", "10.0.0.2:80"))
        second = self.pick(self.change("10.0.0.1:80", "10.0.0.2:80", retries=7))
        self.assertNotEqual(first.target.text, second.target.text)

    def test_ejection(self) -> None:
        old = self.change("10.0.0.1:80", "10.0.0.2:80", eject=ONCE)
        out = self.pick(old)
        old.pool.failed(out)
        self.clock.advance(6)
        new = self.change("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", eject=ONCE)
        states = [member.state for member in new.pool.members]
        self.assertEqual(states, [MemberState.EJECTED, MemberState.UP, MemberState.UP])
        self.clock.advance(4)
        probe = next(
            found for found in iter(lambda: self.pick(new), None) if found.target == out.target
        )
        new.pool.connected(probe)
        self.assertIs(out.state, MemberState.UP)
        self.assertIn(out, {self.pick(old) for _ in range(2)})

    def test_ejection_off(self) -> None:
        old = self.change("10.0.0.1:80", eject=ONCE, check=Check("tcp", fall=1))
        old.pool.failed(self.pick(old))
        self.assertIs(self.change("10.0.0.1:80", eject=None).pool.members[0].state, MemberState.UP)
        old = self.change("10.0.0.1:80", check=Check("tcp", fall=1))
        key = key_of(old.pool.members[0])
        old.apply_check(key, ok=False, why="refused")
        with_check = self.change("10.0.0.1:80", check=Check("tcp", fall=1), retries=1)
        self.assertIs(with_check.pool.members[0].state, MemberState.DOWN)
        self.assertIs(self.change("10.0.0.1:80").pool.members[0].state, MemberState.UP)

    def test_down(self) -> None:
        old = self.change("10.0.0.1:80")
        new = self.change("10.0.0.1:80 down")
        self.assertEqual(
            [old.pool.members[0].state, new.pool.members[0].state],
            [MemberState.UP, MemberState.DISABLED],
        )

    def test_check_counts_once_for_all_rules(self) -> None:
        upstreams = self.upstreams = Upstreams(self.clock, self.clock, _dial, checking=False)
        upstreams.start()
        check = Check("tcp", fall=2)
        self.change("10.0.0.1:80", check=check)
        (member,) = self.change("10.0.0.1:80", check=check, retries=5).pool.members
        upstreams.apply_check("b", key_of(member), ok=False, why="refused")
        self.assertIs(member.state, MemberState.UP)
        upstreams.apply_check("b", key_of(member), ok=False, why="refused")
        self.assertIs(member.state, MemberState.DOWN)

    def test_told_once(self) -> None:
        old = self.change("10.0.0.1:80", eject=ONCE)
        new = self.change("10.0.0.1:80", eject=ONCE, retries=7)
        with capturedLogs() as events:
            new.pool.failed(self.pick(new))
        self.assertEqual(len([e for e in events if "no server is up" in e["log_format"]]), 1)
        self.assertIs(old.pool.members[0].state, MemberState.EJECTED)

    def test_checks(self) -> None:
        self.change("10.0.0.1:80", check=Check("tcp"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.change("10.0.0.1:80", "10.0.0.2:80", check=Check("tcp"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.change("10.0.0.1:80")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abandoned(self) -> None:
        old = self.change("10.0.0.1:80", check=Check("tcp"))
        calls = self.clock.getDelayedCalls()
        prepared = self.prepare(attrs.evolve(old.backend, retries=7, check=None))
        prepared.abandon()
        self.assertEqual(self.clock.getDelayedCalls(), calls)
        self.assertIs(self.upstreams.upstream_of(old.backend), old)
        self.assertEqual(len(self.upstreams._upstreams), 1)

    def test_problems(self) -> None:
        ca = make_folder(self) / "ca.pem"
        prepared = self.prepare(
            Backend("b", servers("10.0.0.1:80"), tls=ServerTLS(ca=ca)),
            Backend("c", servers("10.0.0.1:80"), tls=ServerTLS(ca=ca)),
        )
        self.assertEqual([text[:11] for text in prepared.problems], ["[backend b]", "[backend c]"])
        prepared.abandon()


def _dial(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is to be dialled")
