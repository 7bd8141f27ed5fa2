"""Pools whose members are checked, with attempts that the test decides, and a clock that it moves."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.python.failure import Failure

from tests.backends.pool.pools import Watched
from txmux.backends.health.checks import HealthChecks, apply_result
from txmux.rules.model import Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.rules.model import Server

REFUSED = Failure(error.ConnectionRefusedError(111, "Connection refused"))


class Dialled:
    """An attempt to connect, which stays as it is until the test says otherwise."""

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
    """A pool whose members are checked, with attempts that the test decides.

    Attributes:
        attempts: All there have been; after `refusing` or `taking` each is over at once.
        results: What was told.
    """

    def __init__(self, *of: Server, check: Check | None = None, **options: Any) -> None:
        check = check or Check("tcp")
        super().__init__(*of, check=check, **options)
        self.attempts: list[Dialled] = []
        self.results: list[tuple[str, bool, str]] = []
        self.at_once: Callable[[Dialled], None] = lambda _: None
        self.checks = HealthChecks(
            self.dial, self.clock, self.pool, check, self.take, random=Random(1)
        )
        self.checks.start()

    def dial(self, server: Server, factory: Any, _: float) -> Callable[[], None]:
        dialled = Dialled(server, factory, self.clock.seconds())
        self.attempts.append(dialled)
        self.at_once(dialled)
        return dialled.cancel

    def take(self, key: str, *, ok: bool, why: str) -> None:
        self.results.append((key, ok, why))
        apply_result(self.pool, key, ok=ok, why=why)

    def advance(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end:
            self.clock.advance(max(1e-9, calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def targets(self) -> list[str]:
        targets = [dialled.server.text for dialled in self.attempts]
        self.attempts.clear()
        return targets
