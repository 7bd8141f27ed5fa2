"""Outside sources that txmux uses, such as Redis or name servers, and whether they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from twisted.logger import Logger

from txmux.classes import frozen
from txmux.errors import printable
from txmux.telemetry import documents
from txmux.telemetry.formatting import duration

Kind = Literal["names", "networks"]
"""The kinds of sources beside those of features. `tests/test_sources.py` has hostile peers for each."""

OVERDUE = 60.0
"""Seconds without a good answer after which the operator should know."""
_MOST_REASONS = 10  # of one outage that are logged: a proxy may number its answers
LONGEST_WHY = 300


@frozen
class SourceState:
    """Whether a source answers.

    Attributes:
        name: The kind and the address.
        up: Whether its last answers were good.
        age: Seconds since the last good answer; ``None`` if there never was one.
        failing: For how many seconds it has failed; 0 if it has not.
        is_overdue: Whether that has been so for long.
        why: Why the last question had no good answer.
        effect: What that means for the service.
    """

    name: str
    up: bool
    age: float | None
    failing: float
    is_overdue: bool
    why: str
    effect: str

    @property
    def outage(self) -> str:
        """What it has in common with others that fail with it: the address, or that it is a name server."""
        kind, _, address = self.name.partition(" ")
        return kind if kind == "names" else address

    @property
    def sentence(self) -> str:
        return (
            f"{self.name}: no good answer for {duration(self.failing)}: {self.why}; {self.effect}"
        )

    def as_json(self) -> documents.Source:
        return {"source": self.name, "up": self.up, "age": self.age, "why": self.why}

    @classmethod
    def read(cls, rows: Iterable[Sequence[Any]]) -> list[SourceState]:
        return [cls(printable(name), *rest) for name, *rest in rows]


class Source:
    """One server, service or file that is used, and whether it answers.

    Logs a failure, each new reason, and the recovery.

    Args:
        kind: What is asked for.
        address: Where; kind and address name it.
        effect: What it means for the service while there is no good answer.
        seconds: A monotonic clock.
        steady: For how many seconds a change must last until it counts.
        overdue: After how many seconds without a good answer the operator should know.
        logs: Whether it logs; those of workers are logged by the supervisor, see `SourceLog`.
    """

    _log = Logger()

    def __init__(
        self,
        kind: str,
        address: str,
        effect: str,
        seconds: Callable[[], float],
        *,
        steady: float = 0.0,
        overdue: float = OVERDUE,
        logs: bool = True,
    ) -> None:
        self.name = f"{kind} {address}"
        self.effect = effect
        self.up = True
        self.why = ""
        self._seconds = seconds
        self._steady = steady
        self._overdue = overdue
        self.logs = logs
        self._open = 0
        self._since: float | None = None
        self._good_at: float | None = None  # the first good answer since it failed
        self._answered_at: float | None = None
        self._failures = 0
        self._logged: set[str] = set()

    def requested(self) -> None:
        """Record the start of a request; `answered`, `failed` or `dropped` ends it."""
        self._open += 1
        if self._since is None:
            self._since = self._seconds()

    def dropped(self) -> None:
        """Record that a request was withdrawn, which says nothing about the source."""
        self._close()
        if not self._open and not self._failures:
            self._since = None

    def answered(self) -> None:
        self._close()
        self._answered_at = now = self._seconds()
        self._good_at = now if self._good_at is None else self._good_at
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Count it as up, if it has been for long enough."""
        if self._good_at is None or (self._failures and now - self._good_at < self._steady):
            return
        self._since = now if self._open else None
        self._failures = 0
        self.why = ""
        if not self.up:
            self.up = True
            self._logged.clear()
            if self.logs:
                self._log.info("{name}: good again", name=self.name)

    def failed(self, why: str) -> None:
        """Record that there is no good answer, and why."""
        self._close()
        now, self._good_at = self._seconds(), None
        self._since = now if self._since is None else self._since
        self._failures += 1
        self.why = printable(why, LONGEST_WHY)
        if now - self._since < self._steady:
            return
        self.up = False
        if self.why not in self._logged and len(self._logged) < _MOST_REASONS:
            self._logged.add(self.why)
            if self.logs:
                self._log.warn(
                    "{name}: {why}; {effect}", name=self.name, why=self.why, effect=self.effect
                )

    def _close(self) -> None:
        self._open = max(0, self._open - 1)

    def state(self) -> SourceState:
        now = self._seconds()
        if self._failures and not self._open:
            self._settle(now)
        failing = 0.0 if self._since is None else now - self._since
        # One datagram may be lost.
        is_sure = bool(self._failures and self._open) or self._failures > 1
        is_silent = bool(self._open) and not self._failures
        age = None if self._answered_at is None else now - self._answered_at
        overdue = failing >= self._overdue and (is_sure or is_silent)
        never = self._answered_at is None and self._failures > 1
        why = self.why or ("no answer yet" if overdue else "")
        up = self.up and not overdue and not never
        return SourceState(self.name, up, age, failing, overdue, why, self.effect)


def worst(states: Iterable[SourceState]) -> list[SourceState]:
    """Return one state for each name: the worst of all processes, which is the one without an answer for longest."""
    by_name: dict[str, SourceState] = {}
    for state in states:
        before = by_name.get(state.name)
        if before is None or (state.up, -state.failing) < (before.up, -before.failing):
            by_name[state.name] = state
    return [*by_name.values()]


class SourceLog:
    """Logs failures and recoveries of workers' sources, once for all workers."""

    _log = Logger()

    def __init__(self) -> None:
        self._down: set[str] = set()

    def record(self, states: Iterable[SourceState]) -> None:
        states = worst(states)
        for state in states:
            if not state.up and state.name not in self._down:
                self._down.add(state.name)
                self._log.warn(
                    "{name}: {why}; {effect}", name=state.name, why=state.why, effect=state.effect
                )
            elif state.up and state.name in self._down:
                self._down.discard(state.name)
                self._log.info("{name}: good again", name=state.name)
        self._down &= {state.name for state in states}
