"""IP addresses, and sets of networks that answer in constant time, however many networks they hold."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from txmux.rules.model.varying import Varying

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["IPAddress", "IPNetwork", "NetworkSet", "is_address", "unmapped"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(1024)  # the same few are asked about many times
def is_address(text: str) -> bool:
    """Return whether a text is an IP address, and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that a v4-mapped IPv6 address (RFC 4291, section 2.5.5.2) means; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address


class NetworkSet:
    """A set of networks: ``address in networks``. Only what is `Varying` in it may ever change.

    The networks are kept by family and prefix length, as numbers. So a look-up costs one probe for each length that
    occurs (33 and 129 at most), not one for each network.

    Args:
        networks: IPv4 and IPv6 networks, or sets of them, in any order; they may overlap.

    Attributes:
        varying: Those that may change.
    """

    __slots__ = ("_by_shift", "varying")

    def __init__(self, networks: Iterable[IPNetwork | NetworkSet | Varying]) -> None:
        self._by_shift: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        self.varying: tuple[Varying, ...] = ()
        for network in networks:
            if isinstance(network, NetworkSet):
                self._add_all(network)
            elif isinstance(network, Varying):
                self.varying = (*self.varying, network)
            else:
                shift = network.max_prefixlen - network.prefixlen
                prefixes = self._by_shift[network.version].setdefault(shift, set())
                prefixes.add(int(network.network_address) >> shift)

    @classmethod
    def of_prefixes(cls, prefixes: Mapping[int, Mapping[int, Iterable[int]]]) -> NetworkSet:
        """Make what `prefixes` gives."""
        made = cls(())
        for version, by_shift in prefixes.items():
            made._by_shift[version] = {shift: {*some} for shift, some in by_shift.items()}
        return made

    def prefixes(self) -> Mapping[int, Mapping[int, Iterable[int]]]:
        """Return the networks as numbers without those bits that may be any, by version and the number of these bits."""
        return self._by_shift

    def _add_all(self, other: NetworkSet) -> None:
        for version, by_shift in other._by_shift.items():
            for shift, prefixes in by_shift.items():
                self._by_shift[version].setdefault(shift, set()).update(prefixes)
        self.varying = (*self.varying, *other.varying)

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, prefixes in self._by_shift[address.version].items():
            if number >> shift in prefixes:
                return True
        return bool(self.varying) and any(address in one for one in self.varying)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield for each network its version, its first address and the one after its last, as numbers; in no order."""
        for one in self.varying:
            if isinstance(one.contents, NetworkSet):
                yield from one.contents.spans()
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
        own = sum(len(prefixes) for kind in self._by_shift.values() for prefixes in kind.values())
        contents = (one.contents for one in self.varying)
        return own + sum(len(one) if isinstance(one, NetworkSet) else 1 for one in contents)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NetworkSet)
            and self._by_shift == other._by_shift
            and self.varying == other.varying
        )

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
