"""What a service has counted, over all its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from txmux.control.broadcast import broadcast
from txmux.control.interface import Report
from txmux.telemetry.counting.present import Present
from txmux.telemetry.counting.snapshot import counts_of, totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.control.broadcast import Askable
    from txmux.control.rates import Moment, Rates, Traffic
    from txmux.rules.model import Rules
    from txmux.telemetry.counting.counters import Counters
    from txmux.telemetry.counting.snapshot import Counts

__all__ = ["CountingControl"]

_MANY = 1000
"""Routes whose numbers take so long to read that clients would wait for it."""


class CountingControl:
    """The part of `txmux.control.interface.Control` that is about numbers.

    Attributes:
        counted: The counters of all processes.
        rules: Those that hold.
        last_reload: When the rules were last asked to be read again, in seconds since 1970, and what came of it.
        started: When the service was, in seconds since 1970.
        rates: How fast numbers grow.
    """

    counted: Counters
    rules: Rules
    last_reload: tuple[float, Report] | None
    started: float
    rates: Rates
    _log = Logger()

    def processes(self) -> Sequence[Askable]:
        raise NotImplementedError

    async def counters(self) -> Counts:
        """Return the numbers of all processes, with what live connections have moved until now."""
        present = await self._present()
        time, report = self.last_reload or (self.started, Report(ok=True))
        counts = (
            counts_of(self.counted, self.rules)
            if len(self.rules.routes) <= _MANY
            else await deferToThread(counts_of, self.counted, self.rules)
        )
        return attrs.evolve(
            counts, present=present, rules=self.rules.files.sha256, reloaded=(report.ok, time)
        )

    async def _present(self) -> Present:
        answers = await broadcast(self.processes(), "count", gauges=True)
        return Present.of(answer for _, answer in answers.answers)

    def make_room(self, rules: Rules, number: int) -> None:
        """Count what other rules have, and find out what nobody counts any more.

        Args:
            rules: Those that are to hold.
            number: Of the version of the rules until then.
        """
        self.counted.extend(rules, number)
        Deferred.fromCoroutine(self._forget()).addErrback(
            lambda why: self._log.failure("counters of removed routes are kept", why)
        )

    async def _forget(self) -> None:
        answers = await broadcast(self.processes(), "count", gauges=True)
        numbers = {
            number for _, answer in answers.answers for number in answer.get("generations", ())
        }
        if numbers and not answers.missing:
            self.counted.forget(numbers)

    async def traffic(self, counts: Counts | None = None) -> tuple[Traffic, Present]:
        """Return what has come by all listeners, and how fast; and how the processes are.

        Args:
            counts: The numbers of just now; without them the processes are asked.
        """
        present = await self._present() if counts is None else counts.present
        return self.rates.until_now(self._totals()[0]), present

    async def sample(self) -> None:
        """Record what has been counted, for the rates in `status` and the history; to be called every few seconds."""
        await broadcast(self.processes(), "count")
        self.rates.note(*self._totals())

    def _totals(self) -> tuple[dict[str, int], int]:
        """Add up what has come by all listeners, and count the connections; however many routes there are."""
        names = (listener.name for listener in self.rules.listeners)
        total, active, bytes_in, bytes_out = totals(self.counted, names)
        return {"connections": total, "bytes_in": bytes_in, "bytes_out": bytes_out}, active

    def history(self) -> list[Moment]:
        """Return what was measured in the last ten minutes, the oldest first."""
        return self.rates.history()
