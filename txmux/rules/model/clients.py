"""Which clients are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from txmux.rules.model.networks import IPAddress, NetworkSet

__all__ = ["EVERY_CLIENT", "Clients"]


@attrs.frozen
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
        """Whether it depends on the client's address who is served."""
        return self.allowed is not None or self.excluded is not None

    def excludes(self, address: IPAddress | None) -> bool:
        """Return whether a client's address is one of those that are taken out."""
        return address is not None and self.excluded is not None and address in self.excluded

    def serves(self, address: IPAddress | None) -> bool:
        """Return whether a client is served.

        Args:
            address: Its IP address; ``None`` if it has none, as on a UNIX socket.
        """
        if address is None:
            return self.allowed is None
        if self.excluded is not None and address in self.excluded:
            return False
        return self.allowed is None or address in self.allowed


EVERY_CLIENT = Clients()
"""Also those without an address."""
