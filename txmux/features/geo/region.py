"""The networks of a country, or of an autonomous system."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from txmux.transport import IPAddress

DATABASES = "geo_databases"
"""The key with the files."""


@attrs.define(eq=False)
class GeoRegion:
    """The networks of a country, or of an autonomous system, as a database knows them.

    Attributes:
        key: ``country``, ``continent`` or ``as``.
        value: As in ISO 3166-1 (two capital letters), the code of a continent, or a number.
    """

    key: str
    value: str | int
    find: Callable[[IPAddress], frozenset[tuple[str, str | int]]] | None = attrs.field(
        default=None, init=False, repr=False
    )

    def __contains__(self, address: IPAddress) -> bool:
        return self.find is not None and (self.key, self.value) in self.find(address)
