"""Sets of IP networks that answer in constant time, however many networks they hold."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["IPAddress", "IPNetwork", "NetworkSet"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkSet:
    """An immutable set of networks: ``address in networks``.

    The networks are kept by family and prefix length, so that a look-up costs one probe for each length that
    occurs (33 and 129 at most), not one for each network.

    Args:
        networks: IPv4 and IPv6 networks, in any order; they may overlap.
    """

    __slots__ = ("_by_shift", "_networks")

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._networks = tuple(networks)
        by_shift: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in self._networks:
            shift = network.max_prefixlen - network.prefixlen
            prefixes = by_shift[network.version].setdefault(shift, set())
            prefixes.add(int(network.network_address) >> shift)
        self._by_shift = by_shift

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, prefixes in self._by_shift[address.version].items():
            if number >> shift in prefixes:
                return True
        return False

    def __iter__(self) -> Iterator[IPNetwork]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and set(self._networks) == set(other._networks)

    def __hash__(self) -> int:
        return hash(frozenset(self._networks))

    def __repr__(self) -> str:
        return f"NetworkSet({', '.join(map(str, self._networks))})"
