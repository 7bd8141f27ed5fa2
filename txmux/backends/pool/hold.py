"""Clients that wait until a server of their backend is up, or until an operator releases them."""

from __future__ import annotations

import heapq
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.access.admission import Tally
from txmux.classes import define
from txmux.telemetry.counting.counter_groups import BackendCounts
from txmux.telemetry.reasons import ConnectFailure

_RATE = 100.0  # clients released per second, by all processes together
_TICK = 0.05  # seconds between two ticks while a client waits
_SPARE = 100  # stale entries in the heap
_FIRST_RETRY, _LAST_RETRY = 0.1, 0.5
"""Seconds until the first waiting client retries a server that has refused it: short at first, so that a restart is noticed soon."""


_HELD = re.compile(r"(\d+\.\d)s")  # a plugin's matcher may use the same name


class _Pool(Protocol):
    def find_sole(self) -> None: ...

    def pace(self) -> float: ...


@define(eq=False)
class HeldClient:
    """One of the `WaitingClients`, until it is connected or leaves.

    Attributes:
        came_at: When it came, which is its place among the others.
        seconds: How long it may wait for a server; 0 is only while an operator holds the backend.
        turn: Called when it is its turn. It returns whether it tries a server, or waits no longer.
        refuse: Called when it has waited too long, or another client has taken its place.
        source: Where it comes from; once there are `hold_limit` clients, the places are shared out by that.
        check_client: Called before its turn, to check whether it has left.
        may_have_left: Whether nothing shows that the client is still connected; set before it waits, or by `WaitingClients.mark_possibly_gone`.
    """

    came_at: float
    seconds: float
    turn: Callable[[], bool]
    refuse: Callable[[ConnectFailure], None]
    source: int = -1
    check_client: Callable[[], object] = lambda: None
    may_have_left: bool = False
    number: int = attrs.field(default=0, init=False)  # breaks ties
    since: float = attrs.field(default=-1.0, init=False)
    is_waiting: bool = attrs.field(default=False, init=False)
    is_trying: bool = attrs.field(default=False, init=False)
    tally: Tally = attrs.field(factory=Tally, init=False)
    timer: IDelayedCall | None = attrs.field(default=None, init=False)

    def waited(self, facts: Mapping[str, str], now: float) -> str:
        """Return the fact ``held``: the wait, and that for a backend whose fallback this one is."""
        before = _HELD.fullmatch(facts.get("held", ""))
        seconds = now - self.since + (float(before[1]) if before else 0.0)
        return f"{seconds:.1f}s"


class _BySource:
    """Clients by source; finds the sources with the most clients without a search."""

    def __init__(self) -> None:
        self._clients: dict[int, dict[HeldClient, None]] = {}
        self._by_count: list[dict[int, None]] = [{}]

    def count(self, source: int) -> int:
        return len(self._clients.get(source, ()))

    def add(self, client: HeldClient) -> None:
        clients = self._clients.setdefault(client.source, {})
        clients[client] = None
        self._recount(client.source, len(clients) - 1, len(clients))

    def remove(self, client: HeldClient) -> None:
        clients = self._clients[client.source]
        del clients[client]
        self._recount(client.source, len(clients) + 1, len(clients))

    def _recount(self, source: int, before: int, after: int) -> None:
        self._by_count[before].pop(source, None)
        if after == len(self._by_count):
            self._by_count.append({})
        if after:
            self._by_count[after][source] = None
        else:
            del self._clients[source]
        if not self._by_count[-1]:
            self._by_count.pop()

    def last_of_largest(self, least: int) -> HeldClient | None:
        """Return the last client of a source with the most clients, if it has at least so many; ``None`` if all of these try a server."""
        if len(self._by_count) <= least:
            return None
        clients = self._clients[next(iter(self._by_count[-1]))]
        return next((client for client in reversed(clients) if client.is_waiting), None)


class WaitingClients:
    """The clients of one backend that wait, of all configurations, in the order in which they came.

    While no server is known to accept connections, the first of them tries alone. Once it is connected, the others
    follow at a limited rate, which a server that has just come up can take. New clients wait behind all others; each
    releases one waiting client, so their number always falls. Those that may have left come after all others.

    Args:
        pools: Of all configurations, as weak references.
        on_waiting: Called with true when the first client begins to wait, and when no server turns out to be up after a release;
            with false when none waits any longer.
        tally: Makes the counter of waiting clients of all processes, with a limit.
        now: The monotonic clock of all processes, by which an operator's hold ends.

    Attributes:
        clock: Set before a client waits, as `counts`.
        processes: How many processes share the rate.
        cause: Why the last one that tried got no server.
        blocks: Whether clients that do not wait get no server.
    """

    clock: IReactorTime
    counts: BackendCounts

    def __init__(
        self,
        pools: Iterable[Callable[[], _Pool | None]],
        on_waiting: Callable[[bool], object] = lambda _: None,
        tally: Callable[[int], Tally] = Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools, self._on_waiting, self._tally = pools, on_waiting, tally
        self._now = now
        self.processes = 1
        self.cause: ConnectFailure = "no-server"
        self.blocks = False
        self._until = 0.0  # 0 is not held, infinite until released
        self._released_at = -math.inf
        # A heap, also with some that left, and with former places of some that may have.
        self._waiting: list[tuple[bool, float, int, HeldClient]] = []
        self._sources = _BySource(), _BySource()  # present clients; those that may have left
        self._numbers = itertools.count()
        self._count = self._trying = 0
        self._is_short = False
        self._accepts: bool | None = None  # whether a server does, by the last try
        self._retry, self._retry_at = _FIRST_RETRY, 0.0
        self._credit, self._counted_at = 0.0, -math.inf
        self._came = 0  # new clients since the last tick, while servers accept
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return self._count

    # An operator's hold.

    @property
    def is_held(self) -> bool:
        if self._until and self._now() >= self._until:
            self.hold_until(0.0)
        return self._until > 0

    def hold_until(self, until: float) -> None:
        """Let clients wait until a time of the monotonic clock; 0 releases them."""
        was, self._until = self._until, until
        self._is_short |= until > 0
        if was and not until:
            self._accepts = None
            if self._count:
                self._released_at = self.clock.seconds()
        self._update()

    # Who waits.

    def may_wait(self, client: HeldClient) -> bool:
        """Return whether a client that got no server may wait for one."""
        blocked = self.blocks  # the hold may have ended, which the next line checks
        if self.is_held:
            return True
        if client.seconds:
            return client.since < 0 or self._left(client) > 0
        return blocked and not client.is_trying and self._accepts is not False

    def reserve(self, client: HeldClient, limit: int) -> bool:
        """Count a client against a limit, and return whether there was room; one that was counted, here or in another process, stays so."""
        if client.is_trying:
            return True
        client.tally = self._tally(limit)
        if client.since < 0:
            return client.tally.take()
        client.tally.add()
        return True

    def replace(self, client: HeldClient) -> bool:
        """Count a client in place of one whose source has more, first of one that may have left; return whether there was one."""
        present, doubtful = self._sources
        if client.may_have_left:
            last = doubtful.last_of_largest(doubtful.count(client.source) + 2)
        else:
            count = present.count(client.source)
            # For clients that may have left, one source may have up to half of the places.
            least = 1 if 2 * count < self._count else count + 1
            last = doubtful.last_of_largest(least) or present.last_of_largest(count + 2)
        if last is None:
            return False
        client.tally.add()  # first, or another process could take the slot
        self.remove(last)
        last.refuse("limit")
        return True

    def mark_possibly_gone(self, client: HeldClient) -> None:
        """Move a client behind the others, since it may have left."""
        if client.may_have_left:
            return
        if client.is_waiting or client.is_trying:
            self._sources[False].remove(client)
            self._sources[True].add(client)
        client.may_have_left = True
        if client.is_waiting:
            self._push(client)

    def add(self, client: HeldClient, *, is_short: bool) -> None:
        """Let a client wait, or wait again after its turn; `is_short` means that no server is left that it could try."""
        now, before = self.clock.seconds(), self._accepts
        is_first, was_trying = not self._count, client.is_trying
        if is_first:
            self.cause = "no-server"
        if was_trying:
            client.is_trying = False
            self._trying -= 1
            self._retry = min(_LAST_RETRY, 1.5 * self._retry)
        else:
            if client.since < 0:
                client.since = now
                self._came += self._accepts is True
            client.number = next(self._numbers)
            self._is_short &= self._count > 0
            self._count += 1
            self.counts.held()
            self._sources[client.may_have_left].add(client)
            if client.seconds:
                left = max(0.0, self._left(client))
                client.timer = self.clock.callLater(left, self._timed_out, client)
        if is_first or was_trying:
            self._accepts = None if self.is_held else False
            self._retry_at = now + self._retry
        self._push(client)
        self._is_short |= is_short or self.is_held
        self._update()
        if is_first or (self._accepts is False and before is not False):
            self._on_waiting(True)  # noqa: FBT003 - of a callback

    def _push(self, client: HeldClient) -> None:
        client.is_waiting = True
        place = client.may_have_left, client.came_at, client.number, client
        heapq.heappush(self._waiting, place)

    def remove(self, client: HeldClient, *, is_connected: bool = False) -> None:
        """Remove a client that is connected, refused or gone; nothing happens if it does not wait."""
        if not (client.is_waiting or client.is_trying):
            return
        if client.is_trying:
            self._trying -= 1
            if is_connected:
                self._accepts, self._retry = True, _FIRST_RETRY
        client.is_waiting = client.is_trying = False
        if client.timer is not None:
            client.timer.cancel()
            client.timer = None
        self._count -= 1
        self.counts.released()
        self._sources[client.may_have_left].remove(client)
        client.tally.give_back()
        if not self._count:
            self._is_short, self._accepts = False, None
            self._retry = _FIRST_RETRY
        if len(self._waiting) > 2 * self._count + _SPARE:
            self._waiting = [entry for entry in self._waiting if _is_current(entry)]
            heapq.heapify(self._waiting)
        self._update()
        if not self._count:
            self._on_waiting(False)  # noqa: FBT003 - of a callback

    def _left(self, client: HeldClient) -> float:
        # Start again once an operator has released it.
        return max(client.since, self._released_at) + client.seconds - self.clock.seconds()

    def _timed_out(self, client: HeldClient) -> None:
        client.timer = None
        left = client.seconds if self.is_held else self._left(client)
        if left > 0:
            client.timer = self.clock.callLater(left, self._timed_out, client)
        elif client.is_waiting:  # a client that tries a server may still succeed
            self.remove(client)
            client.refuse(self.cause)

    # Their turns.

    def _update(self) -> None:
        """Block clients that do not wait, or let them in; and start or stop the timer of those that do."""
        # Once servers accept, connecting clients hold up no others.
        ahead = self._count - self._trying if self._accepts else self._count
        blocks = self._until > 0 or (ahead > 0 and self._is_short)
        if blocks is not self.blocks:
            self.blocks = blocks
            for pool in filter(None, (reference() for reference in self._pools)):
                pool.find_sole()
        if self._count and self._timer is None:
            self._timer = self.clock.callLater(_TICK, self._tick)
        elif not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self.clock.seconds()
        paces = [pool.pace() for reference in self._pools if (pool := reference()) is not None]
        rate = _RATE * (max(paces, default=0.0) or 1.0) / self.processes
        passed, self._counted_at = now - self._counted_at, now
        # Unused credit is not saved up.
        self._credit = min(max(1.0, _TICK * rate + self._credit % 1), self._credit + passed * rate)
        self._credit, self._came = self._credit + self._came, 0
        if not self.is_held:
            while self._credit >= 1 and self._may_try(now) and (client := self._next()):
                client.is_waiting, client.is_trying = False, True
                self._trying += 1
                if not client.turn():
                    client.is_trying = False
                    self._trying -= 1
                    before, self._accepts = self._accepts, False
                    self._is_short = True
                    self._push(client)
                    if before is not False:
                        self._on_waiting(True)  # noqa: FBT003 - of a callback
                    break
                self._credit -= 1
        self._update()

    def _may_try(self, now: float) -> bool:
        return bool(self._accepts) or (not self._trying and now >= self._retry_at)

    def _next(self) -> HeldClient | None:
        while self._waiting:
            entry = heapq.heappop(self._waiting)
            if _is_current(entry):
                entry[-1].check_client()
                if _is_current(entry):
                    return entry[-1]
        return None


def _is_current(entry: tuple[bool, float, int, HeldClient]) -> bool:
    may_have_left, *_, client = entry
    return client.is_waiting and client.may_have_left is may_have_left
