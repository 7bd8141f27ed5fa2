"""Limits the number and the rate of connections by source.

A source is an IPv4 address, also one in an IPv6 address (6to4, Teredo, NAT64), or an IPv6 /64 network, the smallest that a
provider assigns to a customer.
"""

from __future__ import annotations

import itertools
import mmap
import operator
import secrets
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, Protocol, TypeAlias

import attrs

from txmux.classes import define, frozen
from txmux.rules.model import Listener
from txmux.telemetry.reasons import LimitName
from txmux.transport import IPAddress, embedded

_Part: TypeAlias = tuple[int, int]


_WORD = 8  # bytes
_WAYS = 16  # slots of a set, as in a set-associative cache; a source hashes to one set
_MOST_SLOTS = 1 << 17
_MOST_MEMORY = 1 << 26
_SECOND = 1_000_000_000  # nanoseconds, to avoid rounding errors
_FULL_AT, _MADE, _ELSEWHERE, _FIRST = 1, 2, 3, 4
"""Where the numbers of a slot are that follow the source, and the first column."""
_MOST_DEBT = 15 * _SECOND
"""What a bucket may owe, beside being empty, for connections that its source has made at other machines."""

_ALL = (1 << 64) - 1
_CONNECTIONS = (1 << 32) - 1
_UNDECIDED = 1 << 32
# IPv6 multicast (ff00::/8), from which no client comes, so the numbers of IPv4 are unique.
_IPV4 = 0xFF << 56


def source_of(host: IPAddress) -> int:
    """Return the 64-bit number of the source that an address belongs to."""
    if isinstance(host, IPv6Address):
        inside = embedded(host)
        if not inside:
            return int(host) >> 64
        host = inside[-1]  # of Teredo, the client's
    return _IPV4 | int(host)


def text_of_source(source: int) -> str:
    """Return the address or network of a source; a negative one stands for clients without an address."""
    if source < 0:
        return "unix"
    if source & _IPV4 == _IPV4:
        return str(IPv4Address(source & 0xFFFFFFFF))
    return str(IPv6Network((source << 64, 64)))


@frozen
class SourceLimits:
    """The limits of one source; 0 means no limit. The rate is a token bucket."""

    connections: int = 0
    undecided: int = 0  # connections that have not been routed yet
    interval: int = 0  # nanoseconds until a token comes back to the bucket
    burst: int = 1  # size of the bucket

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
    """A hash table in memory that several processes may share, with a *slot* of 64-bit numbers for each source.

    A slot has the number of the source, the time at which its token bucket is full again, how many connections it has ever made, how
    many it has at other machines, and a column for each process: its count of connections, which only that process changes. A slot
    without connections and with a full bucket is free; no process has to clear it. The table is set-associative, so that a look-up
    takes constant time.

    Args:
        memory: `size` bytes, initially 0.
        written: Returns the ranges of numbers that were ever written; by default the whole table. Reading the others would
            make the kernel allocate pages for them.
    """

    def __init__(
        self, memory: Any, columns: int = 1, written: Callable[[], Iterable[_Part]] | None = None
    ) -> None:
        self.width = _FIRST + columns
        self.numbers = memoryview(memory).cast("Q")
        whole = [(0, len(self.numbers) - 1)]
        self.written = written or (lambda: whole)
        sets = self.slots(columns) // _WAYS
        self._shift = 65 - sets.bit_length()
        # The factor of the hash is secret, so that an attacker cannot fill one set.
        if not self.numbers[-1]:
            self.numbers[-1] = secrets.randbits(64) | 1
        self._factor = self.numbers[-1]

    @property
    def name(self) -> str:
        return f"{self._factor:x}"

    @staticmethod
    def slots(columns: int) -> int:
        slots = _MOST_SLOTS
        while slots * (_FIRST + columns) * _WORD > _MOST_MEMORY and slots > _WAYS:
            slots //= 2
        return slots

    @classmethod
    def size(cls, columns: int) -> int:
        # The kernel allocates pages only when they are written.
        return (cls.slots(columns) * (_FIRST + columns) + 1) * _WORD

    def find(self, source: int, now: int) -> int | None:
        """Find or make the slot of a source; ``None`` if its set is full of sources with connections.

        If no slot is free, the one without connections whose bucket is nearest to full is reused.
        """
        numbers, width = self.numbers, self.width
        # Multiplied only once, neighbouring addresses would have regular distances and might share few sets.
        mixed = source * self._factor & _ALL
        mixed = (mixed ^ mixed >> 32) * self._factor & _ALL
        start = (mixed >> self._shift) * _WAYS * width
        end = start + _WAYS * width
        sources = numbers[start:end:width].tolist()
        if source in sources:
            return start + sources.index(source) * width
        free_slot, soonest = None, 0
        for slot in range(start, end, width):
            full_at = numbers[slot + _FULL_AT]
            if (free_slot is None or full_at < soonest) and not self.total(slot):
                free_slot, soonest = slot, full_at
                if full_at <= now:
                    break
        if free_slot is not None:
            numbers[free_slot] = source
            for number in (_FULL_AT, _MADE, _ELSEWHERE):
                numbers[free_slot + number] = 0
        return free_slot

    def tracked(self, now: int) -> int:
        """Count the slots in use."""
        tracked = {at - 1 for at, full_at in self.each(_FULL_AT) if full_at > now}
        for number in range(_ELSEWHERE, self.width):
            tracked.update(at - number for at, _ in self.each(number))
        return len(tracked)

    def each(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the index and the value of one column of each slot, if it is not 0, as most are."""
        width = self.width
        for start, end in self.written():
            places = range(start + (number - start) % width, end, width)
            values = self.numbers[places.start : end : width].tolist()
            yield from zip(itertools.compress(places, values), filter(None, values), strict=True)

    def more(self, number: int, before: list[int]) -> dict[int, int]:
        """Return by how much one column of each slot has grown, or what it is if it has begun again, and keep in `before` what it is."""
        more, width = dict[int, int](), self.width
        before.extend([0] * (len(self.numbers) // width - len(before)))
        for start, end in self.written():
            places = range(start + (number - start) % width, end, width)
            values = self.numbers[places.start : end : width].tolist()
            part = slice(places.start // width, places.start // width + len(values))
            differ = map(operator.ne, values, had := before[part])
            for at, now, then in itertools.compress(zip(places, values, had, strict=True), differ):
                more[at - number] = now - then if now > then else now
            before[part] = values
        return more

    def total(self, slot: int) -> int:
        return sum(self.numbers[slot + _ELSEWHERE : slot + self.width].tolist())

    def buckets(self, now: int) -> bytes:
        """Return the sources whose buckets are not full, for `drain_buckets`.

        These are pairs of 64-bit numbers, a source and the nanoseconds until its bucket is full.
        """
        numbers = self.numbers
        buckets = ((numbers[at - 1], full - now) for at, full in self.each(_FULL_AT) if full > now)
        return array("Q", itertools.chain.from_iterable(buckets)).tobytes()

    def drain_buckets(self, buckets: bytes, now: int) -> None:
        """Take the tokens from the buckets that their sources have used in another table."""
        for source, needs in _pairs(buckets):
            slot = self.find(source, now)
            if slot is not None:
                at = slot + _FULL_AT
                self.numbers[at] = min(max(self.numbers[at], now + needs), _ALL)

    def clear(self, column: int) -> None:
        self.clear_number(_FIRST + column)

    def refill(self) -> None:
        self.clear_number(_FULL_AT)

    def forget_elsewhere(self) -> None:
        self.clear_number(_ELSEWHERE)

    def clear_number(self, number: int) -> None:
        for at, _ in self.each(number):
            self.numbers[at] = 0


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    """Read pairs of 64 bits."""
    numbers = array("Q")
    numbers.frombytes(data[: len(data) // (2 * _WORD) * 2 * _WORD])
    return zip(numbers[::2], numbers[1::2], strict=True)


class PerSource:
    """Admits or refuses connections by the counts of their sources.

    Args:
        lock: Held while a slot is found and checked, since other processes change slots, too.
        moving: The column of connections that are on their way from one process to another; ``None`` if there is none.

    Attributes:
        reached: The limit that refused the last client.
    """

    reached: LimitName = "max_connections_per_source"

    def __init__(
        self,
        limits: SourceLimits,
        seconds: Callable[[], float],
        table: SourceTable | None = None,
        column: int = 0,
        lock: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it has no state
        moving: int | None = None,
    ) -> None:
        self._limits = limits
        self._seconds = seconds
        self.source_table = table or SourceTable(mmap.mmap(-1, SourceTable.size(1)))
        self._column = _FIRST + column
        self._moving = None if moving is None else _FIRST + moving
        self._lock = lock
        self._uncounted = memoryview(bytearray(_WORD)).cast("Q")

    def enter(self, source: int) -> Permit | None:
        """Admit a connection and count it, or return ``None`` if a limit is reached.

        If the source can get no slot, since too many others have connections, it is admitted without being counted: limits by
        source do not stop an attacker with so many addresses, and other clients must not suffer.
        """
        now = int(self._seconds() * _SECOND)
        table, limits = self.source_table, self._limits
        numbers = table.numbers
        with self._lock:
            slot = table.find(source, now)
            if slot is None:
                return Permit(self._uncounted, 0)
            total = table.total(slot)
            if limits.connections and limits.connections <= total & _CONNECTIONS:
                self.reached = "max_connections_per_source"
                return None
            if 0 < limits.undecided <= total // _UNDECIDED:
                self.reached = "max_undecided_per_source"
                return None
            if limits.interval:
                empty_until = now + limits.interval * limits.burst
                # The time can be further ahead only if the clock was set back.
                full_at = min(max(numbers[slot + _FULL_AT], now), empty_until + _MOST_DEBT)
                is_admitted = full_at + limits.interval <= empty_until
                numbers[slot + _FULL_AT] = full_at + limits.interval * is_admitted
                if not is_admitted:
                    self.reached = "connection_rate_per_source"
                    return None
            numbers[slot + _MADE] = (numbers[slot + _MADE] + 1) & _ALL
            return Permit(numbers, slot + self._column)

    # What other machines need to know of the sources here, and what is known of those there.

    @property
    def table(self) -> str:
        return self.source_table.name

    @property
    def is_shareable(self) -> bool:
        return bool(self._limits.connections or self._limits.interval)

    def made(self, before: list[int]) -> dict[int, int]:
        """Return how many connections sources have made since the last call with the same list, by their slots."""
        return self.source_table.more(_MADE, before)

    def busy(
        self, new: Mapping[int, int], seconds: float, known: Container[int]
    ) -> Iterator[tuple[int, int, int, int, float]]:
        """Yield how near to its limits the source of each slot is, of some that have made `new` connections in so many seconds.

        That is 1 at a limit, and -1 below the half of each. A source that other machines are `known` to have has its rate shared however
        slow it is. Before it come the slot, the source, how many connections it has ever made, and how many it has here.
        """
        now, limits, numbers = (
            int(self._seconds() * _SECOND),
            self._limits,
            self.source_table.numbers,
        )
        half_of_rate, burst = seconds * _SECOND / 2, limits.interval * limits.burst
        for slot, count in new.items():
            total = self.source_table.total(slot) & _CONNECTIONS
            here = max(total - numbers[slot + _ELSEWHERE], 0)
            made = count * limits.interval
            used = (numbers[slot + _FULL_AT] - now) / burst if made else 0.0
            has = total / limits.connections if here and limits.connections else 0.0
            is_fast = made and (slot in known or made >= half_of_rate)
            near = max(used, has, 0.0)
            is_busy = is_fast or near >= 0.5
            yield slot, numbers[slot], numbers[slot + _MADE], here, near if is_busy else -1.0

    def apply(self, values: Mapping[int, tuple[int | None, int, int]]) -> dict[int, int]:
        """Count what sources have at other machines, and take what they have made there from their buckets.

        Args:
            values: By the source: its slot if that is known, how many connections it has elsewhere, and how many are new.

        Returns:
            The slots of those that have one.
        """
        now, limits, numbers = (
            int(self._seconds() * _SECOND),
            self._limits,
            self.source_table.numbers,
        )
        slots, changed = dict[int, int](), list[tuple[int, int, int]]()
        for source, (slot, elsewhere, made) in values.items():
            there = min(elsewhere, _CONNECTIONS >> 1)
            is_same = slot is not None and numbers[slot + _ELSEWHERE] == there
            if slot is not None and is_same and not made and numbers[slot] == source:
                slots[source] = slot
            else:
                changed.append((source, there, made))
        with self._lock if changed else nullcontext():
            for source, there, made in changed:
                if (slot := self.source_table.find(source, now)) is not None:
                    slots[source] = slot
                    numbers[slot + _ELSEWHERE] = there
                    full_at = max(numbers[slot + _FULL_AT], now) + limits.interval * made
                    most = now + limits.interval * limits.burst + _MOST_DEBT
                    numbers[slot + _FULL_AT] = min(full_at, most)
        return slots

    def forget_elsewhere(self) -> None:
        self.source_table.forget_elsewhere()

    def buckets(self) -> bytes:
        return self.source_table.buckets(int(self._seconds() * _SECOND))

    def restore(self, buckets: bytes) -> None:
        with self._lock:
            self.source_table.drain_buckets(buckets, int(self._seconds() * _SECOND))

    def tracked(self) -> int:
        return self.source_table.tracked(int(self._seconds() * _SECOND))

    def adopt(self, source: int, *, has_moved: bool) -> Permit:
        """Count a connection that another process admitted and routed, and moved away if it `has_moved`."""
        with self._lock:
            slot = self.source_table.find(source, int(self._seconds() * _SECOND))
            if slot is None:
                permit = Permit(self._uncounted, 0)
            else:
                numbers = self.source_table.numbers
                permit = Permit(numbers, slot + self._column)
                moving = self._moving if has_moved else None
                if moving is not None and (count := numbers[slot + moving]):
                    numbers[slot + moving] = count - 1
        permit.mark_decided()
        return permit

    def move_away(self, permit: Permit) -> None:
        """Count a connection as in transit to the process that will `adopt` it, instead of by its permit."""
        if self._moving is None:
            permit.release()
        else:
            with self._lock:
                permit.move(self._moving - self._column)


class Permit:
    """Counts one connection until `release`.

    The shared memory may be corrupted by another process. So the numbers are clamped: an overflow must not end the connection.
    """

    __slots__ = ("_at", "_numbers", "_undecided")

    def __init__(self, numbers: memoryview[int], at: int) -> None:
        self._numbers = numbers
        self._at = at
        self._undecided = True
        numbers[at] = min(numbers[at] + _UNDECIDED + 1, _ALL)

    def mark_decided(self) -> None:
        if self._undecided:
            self._undecided = False
            self._numbers[self._at] = max(self._numbers[self._at] - _UNDECIDED, 0)

    def move(self, by: int) -> None:
        """Stop counting here, and count one more that many columns further."""
        if len(self._numbers) > 1:  # otherwise it is not counted
            at = self._at + by
            self._numbers[at] = min(self._numbers[at] + 1, _ALL)
        self.release()

    def release(self) -> None:
        """Stop counting; must be called once."""
        self.mark_decided()
        self._numbers[self._at] = max(self._numbers[self._at] - 1, 0)


MOST_PER_SOURCE = 150
"""Handshakes that a worker does at once for a source: OpenSSL takes 50 KiB for each."""

PATIENCE = 2.0  # seconds after which a handshake makes room for one that waits
_STEPS = 32

_Key: TypeAlias = tuple[str, str | bytes | int]


class _WaitingHandshake(Protocol):
    def has_turn(self) -> None: ...
    def make_room(self) -> None: ...


@define
class _SourceHandshakes:
    """In both, the oldest is the first."""

    began: dict[_WaitingHandshake, float] = attrs.field(factory=dict)
    waiting: dict[_WaitingHandshake, None] = attrs.field(factory=dict)


class Handshakes:
    """The handshakes of this process's clients, by listener and source."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.sources: dict[_Key, _SourceHandshakes] = {}

    def enter(self, key: _Key, handshake: _WaitingHandshake, limit: int) -> float:
        """Add a handshake; return 0 if it may begin, otherwise in how many seconds to call `end_oldest`. A limit of 0 is none."""
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = _SourceHandshakes()
        if 0 < limit <= len(source.began):
            source.waiting[handshake] = None
            # Spread out: if all that came together began at the same time, other clients would wait.
            return PATIENCE * (1 + len(source.waiting) % _STEPS / _STEPS)
        source.began[handshake] = self._seconds()
        return 0.0

    def end_oldest(self, key: _Key) -> None:
        """End the oldest handshake of a source if it has taken long: its client stalls, or is too slow to wait for."""
        oldest, since = next(iter(self.sources[key].began.items()))
        if self._seconds() - since >= PATIENCE:
            oldest.make_room()
            self.leave(key, oldest)

    def leave(self, key: _Key, handshake: _WaitingHandshake) -> None:
        source = self.sources.get(key)
        if source is None:
            return
        source.waiting.pop(handshake, None)
        if source.began.pop(handshake, None) is not None and source.waiting:
            following = next(iter(source.waiting))
            del source.waiting[following]
            source.began[following] = self._seconds()
            following.has_turn()
        elif not source.began:
            del self.sources[key]
