"""A test case with a server that the test plays, and single checks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.mux import VirtualTime, server_at
from tests.support.peers import PeerFactory, listen, reactor
from txmux.backends.health.checking import CheckResult, CheckRun
from txmux.backends.health.probes import probe
from txmux.rules.model import Check
from txmux.tcp.io_runtime import IORuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.backends.connect.dial import Dial
    from txmux.rules.model import Server

WELL = CheckResult(ok=True)


def ill(why: str) -> CheckResult:
    """Make what a failed check finds."""
    return CheckResult(ok=False, why=why)


class CheckingTestCase(TestCase):
    """A server that the test plays, and one check at a time."""

    timeout = 300

    def setUp(self) -> None:
        self.time = VirtualTime()
        self.server = PeerFactory()
        self.found: list[CheckResult] = []
        self._runtimes = (IORuntime(self.time), IORuntime(self.time, "portable"))

    def engines(self) -> list[Dial]:
        return [runtime.dial for runtime in self._runtimes]

    def check(
        self,
        check: Check | str,
        target: Server | None = None,
        *,
        dial: Dial | None = None,
        wrap: Callable[[Any], Any] = lambda factory: factory,
    ) -> CheckRun:
        if isinstance(check, str):
            check = Check(check)  # type: ignore[arg-type]
        target = target or server_at(listen(self, self.server))
        question = probe(check, target.host, target.port, tls=False)
        self.found = []
        checking = CheckRun(self.time.clock, question, check.timeout, self.found.append)
        checking.start(dial or self.engines()[0], target, wrap)
        return checking

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0)

    async def finding(self) -> CheckResult:
        await self.until(lambda: self.found)
        (finding,) = self.found
        return finding

    def has_received(self, checking: CheckRun, count: int) -> bool:
        return checking._received == count

    def assert_nothing_left(self) -> None:
        self.assertEqual(self._timers(), [])

    async def is_over(self) -> None:
        await self.until(lambda: not self._timers())

    def _timers(self) -> object:
        for runtime in self._runtimes:
            runtime.clock.drop_idle()
        return self.time.clock.getDelayedCalls()
