"""Active checks: the servers of a backend are asked, again and again, whether they are healthy."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.logger import Logger

from txmux.backends.health.checking import ProbeTarget

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txmux.backends.connect.dial import Dial
    from txmux.backends.health.checking import Checking, Finding, Wrap
    from txmux.backends.pool.member import Member
    from txmux.backends.pool.pool import BackendPool
    from txmux.rules.model import Check

_SOON = 3.0
"""Seconds within which a new server is asked for the first time, however long the interval."""

_KEPT = 50
"""Checks of a server whose results are kept."""

_AGAIN = 1.0
"""Seconds at most between the first checks of a server that has not been healthy yet."""


class OnResult(Protocol):
    """Whoever wants to know what checks find: `apply_result`, or what tells other processes."""

    def __call__(self, key: str, *, ok: bool, why: str) -> None:
        """Take a result.

        Args:
            key: Which member it is, as `key_of` names it.
            ok: Whether it is healthy.
            why: What is wrong, in a few words.
        """
        ...


class HealthChecks:
    """Checks the members of a pool, and tells what it finds. Nothing of the pool is changed here.

    One process checks, so that a check costs one connection an interval. It hands the results to all pools of this
    backend, in this process and in others, with `apply_result`.

    Args:
        dial: Connects.
        clock: For intervals and time limits; the reactor, since they are of many lengths.
        pool: Whose members are checked, but for those that are out of use.
        check: What is asked, and how often.
        on_result: Told of each result.
        wrap: Makes of a client factory one that speaks TLS to a server of a name, such as `BackendTLS.wrap`;
            ``None`` if TLS is not spoken.
        random: Where chance comes from.
    """

    def __init__(
        self,
        dial: Dial,
        clock: IReactorTime,
        pool: BackendPool,
        check: Check,
        on_result: OnResult,
        *,
        wrap: Wrap | None = None,
        random: Random | None = None,
    ) -> None:
        self.dial = dial
        self.clock = clock
        self.backend = pool.backend
        self.check = check
        self.on_result = on_result
        self.asking = ProbeTarget(pool.backend, check, wrap)
        self.random = random or Random()  # nosec B311  # noqa: S311 - not for secrets
        self._pool = pool
        self._watches: dict[str, _Watch] | None = None

    def start(self) -> None:
        """Begin."""
        self._watches = {}
        self.refresh()

    def stop(self) -> None:
        """End all checks at once."""
        watches, self._watches = self._watches, None
        for watch in (watches or {}).values():
            watch.stop()

    def last(self, member: Member) -> LastCheck | None:
        """Return what the last check of a member has found; ``None`` if there was none yet."""
        watch = (self._watches or {}).get(key_of(member))
        return None if watch is None else watch.last

    def refresh(self) -> None:
        """Follow the pool, whose members have changed: check those that are new, and no more those that are gone."""
        watches = self._watches
        if watches is None:
            return
        members = {
            key_of(member): member for member in self._pool.members if member.state.is_checked
        }
        for key in [key for key in watches if key not in members]:
            watches.pop(key).stop()
        for key, member in members.items():
            if key in watches:
                watches[key].member = member
            else:
                watches[key] = _Watch(self, key, member)


@attrs.frozen
class LastCheck:
    """What the last check of a server has found.

    Attributes:
        ok: Whether it is healthy.
        begun: When the check was begun, by the clock of the checks.
        seconds: How long it took.
        why: What is wrong.
        history: Whether it was healthy, of the last checks, this one last.
    """

    ok: bool
    begun: float
    seconds: float
    why: str
    history: tuple[bool, ...]

    def as_json(self, now: float) -> dict[str, Any]:
        """Return it as values of JSON, with the time in seconds since 1970.

        Args:
            now: The time by the clock of the checks.
        """
        return {
            "ok": self.ok,
            "last": time.time() - (now - self.begun),
            "duration_ms": round(self.seconds * 1000, 1),
            "result": "healthy" if self.ok else self.why,
            "history": list(self.history),
        }


class _Watch:
    """The checks of one member, one after another."""

    _log = Logger()

    def __init__(self, checks: HealthChecks, key: str, member: Member) -> None:
        self._checks = checks
        self._key = key
        self.member = member
        check = checks.check
        self.last: LastCheck | None = None
        self._is_new = True
        self._hasty = check.fall - 1
        self._checking: Checking | None = None
        self._begun = 0.0
        # At random, so that not all servers are asked at once, now and ever after.
        first = checks.random.random() * min(check.interval, _SOON)
        self._timer: IDelayedCall = checks.clock.callLater(first, self._begin)

    def stop(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._checking is not None:
            self._checking.cut()

    def _begin(self) -> None:
        if self._checking is not None:
            self._checking.cut()  # found something long ago, but the server has not closed
        checks, member = self._checks, self.member
        self._begun = checks.clock.seconds()
        self._checking = checks.asking.make(checks.clock, member, self._found)
        checks.asking.begin(self._checking, checks.dial, member)

    def _found(self, finding: Finding) -> None:
        checks = self._checks
        self._log.debug(
            "backend {backend}: check of {server}: {result}",
            backend=checks.backend.name,
            server=self.member.target.text,
            result="healthy" if finding.ok else finding.why,
        )
        passed = checks.clock.seconds() - self._begun
        self.member.counts.checked(passed)
        if finding.ok is not None:
            before = () if self.last is None else self.last.history
            history = (*before, finding.ok)[-_KEPT:]
            self.last = LastCheck(finding.ok, self._begun, passed, finding.why, history)
        # Set before anybody is told, who may stop all this.
        self._timer = checks.clock.callLater(max(0.0, self._wait(finding) - passed), self._begin)
        if finding.ok is not None:
            checks.on_result(self._key, ok=finding.ok, why=finding.why)

    def _wait(self, finding: Finding) -> float:
        """Return the seconds from the begin of this check to that of the next."""
        interval = self._checks.check.interval
        if finding.ok is False and self._hasty:
            # A server that is not there from the beginning is found out before many clients are led to it.
            self._hasty -= 1
            return min(interval / 10, _AGAIN)
        if finding.ok:
            self._hasty = 0
        if self._is_new and interval > _SOON:
            # Where the first ones were hurried, the second ones are spread.
            interval *= self._checks.random.random()
        self._is_new = False
        return interval


def key_of(member: Member) -> str:
    """Name a member, by the same name in every process."""
    return f"{member.server.text} {member.target.text}"


def apply_result(pool: BackendPool, key: str, *, ok: bool, why: str) -> None:
    """Let a pool know what a check has found.

    Args:
        pool: Of the backend that was checked.
        key: Which member, as `key_of` names it; nothing happens if the pool does not have it.
        ok: Whether it is healthy.
        why: What is wrong, in a few words.
    """
    for member in pool.members:
        if key_of(member) == key:
            pool.check_result(member, ok=ok, why=why)
