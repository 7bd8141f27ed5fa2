"""Bans that operators make beside the rules: who, until when and why. Pure."""

from __future__ import annotations

import math
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import attrs

from txmux.jsontext import time_of
from txmux.rules.model.networks import unmapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.rules.model import IPNetwork

__all__ = ["Ban", "Bans", "banned_network", "written"]


def banned_network(text: str) -> IPNetwork:
    """Read an address or a network.

    Raises:
        ValueError: It is neither.
    """
    network = ip_network(text.strip())
    first = unmapped(network.network_address)
    if first.version != network.version and network.prefixlen >= 96:  # ::ffff:0:0/96, RFC 4291
        return ip_network((first, network.prefixlen - 96))
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
        """Give it as an object of JSON."""
        until = None if self.until == math.inf else self.until
        return {
            "network": written(self.network),
            "since": self.since,
            "until": until,
            "reason": self.reason,
        }

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Ban:
        """Read what `as_json` gave, in this version of txmux or in another.

        Raises:
            ValueError: It is something else. Also `KeyError` and `TypeError`.
        """
        until = told.get("until")
        return cls(
            banned_network(told["network"]),
            time_of(told["since"]),
            math.inf if until is None else time_of(until),
            str(told.get("reason", "")),
        )


def written(network: IPNetwork) -> str:
    """Write an address without the length of its prefix."""
    is_address = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_address else network)


@attrs.frozen
class Bans:
    """All of them, one for each network."""

    by_network: Mapping[IPNetwork, Ban] = attrs.field(factory=dict)

    @classmethod
    def read(cls, told: Iterable[Mapping[str, Any]]) -> Bans:
        """Read what `as_json` gave."""
        bans = (Ban.read(one) for one in told)
        return cls({ban.network: ban for ban in bans})

    def as_json(self) -> list[dict[str, Any]]:
        """Give them as values of JSON."""
        return [ban.as_json() for ban in self.by_network.values()]

    def at(self, now: float) -> Bans:
        """Give those that are not over."""
        return Bans({network: ban for network, ban in self.by_network.items() if ban.until > now})

    def with_ban(self, ban: Ban) -> Bans:
        """Add one, in the place of an older one of the same network."""
        return Bans({**self.by_network, ban.network: ban})

    def without(self, network: IPNetwork) -> Bans:
        """Take one away, if it is there."""
        return Bans({one: ban for one, ban in self.by_network.items() if one != network})

    def until(self) -> dict[IPNetwork, float]:
        """Give until when each is banned."""
        return {network: ban.until for network, ban in self.by_network.items()}
