"""Active checks: asks the servers of a backend repeatedly whether they are healthy."""

from __future__ import annotations

import math
import time
from collections import deque
from random import Random
from typing import Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txmux.backends.connect.dial import Dialler
from txmux.backends.health.checking import CheckResult, CheckRun, ProbeTarget, Wrap
from txmux.backends.health.probes import with_hint
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import BackendPool
from txmux.classes import frozen
from txmux.rules.model import Check, Server
from txmux.telemetry.documents import CheckDocument

_SOON = 3.0  # seconds within which a new server is checked, even if the interval is longer
MOST_STORED = 50
"""Checks of a server whose results are stored."""


class OnResult(Protocol):
    """Gets the results of checks; `is_first` is true for the first one of a member."""

    def __call__(self, member: Member, *, ok: bool, why: str, is_first: bool) -> object: ...


class CheckPace:
    """How often servers are checked that have something in common: at most so many in a second."""

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._rate = 0.0

    def add(self, rate: float) -> None:
        self._rate += rate

    @property
    def stretch(self) -> float:
        return max(1.0, self._rate / self._most)


class HealthChecks:
    """Checks the members of a pool, and reports the results.

    One process checks for all, so that a server has one connection for it in each interval. `timers` are for the time limits of
    checks, which are all of one length. Others may set `pace` before the start.
    """

    def __init__(
        self,
        dialler: Dialler,
        clock: IReactorTime,
        pool: BackendPool,
        check: Check,
        on_result: OnResult,
        *,
        timers: IReactorTime | None = None,
        wrap: Wrap | None = None,
        random: Random | None = None,
    ) -> None:
        self.pace = CheckPace()
        self.dialler = dialler
        self.clock = clock
        self.timers = timers or clock
        self.backend = pool.backend
        self.check = check
        self.on_result = on_result
        self.probe_target = ProbeTarget(pool.backend, check, wrap)
        self.random = random or Random()  # nosec B311  # noqa: S311 - not for secrets
        self._pool = pool
        # By server, as the rules write it, and address.
        self._watches: dict[str, dict[str, _MemberChecks]] | None = None
        self._servers: dict[str, list[Server]] = {}
        for server in pool.backend.servers:
            self._servers.setdefault(server.text, []).append(server)

    def start(self) -> None:
        self._watches = {}
        self.refresh(*self._servers)

    def stop(self) -> None:
        of_servers, self._watches = self._watches or {}, None
        watches = [watch for its in of_servers.values() for watch in its.values()]
        self.pace.add(-len(watches) / self.check.interval)
        for watch in watches:
            watch.stop()

    def last_check(self, member: Member) -> LastCheck | None:
        watch = (self._watches or {}).get(member.server.text, {}).get(member.target.text)
        return None if watch is None else watch.last

    def refresh(self, *servers: str) -> None:
        """Check the addresses that these servers have now."""
        if self._watches is None:
            return
        before = [self._watches.setdefault(server, {}) for server in servers]
        now = [self._addresses(server) for server in servers]
        more = sum(map(len, now)) - sum(map(len, before))
        self.pace.add(more / self.check.interval)
        for watches, members in zip(before, now, strict=True):
            for address in [address for address in watches if address not in members]:
                watches.pop(address).stop()
            for address, member in members.items():
                if address in watches:
                    watches[address].member = member
                else:
                    watches[address] = _MemberChecks(self, member)

    def _addresses(self, server: str) -> dict[str, Member]:
        return {
            member.target.text: member
            for its in self._servers.get(server, ())
            for member in self._pool.members_of(its)
            if member.state.is_checked and not member.server.final
        }


@frozen
class LastCheck:
    """The result of a server's last check."""

    ok: bool
    started_at: float  # by the clock of the checks
    seconds: float
    why: str
    history: deque[bool]  # the results of the last checks, the latest last

    def as_json(self, now: float) -> CheckDocument:
        return {
            "ok": self.ok,
            "last": time.time() - (now - self.started_at),
            "duration_ms": round(self.seconds * 1000, 1),
            "result": "healthy" if self.ok else self.why,
            "history": list(self.history),
        }


class _MemberChecks:
    _log = Logger()

    def __init__(self, checks: HealthChecks, member: Member) -> None:
        self._checks = checks
        self.member = member
        check = checks.check
        self.last: LastCheck | None = None
        self._history: deque[bool] = deque(maxlen=MOST_STORED)
        self._is_new = True
        self._checking: CheckRun | None = None
        self._result: CheckResult | None = None
        self._started_at = 0.0
        # At random, so that servers are not checked at the same time.
        first = checks.random.random() * min(check.interval, _SOON) * checks.pace.stretch
        self._timer: IDelayedCall = checks.clock.callLater(first, self._start_check)

    def stop(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._checking is not None:
            self._checking.abort()

    def _start_check(self) -> None:
        if self._checking is not None:
            self._checking.abort()  # the check has its result, but the server has not closed
            self._checking = None
        checks, member = self._checks, self.member
        self._started_at = checks.clock.seconds()
        try:
            self._run_check()
        except Exception:  # noqa: BLE001 - memory, for one, may be there again for the next one
            self._log.failure(
                "backend {backend}: cannot check {server}",
                backend=checks.backend.name,
                server=member.target.text,
            )
            if self._checking is not None:
                self._checking.abort()
            if not self._timer.active():  # it has no result
                self._timer = checks.clock.callLater(checks.check.interval, self._start_check)

    def _run_check(self) -> None:
        checks, member = self._checks, self.member
        self._checking = checks.probe_target.make_check(checks.timers, member, self._take_result)
        checks.probe_target.start_check(self._checking, checks.dialler, member)

    def _take_result(self, result: CheckResult) -> None:
        checks = self._checks
        result = attrs.evolve(result, why=with_hint(result.why, checks.backend))
        if result != self._result:
            self._result = result
            self._log.debug(
                "backend {backend}: check of {server}: {result}",
                backend=checks.backend.name,
                server=self.member.target.text,
                result="healthy" if result.ok else result.why,
            )
        passed = checks.clock.seconds() - self._started_at
        self.member.counts.checked(passed, ok=result.ok is not False)
        is_first = self.last is None
        if result.ok is not None:
            self._history.append(result.ok)
            self.last = LastCheck(result.ok, self._started_at, passed, result.why, self._history)
        # Set before the result is reported, whose receiver may stop all checks.
        self._timer = checks.clock.callLater(max(0.0, self._wait() - passed), self._start_check)
        if result.ok is not None:
            checks.on_result(self.member, ok=result.ok, why=result.why, is_first=is_first)

    def _wait(self) -> float:
        interval = self._checks.check.interval * self._checks.pace.stretch
        if self._is_new and interval > _SOON:
            # The first checks come close together, so the second ones are spread.
            interval *= self._checks.random.random()
        self._is_new = False
        return interval


def key_of(member: Member) -> str:
    return f"{member.server.text} {member.target.text}"
