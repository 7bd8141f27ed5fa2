"""Limits the number and the rate of connections by source.

A source is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer is given at least.
"""

from __future__ import annotations

import itertools
import mmap
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    from txmux.access.shared.leases import Leases
    from txmux.rules.model import Listener
    from txmux.telemetry.reasons import LimitName
    from txmux.transport import IPAddress

    _Part: TypeAlias = tuple[int, int]

_WORD = 8  # bytes
_WAYS = 16  # slots in which a source may be found
_MOST_SLOTS = 1 << 17
_MOST_MEMORY = 1 << 26
_SECOND = 1_000_000_000  # nanoseconds, to avoid rounding errors

_ALL = (1 << 64) - 1
_CONNECTIONS = (1 << 32) - 1
_UNDECIDED = 1 << 32
_IPV4 = 0xFF << 56  # where IPv6 has its multicast networks, from which no client comes


def source_of(host: IPAddress) -> int:
    """Return the number of the source that an address belongs to, less than 2 to the 64th."""
    if isinstance(host, IPv6Address):
        mapped = host.ipv4_mapped
        if mapped is None:
            return int(host) >> 64
        host = mapped
    return _IPV4 | int(host)


@attrs.frozen
class SourceLimits:
    """What one source may have; 0 means no limit."""

    connections: int = 0
    undecided: int = 0  # the highest number of those that have not been recognised yet
    interval: int = 0  # nanoseconds to wait, in the long run, for each connection
    burst: int = 1  # connections that it may make without having waited

    @classmethod
    def for_listener(cls, settings: Listener) -> SourceLimits | None:
        """Return the limits of a listener; ``None`` if it has none by source."""
        rate = settings.connection_rate_per_source
        most = settings.max_connections_per_source or settings.max_flows_per_source
        limits = cls(most, settings.max_undecided_per_source)
        if rate is not None:
            interval = max(1, round(_SECOND / rate.per_second))
            limits = attrs.evolve(limits, interval=interval, burst=rate.burst)
        return limits if limits != cls() else None


class SourceTable:
    """Numbers in memory that several processes may share: a row, here a *slot*, for each source.

    A slot has the number of the source, the time from which its bucket is full again, and a count for each process, which
    only that process changes. A slot without connections and with a full bucket says nothing, so it is free without
    a process having to clear it. A source has its slot among few, so that each look-up takes the same short time.

    Args:
        memory: `size` bytes, all 0 at first.
        written: Gives the parts that were ever written, as where each begins and ends among the numbers; the whole if not given.
            To read the others, too, would make the system fill shared memory with zeros.
    """

    def __init__(
        self, memory: Any, columns: int = 1, written: Callable[[], Iterable[_Part]] | None = None
    ) -> None:
        self.width = 2 + columns
        self.numbers = memoryview(memory).cast("Q")
        whole = [(0, len(self.numbers) - 1)]
        self._written = written or (lambda: whole)
        sets = self.slots(columns) // _WAYS
        self._shift = 65 - sets.bit_length()
        # A secret, so that an attacker cannot choose sources that share slots.
        if not self.numbers[-1]:
            self.numbers[-1] = secrets.randbits(64) | 1
        self._factor = self.numbers[-1]

    @property
    def name(self) -> str:
        return f"{self._factor:x}"

    @staticmethod
    def slots(columns: int) -> int:
        slots = _MOST_SLOTS
        while slots * (2 + columns) * _WORD > _MOST_MEMORY and slots > _WAYS:
            slots //= 2
        return slots

    @classmethod
    def size(cls, columns: int) -> int:
        """Return the size in bytes; parts that were never written take no memory."""
        return (cls.slots(columns) * (2 + columns) + 1) * _WORD

    def find(self, source: int, now: int) -> int | None:
        """Find or make the slot of a source; ``None`` if all that it may have are of sources with connections.

        If all are taken, it reuses the slot without connections whose bucket is nearest to full.
        """
        numbers, width = self.numbers, self.width
        # Multiplied once, neighbours would come at regular distances, which may be those of few sets.
        mixed = source * self._factor & _ALL
        mixed = (mixed ^ mixed >> 32) * self._factor & _ALL
        start = (mixed >> self._shift) * _WAYS * width
        end = start + _WAYS * width
        sources = numbers[start:end:width].tolist()
        if source in sources:
            return start + sources.index(source) * width
        free_slot, soonest = None, 0
        for slot in range(start, end, width):
            full_at = numbers[slot + 1]
            if (free_slot is None or full_at < soonest) and not self.total(slot):
                free_slot, soonest = slot, full_at
                if full_at <= now:
                    break
        if free_slot is not None:
            numbers[free_slot] = source
            numbers[free_slot + 1] = 0
        return free_slot

    def tracked(self, now: int) -> int:
        """Count the slots in use."""
        tracked = {at - 1 for at, full_at in self._each(1) if full_at > now}
        for number in range(2, self.width):
            tracked.update(at - number for at, _ in self._each(number))
        return len(tracked)

    def _each(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield one of the numbers of each slot, with where it is, unless it is 0, as most are."""
        width = self.width
        for start, end in self._written():
            places = range(start + (number - start) % width, end, width)
            values = self.numbers[places.start : end : width].tolist()
            yield from zip(itertools.compress(places, values), filter(None, values), strict=True)

    def total(self, slot: int) -> int:
        return sum(self.numbers[slot + 2 : slot + self.width].tolist())

    def buckets(self, now: int) -> bytes:
        """Return the sources whose buckets are not full, for `empty`: pairs of 64 bits, a source and the time that it needs."""
        numbers = self.numbers
        buckets = ((numbers[at - 1], full - now) for at, full in self._each(1) if full > now)
        return array("Q", itertools.chain.from_iterable(buckets)).tobytes()

    def empty(self, buckets: bytes, now: int) -> None:
        """Drain buckets by what their sources had used in another table."""
        for source, needs in _pairs(buckets):
            slot = self.find(source, now)
            if slot is not None:
                self.numbers[slot + 1] = min(max(self.numbers[slot + 1], now + needs), _ALL)

    def held(self) -> bytes:
        """Return the sources that have connections, for `expect`: pairs of 64 bits, a source and their number."""
        held: dict[int, int] = {}
        for number in range(2, self.width):
            for at, count in self._each(number):
                source = self.numbers[at - number]
                held[source] = held.get(source, 0) + count
        totals = ((source, total & _CONNECTIONS) for source, total in held.items())
        pairs = (pair for pair in totals if pair[1])
        return array("Q", itertools.chain.from_iterable(pairs)).tobytes()

    def expect(self, held: bytes, column: int, now: int) -> None:
        """Count connections of another table that will come, in this column until they are adopted."""
        for source, count in _pairs(held):
            slot = self.find(source, now)
            if slot is not None:
                self.numbers[slot + 2 + column] = count

    def clear(self, column: int) -> None:
        self._zero(2 + column)

    def refill(self) -> None:
        """Fill all buckets: another listener uses the table now."""
        self._zero(1)

    def _zero(self, number: int) -> None:
        for at, _ in self._each(number):
            self.numbers[at] = 0


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    """Read pairs of 64 bits."""
    numbers = array("Q")
    numbers.frombytes(data[: len(data) // (2 * _WORD) * 2 * _WORD])
    return zip(numbers[::2], numbers[1::2], strict=True)


class PerSource:
    """Admits or refuses connections by the counts of their sources.

    Args:
        lock: Is held while the table is changed by more than this process's own counts.
        expected: The column of connections that will come from another process; ``None`` if there is none such.

    Attributes:
        reached: The limit for which the last one was refused.
        shared: The limits that other machines count, too; they are checked in addition.
    """

    reached: LimitName = "max_connections_per_source"
    shared: Leases | None = None

    def __init__(
        self,
        limits: SourceLimits,
        seconds: Callable[[], float],
        table: SourceTable | None = None,
        column: int = 0,
        lock: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it has no state
        expected: int | None = None,
    ) -> None:
        self._limits = limits
        self._seconds = seconds
        self._table = table or SourceTable(mmap.mmap(-1, SourceTable.size(1)))
        self._count = 2 + column
        self._expected = None if expected is None else 2 + expected
        self._lock = lock
        self._elsewhere = memoryview(bytearray(_WORD)).cast("Q")

    def enter(self, source: int) -> Permit | None:
        """Let a connection in, unless a limit is reached; then it changes nothing and returns ``None``.

        If there is no slot for the source, because too many others have connections, it is let in without being counted:
        limits for each address do not stop an attacker with that many, and other clients must not suffer.
        """
        now = int(self._seconds() * _SECOND)
        table, limits = self._table, self._limits
        numbers = table.numbers
        with self._lock:
            slot = table.find(source, now)
            if slot is None:
                return Permit(self._elsewhere, 0)
            total = table.total(slot)
            if limits.connections and limits.connections <= self._everywhere(source, total):
                self.reached = "max_connections_per_source"
                return None
            if 0 < limits.undecided <= total // _UNDECIDED:
                self.reached = "max_undecided_per_source"
                return None
            if limits.interval:
                empty_until = now + limits.interval * limits.burst
                # A time further ahead means that the clock was set back.
                full_at = min(max(numbers[slot + 1], now), empty_until)
                welcome = full_at + limits.interval <= empty_until
                if welcome and self.shared is not None:
                    used = (full_at - now) // limits.interval
                    welcome = self.shared.take(source, used, limits.interval, limits.burst)
                numbers[slot + 1] = full_at + limits.interval * welcome
                if not welcome:
                    self.reached = "connection_rate_per_source"
                    return None
            return Permit(numbers, slot + self._count)

    def _everywhere(self, source: int, total: int) -> int:
        here = total & _CONNECTIONS
        if self.shared is None:
            return here
        at_other_machines = self.shared.counts.at_other_machines
        limit = self._limits.connections
        return here + at_other_machines(source, here, limit, self._table.name, self.count)

    def count(self, source: int) -> int:
        with self._lock:
            slot = self._table.find(source, int(self._seconds() * _SECOND))
            return 0 if slot is None else self._table.total(slot) & _CONNECTIONS

    def buckets(self) -> bytes:
        return self._table.buckets(int(self._seconds() * _SECOND))

    def restore(self, buckets: bytes) -> None:
        with self._lock:
            self._table.empty(buckets, int(self._seconds() * _SECOND))

    def tracked(self) -> int:
        """Count the sources in the table: those with connections, or whose bucket is not full."""
        return self._table.tracked(int(self._seconds() * _SECOND))

    def adopt(self, source: int) -> Permit:
        """Count a connection that another process has admitted and recognised."""
        with self._lock:
            slot = self._table.find(source, int(self._seconds() * _SECOND))
            if slot is None:
                permit = Permit(self._elsewhere, 0)
            else:
                numbers = self._table.numbers
                permit = Permit(numbers, slot + self._count)
                if self._expected is not None and numbers[slot + self._expected]:
                    numbers[slot + self._expected] -= 1
        permit.settle()
        return permit


class Permit:
    """Counts one connection, from now on. Another process may have overwritten the count, which must not end the connection."""

    __slots__ = ("_at", "_numbers", "_undecided")

    def __init__(self, numbers: memoryview[int], at: int) -> None:
        self._numbers = numbers
        self._at = at
        self._undecided = True
        numbers[at] = min(numbers[at] + _UNDECIDED + 1, _ALL)

    def settle(self) -> None:
        if self._undecided:
            self._undecided = False
            self._numbers[self._at] = max(self._numbers[self._at] - _UNDECIDED, 0)

    def release(self) -> None:
        """Stop counting. To be called once."""
        self.settle()
        self._numbers[self._at] = max(self._numbers[self._at] - 1, 0)
