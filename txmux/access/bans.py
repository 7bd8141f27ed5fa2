"""Bans beside the rules: the list (`Bans`), its check in each process (`Banned`), and its changes by operators (`ServiceBans`)."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from ipaddress import ip_network
from itertools import count
from typing import Any, TypeAlias

import attrs

from txmux.classes import define, frozen
from txmux.errors import MuxError, printable
from txmux.rules.model import IPNetwork
from txmux.telemetry.documents import BanDocument
from txmux.telemetry.steps import RecurringSteps
from txmux.transport import IPAddress, unmapped
from txmux.wire import codec
from txmux.wire.codec import AGE, UNTIL, Origin, converted, sent

LONGEST_REASON = 200
_AT_ONCE = 1000  # bans that are forgotten in one go: about a millisecond
_FORGOTTEN = 1000
"""How many ends of lifted bans may stay noted, beyond one for each ban."""


def banned_network(text: str) -> IPNetwork:
    """Read an address or a network, or raise `ValueError`; the interface of an address (RFC 4007) is left out."""
    network = ip_network(text.strip())
    first = unmapped(network.network_address)
    if first.version != network.version:  # it is in ::ffff:0:0/96, RFC 4291
        return ip_network((first, network.prefixlen - 96))
    # Any text may be the name of an interface, which no set of networks looks at.
    return type(network)((int(network.network_address), network.prefixlen))


def written(network: IPNetwork) -> str:
    """Write an address without the length of its prefix."""
    is_address = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_address else network)


@frozen
class Ban:
    """One ban."""

    network: IPNetwork = sent(converted(banned_network, written))
    since: float = sent(AGE, name="age")  # the time of the ban, by the monotonic clock
    # When it ends, by the same; `math.inf` if it has to be lifted.
    until: float = sent(UNTIL, name="left", is_needed=True, default=math.inf)
    reason: str = sent(converted(lambda text: printable(str(text), LONGEST_REASON)), default="")

    def as_json(self, now: float) -> BanDocument:
        """Return it for people, with times in seconds since 1970; `now` is by the monotonic clock."""
        ahead = time.time() - now
        return {
            "network": written(self.network),
            "since": self.since + ahead,
            "until": None if self.until == math.inf else self.until + ahead,
            "reason": self.reason,
        }


Change: TypeAlias = "tuple[IPNetwork, Ban | None]"
"""A network and its new ban; ``None`` if it has none."""


class Bans:
    """All bans, one for each network, the oldest first. There may be many, so methods return only what has changed."""

    def __init__(self, bans: Iterable[Ban] = ()) -> None:
        self._by_network: dict[IPNetwork, Ban] = {}
        self._ends: list[tuple[float, int, IPNetwork]] = []
        self._numbers = count()
        self._sent: dict[IPNetwork, Ban] = {}
        self.change((ban.network, ban) for ban in bans)

    def __len__(self) -> int:
        return len(self._by_network)

    def __iter__(self) -> Iterator[Ban]:
        return iter(self._by_network.values())

    def get(self, network: IPNetwork) -> Ban | None:
        return self._by_network.get(network)

    def wider(self, network: IPNetwork) -> IPNetwork | None:
        """Return the smallest banned network that contains another one."""
        for length in reversed(range(network.prefixlen)):
            around = network.supernet(new_prefix=length)
            if around in self._by_network:
                return around
        return None

    def at(self, now: float) -> list[Ban]:
        return [ban for ban in self if ban.until > now]

    def change(self, changes: Iterable[Change]) -> list[Change]:
        """Ban networks, each replacing an older ban of it, or lift bans with ``None``; returns the changes."""
        made = []
        for network, ban in changes:
            if ban == self._by_network.get(network):
                continue
            made.append((network, ban))
            if ban is None:
                del self._by_network[network]
                continue
            self._by_network[network] = ban
            if ban.until != math.inf:
                heappush(self._ends, (ban.until, next(self._numbers), network))
        if len(self._ends) > 2 * len(self) + _FORGOTTEN:
            self._ends = [end for end in self._ends if self._is_end(end)]
            heapify(self._ends)
        return made

    def replace(self, bans: Iterable[Ban]) -> list[Change]:
        new = {ban.network: ban for ban in bans}
        gone = [network for network in self._by_network if network not in new]
        return self.change([*((network, None) for network in gone), *new.items()])

    def expire(self, now: float) -> list[Change]:
        """Remove some of the expired bans, and return them; called each second, it removes all."""
        gone: list[Change] = []
        while self._ends and self._ends[0][0] <= now and len(gone) < _AT_ONCE:
            end = heappop(self._ends)
            if self._is_end(end):
                del self._by_network[end[2]]
                gone.append((end[2], None))
        return gone

    def _is_end(self, end: tuple[float, int, IPNetwork]) -> bool:
        """Return whether a noted end is still that of a ban."""
        ban = self._by_network.get(end[2])
        return ban is not None and ban.until == end[0]

    def state(self, now: float, *, again: bool = False) -> dict[str, Any]:
        """Return all, or only what is different since the call before, as values of JSON, for another process."""
        before, self._sent = self._sent, {} if again else {**self._by_network}
        if not again:
            return {"all": [codec.write(ban, Origin(now)) for ban in self]}
        changed = [(ban.network, ban) for ban in self if before.pop(ban.network, None) is not ban]
        return changes_as_json([*changed, *((network, None) for network in before)], now)

    def restore(self, values: Mapping[str, Any], now: float) -> list[Change]:
        if "all" in values:
            return self.replace(codec.read(Ban, fields, Origin(now)) for fields in values["all"])
        return self.change(changes_in(values, now))


def changes_as_json(changes: Iterable[Change], now: float) -> dict[str, Any]:
    """Return changes as values of JSON, for `changes_in` in another process."""
    changes = [*changes]
    return {
        "changed": [codec.write(ban, Origin(now)) for _, ban in changes if ban is not None],
        "gone": [written(network) for network, ban in changes if ban is None],
    }


def changes_in(values: Mapping[str, Any], now: float) -> list[Change]:
    bans = [codec.read(Ban, fields, Origin(now)) for fields in values.get("changed", ())]
    gone: Iterable[str] = values.get("gone", ())
    changes: list[Change] = [(ban.network, ban) for ban in bans]
    return [*changes, *((banned_network(network), None) for network in gone)]


Row: TypeAlias = "tuple[int, int, int, float | None]"
"""A change as in a message to a worker: the version, how many bits of an address may be any, the others as a number, and until when it
is banned by the monotonic clock, which all processes of a service share: ``None`` is for ever, and 0 lifts the ban."""


def rows_of(changes: Iterable[Change]) -> list[Row]:
    rows: list[Row] = []
    for network, ban in changes:
        shift = network.max_prefixlen - network.prefixlen
        until = 0 if ban is None else None if ban.until == math.inf else ban.until
        rows.append((network.version, shift, int(network.network_address) >> shift, until))
    return rows


class Banned:
    """Networks that are banned until some time. Expired bans have no effect, without a timer.

    Args:
        now: The monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until: dict[int, dict[int, dict[int, float]]] = {4: {}, 6: {}}
        self.any = False

    def change(self, rows: Iterable[Row]) -> bool:
        """Ban networks, or lift bans, by the rows of `rows_of`; returns whether a network is banned that was not."""
        now, is_new = self._now(), False
        for version, shift, prefix, end in rows:
            by_shift = self._until[version]
            ends = by_shift.setdefault(shift, {})
            before, until = ends.pop(prefix, 0.0), math.inf if end is None else float(end)
            if until:
                ends[prefix] = until
                is_new = is_new or before <= now < until
            elif not ends:  # each length costs a look-up for every client
                del by_shift[shift]
        self.any = any(self._until.values())
        return is_new

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, ends in self._until[address.version].items():
            until = ends.get(number >> shift)
            if until is not None and until > self._now():
                return True
        return False


_MOST = 100_000  # bans that each process keeps
FULL = f"there are {_MOST} bans already; ban networks, or use a file"


class BanError(MuxError):
    """A ban cannot be added or lifted."""


@define(eq=False, slots=False)
class ServiceBans:
    """Adds and lifts bans in every process of a service.

    Args:
        bans: Returns the bans; some may have expired.
        change: Sends changes to every process, and returns those that have not answered.
        now: The monotonic clock, by which bans begin and end.
        recurring: Runs what is done about them again and again.

    Attributes:
        publish: Called for each change here with the network and its ban, or ``None``, without waiting.
    """

    _bans: Callable[[], Bans]
    _change: Callable[[Sequence[Change]], Awaitable[list[str]]]
    now: Callable[[], float] = time.monotonic
    recurring: RecurringSteps = attrs.field(factory=RecurringSteps)
    publish: Callable[[IPNetwork, Ban | None], object] | None = attrs.field(
        default=None, init=False
    )

    def __len__(self) -> int:
        return len(self._bans())

    def get(self, network: IPNetwork) -> Ban | None:
        # It may have expired.
        return self._bans().get(network)

    def current(self) -> list[Ban]:
        return self._bans().at(self.now())

    async def add(self, ban: Ban) -> str:
        """Ban a network on every listener, in place of an earlier ban; returns what has changed. Raises `BanError` if there are too many."""
        bans = self._bans()
        gone = bans.expire(self.now()) if len(bans) >= _MOST else []
        if len(bans) >= _MOST and bans.get(ban.network) is None:
            raise BanError(FULL)
        late = await self._change([*gone, (ban.network, ban)])
        return self._changed(ban.network, ban, "is banned", late)

    async def lift(self, network: IPNetwork) -> str:
        """Lift the ban of this very network; returns what has changed. Raises `BanError` if there is none."""
        bans = self._bans()
        ban = bans.get(network)
        if ban is None or ban.until <= self.now():
            wider = bans.wider(network)
            hint = "" if wider is None else f"; {written(wider)} is: unban that"
            raise BanError(f"{written(network)} is not banned{hint}")
        late = await self._change([(network, None)])
        return self._changed(network, None, "is no longer banned", late)

    def _changed(self, network: IPNetwork, ban: Ban | None, how: str, late: Sequence[str]) -> str:
        if self.publish is not None:
            self.publish(network, ban)
        return "; ".join([f"{written(network)} {how}", *(f"not yet: {text}" for text in late)])

    async def merge(self, changes: Iterable[Change]) -> list[IPNetwork]:
        """Apply changes of another machine; returns the networks whose bans there is no room for."""
        bans = self._bans()
        room = _MOST - len(bans)
        taken: list[Change] = []
        left_out: list[IPNetwork] = []
        for network, ban in changes:
            if bans.get(network) is None and ban is not None:
                room -= 1
                if room < 0:
                    left_out.append(network)
                    continue
            taken.append((network, ban))
        await self._change(taken)
        return left_out
