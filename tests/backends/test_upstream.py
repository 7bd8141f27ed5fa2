"""What a process has of its backends, and what it hears of them from another one."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pool.pools import servers
from txmux.backends.health.checks import key_of
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Backend, Check, Refusal


class HeardTest(SynchronousTestCase):
    """A process that is told by another one what checks find."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock, self.clock, _dial, checking=False)

    def backend(self, text: str) -> None:
        check = Check("tcp", rise=2, fall=3)
        self.upstream = self.upstreams.upstream_of(Backend("b", servers(text), check=check))
        self.pool = self.upstream.pool

    def hear(self, times: int, *, ok: bool, key: str = "web.test:80 10.0.0.1:80") -> None:
        for _ in range(times):
            self.upstreams.apply_check("b", key, ok=ok, why="refused")

    def resolve(self, *hosts: str) -> list[MemberState]:
        (server,) = self.pool.backend.servers
        self.pool.set_addresses(server, [ResolvedAddress(host, 80) for host in hosts])
        return [member.state for member in self.pool.members]

    def test_check_of_other_process_is_logged_as_debug(self) -> None:
        self.backend("10.0.0.1:80")
        key = key_of(self.pool.members[0])
        with capturedLogs() as events:
            self.hear(3, ok=False, key=key)
            self.assertEqual(self.pool.members[0].state, MemberState.DOWN)
            self.hear(2, ok=True, key=key)
            self.assertEqual(self.pool.members[0].state, MemberState.UP)
        levels = [event["log_level"].name for event in events]
        self.assertEqual(levels, ["debug", "debug"])

    def test_own_ejection_is_logged_as_warning(self) -> None:
        self.backend("10.0.0.1:80")
        self.upstream = self.upstreams.upstream_of(
            Backend("c", servers("10.0.0.1:80", "10.0.0.2:80"))
        )
        pool = self.upstream.pool
        with capturedLogs() as events:
            for _ in range(5):
                pool.failed(pool.pick())  # type: ignore[arg-type]
        self.assertEqual([event["log_level"].name for event in events], ["warn"])

    def test_name_comes_later(self) -> None:
        self.backend("web.test:80")
        self.hear(7, ok=False)
        self.assertEqual(self.resolve("10.0.0.1", "10.0.0.2"), [MemberState.DOWN, MemberState.UP])
        self.hear(1, ok=True)
        self.assertEqual(self.resolve("10.0.0.1"), [MemberState.DOWN])
        self.hear(1, ok=True)
        self.assertEqual(self.resolve("10.0.0.1"), [MemberState.UP])

    def test_healthy_again_before_lookup(self) -> None:
        self.backend("web.test:80")
        self.hear(3, ok=False)
        self.hear(1, ok=True)
        self.hear(2, ok=False)
        self.assertEqual(self.resolve("10.0.0.1"), [MemberState.UP])

    def test_freed(self) -> None:
        """Nothing keeps one that is not used any longer, so that its servers' health is that of the rules that follow."""
        upstream = Upstream(Backend("b", servers("127.0.0.1:80")), self.clock, Refusal.CLOSE)
        upstream.pool.retire()
        pool = weakref.ref(upstream.pool)
        gc.disable()
        self.addCleanup(gc.enable)
        del upstream
        self.assertIsNone(pool())

    def test_bounded(self) -> None:
        self.backend("web.test:80")
        for number in range(2000):
            self.hear(1, ok=False, key=f"web.test:80 {number}")
        self.assertEqual(len(self.upstream._early), 1000)


def _dial(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing is to be connected")
