"""IP addresses, and sets of networks that answer in constant time, however many networks they hold."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["IPAddress", "IPNetwork", "NetworkSet", "is_address", "unmapped"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address, and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def unmapped(address: IPAddress) -> IPAddress:
    """Give the IPv4 address that a v4-mapped IPv6 address (RFC 4291, section 2.5.5.2) means; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address


class NetworkSet:
    """An immutable set of networks: ``address in networks``.

    The networks are kept by family and prefix length, as numbers. So a look-up costs one probe for each length that
    occurs (33 and 129 at most), not one for each network.

    Args:
        networks: IPv4 and IPv6 networks, or sets of them, in any order; they may overlap.
    """

    __slots__ = ("_by_shift",)

    def __init__(self, networks: Iterable[IPNetwork | NetworkSet]) -> None:
        self._by_shift: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            if isinstance(network, NetworkSet):
                self._add_all(network)
            else:
                shift = network.max_prefixlen - network.prefixlen
                prefixes = self._by_shift[network.version].setdefault(shift, set())
                prefixes.add(int(network.network_address) >> shift)

    def _add_all(self, other: NetworkSet) -> None:
        for version, by_shift in other._by_shift.items():
            for shift, prefixes in by_shift.items():
                self._by_shift[version].setdefault(shift, set()).update(prefixes)

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, prefixes in self._by_shift[address.version].items():
            if number >> shift in prefixes:
                return True
        return False

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Give for each network its version, its first address and the one after its last, as numbers; in no order."""
        for version, by_shift in self._by_shift.items():
            for shift, prefixes in by_shift.items():
                for prefix in prefixes:
                    yield version, prefix << shift, (prefix + 1) << shift

    def __iter__(self) -> Iterator[IPNetwork]:
        for version, first, end in sorted(self.spans()):
            length = (end - first).bit_length() - 1
            if version == 4:
                yield ipaddress.IPv4Network((first, 32 - length))
            else:
                yield ipaddress.IPv6Network((first, 128 - length))

    def __len__(self) -> int:
        return sum(len(prefixes) for kind in self._by_shift.values() for prefixes in kind.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and self._by_shift == other._by_shift

    def __hash__(self) -> int:
        # Of how many there are: they may be too many to look at each.
        return hash(
            frozenset(
                (version, shift, len(prefixes))
                for version, by_shift in self._by_shift.items()
                for shift, prefixes in by_shift.items()
            )
        )

    def __repr__(self) -> str:
        return f"NetworkSet({', '.join(map(str, self))})"
