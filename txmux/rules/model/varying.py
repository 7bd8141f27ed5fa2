"""Networks that change without the rules: those of a file, of a service that decides on bans, or of a country."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    Address: TypeAlias = IPv4Address | IPv6Address

__all__ = ["Place", "Varying", "VaryingKind"]

VaryingKind: TypeAlias = Literal["file", "crowdsec", "geo"]


class Contents(Protocol):
    """What holds addresses."""

    def __contains__(self, address: Address, /) -> bool:
        """Return whether an address is one of them."""


class Place:
    """The networks of a country, or of an autonomous system, as a database knows them.

    Args:
        key: ``country``, ``continent`` or ``as``.
        value: As in ISO 3166-1 (two capital letters), the code of a continent, or a number.
    """

    __slots__ = ("find", "key", "value")

    def __init__(self, key: str, value: str | int) -> None:
        self.key = key
        self.value = value
        self.find: Callable[[Address], frozenset[tuple[str, str | int]]] | None = None

    def __contains__(self, address: Address) -> bool:
        return self.find is not None and (self.key, self.value) in self.find(address)


class Varying:
    """Networks whose contents are exchanged while the rules that name them hold.

    Args:
        kind: Where they are from.
        source: A path, a URL, or what is written after ``geo:``.
        contents: Those of now.

    Attributes:
        kind: As above.
        source: As above.
        contents: As above. Whoever has the rules may exchange it.
    """

    __slots__ = ("__weakref__", "contents", "kind", "source")

    def __init__(self, kind: VaryingKind, source: str, contents: Contents) -> None:
        self.kind: VaryingKind = kind
        self.source = source
        self.contents = contents

    @property
    def name(self) -> str:
        """What tells it apart from others."""
        return f"{self.kind}:{self.source}"

    def __contains__(self, address: Address) -> bool:
        return address in self.contents

    def _compared(self) -> object:
        # Rules that were read again say something else if there is something else in a file.
        return self.contents if self.kind == "file" else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Varying):
            return NotImplemented
        return self.name == other.name and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Varying({self.name!r})"
