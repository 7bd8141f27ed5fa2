"""Connections of sources that several machines count together: each tells of those that have many, for as long as they do.

A count is good for fifteen seconds, and told again each second, so what a machine had that is gone counts for no longer. Nobody waits for
an answer: what other machines have is known from the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["SCRIPT", "Held"]

_OFTEN, _GOOD = 1.0, 15.0
"""Seconds between two reports, and in which one is good."""

_MOST_KEPT = 10_000

SCRIPT = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local found, others = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #found, 2 do
  local count, till = string.match(found[at + 1], '^(%d+) (%d+)$')
  if not till or tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], found[at])
  elseif found[at] ~= ARGV[1] then
    others = others + tonumber(count)
  end
end
if tonumber(ARGV[2]) > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3] * 1000))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {others, 0}
"""
"""Takes the name of a machine, how many connections it has, and the milliseconds for which that is good. Gives how many others have."""


class Rates(Protocol):
    """What asks; see `txmux.access.shared.leases.SharedRates`."""

    is_up: bool
    seconds: Callable[[], float]
    later: Callable[..., IDelayedCall]

    def ask(
        self,
        key: str,
        arguments: tuple[object, ...],
        answered: Callable[[int, float], None],
        script: str = ...,
    ) -> bool:
        """Ask for something, and tell whether that could be."""


class Counted(Protocol):
    """What this machine counts; see `txmux.access.per_source.PerSource`."""

    @property
    def machine(self) -> str:
        """The name of this machine among those that share."""

    def count(self, source: int, /) -> int:
        """Return how many connections a source has here."""


@attrs.define(eq=False)
class _Source:
    """One that has many connections.

    Attributes:
        others: Those that it has at other machines.
        known_until: Until when that is good.
        is_asking: Whether an answer is on its way.
    """

    others: int = 0
    known_until: float = 0.0
    is_asking: bool = False


class Held:
    """The sources of one listener.

    Args:
        rates: Asks.
        listener: Its name.
    """

    def __init__(self, rates: Rates, listener: str) -> None:
        self._rates = rates
        self._listener = listener
        self._counted: Counted | None = None
        self._sources: dict[int, _Source] = {}
        self._call: Any = None

    def at_other_machines(self, source: int, here: int, limit: int, counted: Counted) -> int:
        """Return how many connections a source has at other machines, as far as is known.

        Args:
            source: See `txmux.access.per_source.source_of`.
            here: How many it has at this one.
            limit: The highest number.
            counted: Counts those here.
        """
        rates, self._counted = self._rates, counted
        if not rates.is_up:
            return 0
        found = self._sources.get(source)
        if found is None:
            # The one that is about to come counts, too.
            if 2 * (here + 1) < limit or len(self._sources) >= _MOST_KEPT:
                return 0
            found = self._sources[source] = _Source()
            self._report(source, found, here + 1)
            if self._call is None:
                self._call = rates.later(_OFTEN, self._report_all)
        return found.others if rates.seconds() < found.known_until else 0

    def _report_all(self) -> None:
        self._call = None
        for source, found in [*self._sources.items()]:
            here = 0 if self._counted is None else self._counted.count(source)
            if not here and not found.is_asking:
                del self._sources[source]
            self._report(source, found, here)
        if self._sources:
            self._call = self._rates.later(_OFTEN, self._report_all)

    def _report(self, source: int, found: _Source, here: int) -> None:
        if found.is_asking or self._counted is None:
            return

        def answered(others: int, _: float) -> None:
            found.is_asking = False
            found.others = others
            found.known_until = self._rates.seconds() + _GOOD

        key = f"txmux:{{{self._listener}:{source:x}}}:held"
        arguments = (self._counted.machine, here, round(_GOOD * 1000))
        found.is_asking = True
        if not self._rates.ask(key, arguments, answered, SCRIPT):
            found.is_asking = False

    def forget(self) -> None:
        """Know nothing any more, since nobody answers."""
        self._sources.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
