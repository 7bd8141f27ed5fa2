"""How many connections each source of clients has, and how fast it makes them.

A source is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer is given at least.
"""

from __future__ import annotations

import mmap
import secrets
from contextlib import nullcontext
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from txmux.rules.model import IPAddress, Listener

_WORD = 8  # bytes
_WAYS = 16  # slots in which a source may be found
_MOST_SLOTS = 1 << 17
_MOST_MEMORY = 1 << 26
_SECOND = 1_000_000_000  # in the unit of time of the table, so that nothing is lost by rounding

_ALL = (1 << 64) - 1
_CONNECTIONS = (1 << 32) - 1
_UNDECIDED = 1 << 32
_IPV4 = 0xFF << 56  # where IPv6 has its multicast networks, from which nobody comes


def source_of(host: IPAddress) -> int:
    """Give the number of the source that an address belongs to, less than 2 to the 64th."""
    if isinstance(host, IPv6Address):
        mapped = host.ipv4_mapped
        if mapped is None:
            return int(host) >> 64
        host = mapped
    return _IPV4 | int(host)


@attrs.frozen
class SourceLimits:
    """What one source may have; 0 is no limit.

    Attributes:
        connections: The highest number of connections.
        undecided: The highest number of those that have not been recognised yet.
        interval: Nanoseconds that a source has to wait, in the long run, for each connection that was let in.
        burst: Connections that it may make without having waited.
    """

    connections: int = 0
    undecided: int = 0
    interval: int = 0
    burst: int = 1

    @classmethod
    def of(cls, settings: Listener) -> SourceLimits | None:
        """Give the limits of a listener; ``None`` if it has none for a source."""
        rate = settings.connection_rate_per_source
        limits = cls(settings.max_connections_per_source, settings.max_undecided_per_source)
        if rate is not None:
            interval = max(1, round(_SECOND / rate.per_second))
            limits = attrs.evolve(limits, interval=interval, burst=rate.burst)
        return limits if limits != cls() else None


class SourceTable:
    """Numbers in memory that several processes may share: a row, here a *slot*, for each source.

    A slot has the number of the source, the time from which its bucket is full again, and a count for each process, which
    only that process changes. A slot without connections and with a full bucket says nothing, so it is free without
    anybody having to clear it. A source has its slot among few, so that each look-up takes the same short time.

    Args:
        memory: `size` bytes, all 0 at first.
        columns: The number of processes.
    """

    def __init__(self, memory: Any, columns: int = 1) -> None:
        self.width = 2 + columns
        self.numbers = memoryview(memory).cast("Q")
        sets = self.slots(columns) // _WAYS
        self._shift = 65 - sets.bit_length()
        # Nobody is to know which sources share slots.
        if not self.numbers[-1]:
            self.numbers[-1] = secrets.randbits(64) | 1
        self._factor = self.numbers[-1]

    @staticmethod
    def slots(columns: int) -> int:
        """Tell how many there are."""
        slots = _MOST_SLOTS
        while slots * (2 + columns) * _WORD > _MOST_MEMORY and slots > _WAYS:
            slots //= 2
        return slots

    @classmethod
    def size(cls, columns: int) -> int:
        """Tell how many bytes it needs, of which those that were never used take no memory."""
        return (cls.slots(columns) * (2 + columns) + 1) * _WORD

    def find(self, source: int, now: int) -> int | None:
        """Find or make the slot of a source.

        Where all slots are taken, the one is given up that says least: no connections, and a bucket nearest to full.

        Args:
            source: See `source_of`.
            now: The time.

        Returns:
            Where it begins; ``None`` if none is free, because all have connections.
        """
        numbers, width = self.numbers, self.width
        # Multiplied once, neighbours would come at regular distances, which may be those of few sets.
        mixed = source * self._factor & _ALL
        mixed = (mixed ^ mixed >> 32) * self._factor & _ALL
        start = (mixed >> self._shift) * _WAYS * width
        end = start + _WAYS * width
        known = numbers[start:end:width].tolist()
        if source in known:
            return start + known.index(source) * width
        found, soonest = None, 0
        for slot in range(start, end, width):
            full_at = numbers[slot + 1]
            if (found is None or full_at < soonest) and not self.total(slot):
                found, soonest = slot, full_at
                if full_at <= now:
                    break
        if found is not None:
            numbers[found] = source
            numbers[found + 1] = 0
        return found

    def total(self, slot: int) -> int:
        """Add up the counts of a slot."""
        return sum(self.numbers[slot + 2 : slot + self.width].tolist())

    def clear(self, column: int) -> None:
        """Forget the connections of a process that has ended."""
        numbers, width = self.numbers, self.width
        for slot in range(2 + column, len(numbers) - 1, width):
            if numbers[slot]:
                numbers[slot] = 0


class PerSource:
    """Lets connections in, or does not, by what their sources have already.

    Args:
        limits: What a source may have.
        seconds: Tells the time.
        table: Where it is counted; one for this process alone if not given.
        lock: Is held while the table is changed by more than this process's own counts.
    """

    def __init__(
        self,
        limits: SourceLimits,
        seconds: Callable[[], float],
        table: SourceTable | None = None,
        column: int = 0,
        lock: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it has no state
    ) -> None:
        self._limits = limits
        self._seconds = seconds
        self._table = table or SourceTable(mmap.mmap(-1, SourceTable.size(1)))
        self._count = 2 + column
        self._lock = lock
        self._elsewhere = memoryview(bytearray(_WORD)).cast("Q")

    def enter(self, source: int) -> Permit | None:
        """Let a connection in, unless a limit is reached; then it changes nothing.

        If there is no slot for the source, because too many others have connections, it is let in without being counted:
        limits for each address do not stop whoever has that many, and nobody else is to suffer.

        Args:
            source: See `source_of`.

        Returns:
            What counts it; ``None`` if it is refused.
        """
        now = int(self._seconds() * _SECOND)
        table, limits = self._table, self._limits
        numbers = table.numbers
        with self._lock:
            slot = table.find(source, now)
            if slot is None:
                return Permit(self._elsewhere, 0)
            total = table.total(slot)
            if 0 < limits.connections <= total & _CONNECTIONS:
                return None
            if 0 < limits.undecided <= total // _UNDECIDED:
                return None
            if limits.interval:
                empty_until = now + limits.interval * limits.burst
                # It is never further off, unless the clock was set back.
                full_at = min(max(numbers[slot + 1], now), empty_until)
                welcome = full_at + limits.interval <= empty_until
                numbers[slot + 1] = full_at + limits.interval * welcome
                if not welcome:
                    return None
            return Permit(numbers, slot + self._count)

    def adopt(self, source: int) -> Permit:
        """Count a connection that another process has let in, and that is recognised already.

        Args:
            source: See `source_of`.
        """
        with self._lock:
            slot = self._table.find(source, int(self._seconds() * _SECOND))
            if slot is None:
                permit = Permit(self._elsewhere, 0)
            else:
                permit = Permit(self._table.numbers, slot + self._count)
        permit.settle()
        return permit


class Permit:
    """Counts one connection, from now on."""

    __slots__ = ("_at", "_numbers", "_undecided")

    def __init__(self, numbers: memoryview[int], at: int) -> None:
        self._numbers = numbers
        self._at = at
        self._undecided = True
        numbers[at] += _UNDECIDED + 1

    def settle(self) -> None:
        """Note that the connection has been recognised."""
        if self._undecided:
            self._undecided = False
            self._numbers[self._at] -= _UNDECIDED

    def release(self) -> None:
        """Note that the connection is gone. To be called once."""
        self.settle()
        self._numbers[self._at] -= 1
