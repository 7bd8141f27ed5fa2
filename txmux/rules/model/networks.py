"""Networks of clients, also those that change without the rules, and sets of clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Protocol

from txmux.classes import define, frozen
from txmux.transport import IPAddress, embedded, unmapped

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkSet:
    """A set of networks: ``address in networks``. Only its `DynamicNetworks` may ever change.

    The networks are stored by family and prefix length, as numbers. So a look-up costs one probe for each length that
    occurs (33 and 129 at most), not one for each network.

    Args:
        networks: IPv4 and IPv6 networks, or sets of them, in any order; they may overlap.

    Attributes:
        dynamic: Those whose contents may be replaced.
    """

    __slots__ = ("_by_shift", "dynamic")

    def __init__(self, networks: Iterable[IPNetwork | NetworkSet | DynamicNetworks]) -> None:
        self._by_shift: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        self.dynamic: tuple[DynamicNetworks, ...] = ()
        for network in networks:
            if isinstance(network, NetworkSet):
                for version, by_shift in network._by_shift.items():
                    for shift, some in by_shift.items():
                        self._by_shift[version].setdefault(shift, set()).update(some)
                self.dynamic = (*self.dynamic, *network.dynamic)
            elif isinstance(network, DynamicNetworks):
                self.dynamic = (*self.dynamic, network)
            else:
                shift = network.max_prefixlen - network.prefixlen
                prefixes = self._by_shift[network.version].setdefault(shift, set())
                prefixes.add(int(network.network_address) >> shift)

    @classmethod
    def of_prefixes(cls, prefixes: Mapping[int, Mapping[int, Iterable[int]]]) -> NetworkSet:
        made = cls(())
        for version, by_shift in prefixes.items():
            made._by_shift[version] = {shift: {*some} for shift, some in by_shift.items()}
        return made

    def prefixes(self) -> Mapping[int, Mapping[int, Iterable[int]]]:
        # By version and the number of the bits that may be any, which are left out.
        return self._by_shift

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        for shift, prefixes in self._by_shift[address.version].items():
            if number >> shift in prefixes:
                return True
        return bool(self.dynamic) and any(address in one for one in self.dynamic)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield for each network its version, its first address and the one after its last, as numbers; in no order."""
        for one in self.dynamic:
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
        contents = (one.contents for one in self.dynamic)
        return own + sum(
            len(content) if isinstance(content, NetworkSet) else 1 for content in contents
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NetworkSet)
            and self._by_shift == other._by_shift
            and self.dynamic == other.dynamic
        )

    def __hash__(self) -> int:
        # Of many, by how many there are: they may be too many to look at each.
        return hash(
            frozenset(
                (version, shift, frozenset(prefixes) if len(prefixes) < 9 else len(prefixes))
                for version, by_shift in self._by_shift.items()
                for shift, prefixes in by_shift.items()
            )
        )

    def __repr__(self) -> str:
        return f"NetworkSet({', '.join(map(str, self))})"


class AddressSet(Protocol):
    """What can say whether an address is in it: a `NetworkSet`, or what a feature has."""

    def __contains__(self, address: IPAddress, /) -> bool: ...


@define(eq=False, repr=False)
class DynamicNetworks:
    """Networks whose contents may be replaced while the rules that name them are in use.

    Attributes:
        kind: ``file``, or the name of a feature.
        source: A path, a URL, or what else the feature makes of the text.
    """

    kind: str
    source: str
    contents: AddressSet

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.source}"

    def __contains__(self, address: IPAddress) -> bool:
        return address in self.contents

    def _compared(self) -> object:
        # Rules that were read again differ if the contents of a file do.
        return self.contents if self.kind == "file" else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DynamicNetworks):
            return NotImplemented
        return self.name == other.name and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"DynamicNetworks({self.name!r})"


AnyNetworks = IPNetwork | NetworkSet | DynamicNetworks


@frozen
class Clients:
    """Which clients a listener or a route serves.

    Attributes:
        allowed: The only networks; ``None`` is everyone, also clients without an IP address.
        excluded: Networks that are taken out of these; ``None`` is none.
    """

    allowed: NetworkSet | None = None
    excluded: NetworkSet | None = None

    @property
    def limited(self) -> bool:
        return self.allowed is not None or self.excluded is not None

    def excludes(self, address: IPAddress | None) -> bool:
        return address is not None and self.excluded is not None and address in self.excluded

    def serves(self, address: IPAddress | None) -> bool:
        """Return whether the client of an IP address is served; ``None`` is one without, as on a UNIX socket."""
        if address is None:
            return self.allowed is None
        if self.excluded is not None and address in self.excluded:
            return False
        return self.allowed is None or address in self.allowed


EVERY_CLIENT = Clients()
"""Also those without an address."""


_SPECIAL = NetworkSet(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
_UNICAST = ipaddress.IPv6Network("2000::/3")


def is_public(address: IPAddress) -> bool:
    """Return whether an address is one of the public Internet.

    That is unicast which no registry of special addresses has (RFC 6890, with the lists of IANA), and IPv6 in which only such an
    IPv4 address is.
    """
    inside = embedded(address)
    if inside:
        return all(map(is_public, inside))
    return (address.version == 4 or address in _UNICAST) and address not in _SPECIAL


class Public(Enum):
    """All addresses of which `is_public` is true."""

    PUBLIC = "public"


class Reachable(NetworkSet):
    """Networks, with or without the public Internet.

    Args:
        networks: In any order.

    Attributes:
        has_public: Whether the public Internet is meant, too.
    """

    __slots__ = ("has_public",)

    def __init__(self, networks: Iterable[AnyNetworks | Public]) -> None:
        found = list(networks)
        super().__init__(one for one in found if not isinstance(one, Public))
        self.has_public = Public.PUBLIC in found

    def __contains__(self, address: IPAddress) -> bool:
        address = unmapped(address)
        return (self.has_public and is_public(address)) or super().__contains__(address)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Reachable) and self.has_public == other.has_public
        return same and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.has_public))


class UnixClients(Enum):
    """Who comes by a UNIX socket, and so from no network."""

    UNIX = "unix"


class Senders(NetworkSet):
    """Networks, with or without clients of UNIX sockets.

    Args:
        senders: In any order.

    Attributes:
        by_unix: Whether UNIX sockets are meant, too.
    """

    __slots__ = ("by_unix",)

    def __init__(self, senders: Iterable[AnyNetworks | UnixClients]) -> None:
        found = list(senders)
        super().__init__(sender for sender in found if not isinstance(sender, UnixClients))
        self.by_unix = UnixClients.UNIX in found

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Senders) and self.by_unix == other.by_unix
        return same and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.by_unix))
