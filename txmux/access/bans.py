"""Bans that operators make beside the rules: who, until when and why. Pure."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from txmux.errors import printable
from txmux.rules.model.networks import unmapped
from txmux.wire.jsontext import time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from txmux.rules.model import IPNetwork

__all__ = ["Ban", "Bans", "Change", "banned_network", "written"]

_LONGEST_REASON = 200
_AT_ONCE = 1000
"""Bans that are forgotten in one go: about a millisecond."""

_FORGOTTEN = 1000
"""Ends that may be noted of bans that are no more, beside as many as there are bans."""


def banned_network(text: str) -> IPNetwork:
    """Read an address or a network; the interface of an address (RFC 4007) is left out.

    Raises:
        ValueError: It is neither.
    """
    network = ip_network(text.strip())
    first = unmapped(network.network_address)
    if first.version != network.version and network.prefixlen >= 96:  # ::ffff:0:0/96, RFC 4291
        return ip_network((first, network.prefixlen - 96))
    if "%" in text:  # any text may be the name of an interface, which no set of networks looks at
        return type(network)((int(network.network_address), network.prefixlen))
    return network


@attrs.frozen
class Ban:
    """One ban.

    Attributes:
        network: Who is banned.
        since: When that was said, in seconds since 1970.
        until: When it is over; `math.inf` is when it is taken back.
        reason: Why, for people; maybe nothing.
    """

    network: IPNetwork
    since: float
    until: float = math.inf
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        until = None if self.until == math.inf else self.until
        return {
            "network": written(self.network),
            "since": self.since,
            "until": until,
            "reason": self.reason,
        }

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Ban:
        """Read what `as_json` gave, in this version of txmux or in another.

        Raises:
            ValueError: It is something else. Also `KeyError` and `TypeError`.
        """
        until = values.get("until")
        return cls(
            banned_network(values["network"]),
            time_of(values["since"]),
            math.inf if until is None else time_of(until),
            printable(str(values.get("reason", "")), _LONGEST_REASON),
        )


Change: TypeAlias = "tuple[IPNetwork, Ban | None]"
"""A network, and its ban from now on, if it has any."""


def written(network: IPNetwork) -> str:
    """Write an address without the length of its prefix."""
    is_address = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_address else network)


class Bans:
    """All of them, one for each network, in the order in which these were banned.

    There may be a hundred thousand. So they are changed in place, and whoever has to know is told what has changed.
    """

    def __init__(self, bans: Iterable[Ban] = ()) -> None:
        self._by_network: dict[IPNetwork, Ban] = {}
        self._ends: list[tuple[float, int, IPNetwork]] = []
        self._numbers = count()
        self._told: dict[IPNetwork, Ban] = {}
        self.change((ban.network, ban) for ban in bans)

    def __len__(self) -> int:
        return len(self._by_network)

    def __iter__(self) -> Iterator[Ban]:
        return iter(self._by_network.values())

    def get(self, network: IPNetwork) -> Ban | None:
        return self._by_network.get(network)

    def wider(self, network: IPNetwork) -> IPNetwork | None:
        """Return the smallest banned network that has another one in it."""
        for length in reversed(range(network.prefixlen)):
            around = network.supernet(new_prefix=length)
            if around in self._by_network:
                return around
        return None

    def at(self, now: float) -> list[Ban]:
        """Return those that are not over."""
        return [ban for ban in self if ban.until > now]

    def change(self, changes: Iterable[Change]) -> list[Change]:
        """Ban networks, each in the place of an older ban of it, or with ``None`` no more; give what is different now."""
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
            self._ends = [one for one in self._ends if self._is_end(one)]
            heapify(self._ends)
        return made

    def replace(self, bans: Iterable[Ban]) -> list[Change]:
        """Replace all bans; returns what has changed."""
        wanted = {ban.network: ban for ban in bans}
        gone = [network for network in self._by_network if network not in wanted]
        return self.change([*((network, None) for network in gone), *wanted.items()])

    def expire(self, now: float) -> list[Change]:
        """Forget some of those that are over, and give them; who asks again each second forgets all."""
        gone: list[Change] = []
        while self._ends and self._ends[0][0] <= now and len(gone) < _AT_ONCE:
            one = heappop(self._ends)
            if self._is_end(one):
                del self._by_network[one[2]]
                gone.append((one[2], None))
        return gone

    def _is_end(self, one: tuple[float, int, IPNetwork]) -> bool:
        """Return whether a ban still ends as it was noted."""
        ban = self._by_network.get(one[2])
        return ban is not None and ban.until == one[0]

    def as_json(self, *, again: bool = False) -> dict[str, Any]:
        """Return them as values of JSON, for another process.

        Args:
            again: Whether only what is different since this was called before.
        """
        before, self._told = self._told, {} if again else {**self._by_network}
        if not again:
            return {"all": [ban.as_json() for ban in self]}
        changed = [ban for ban in self if before.pop(ban.network, None) is not ban]
        return {"changed": [ban.as_json() for ban in changed], "gone": [*map(written, before)]}

    def restore(self, values: Mapping[str, Any]) -> list[Change]:
        """Take in what another process has told; give what is different now."""
        if "all" in values:
            return self.replace(map(Ban.read, values["all"]))
        bans = map(Ban.read, values.get("changed", ()))
        gone: Iterable[str] = values.get("gone", ())
        changes: list[Change] = [(ban.network, ban) for ban in bans]
        return self.change([*changes, *((banned_network(network), None) for network in gone)])
