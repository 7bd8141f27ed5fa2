"""Who is let in: by network, and by how many there are already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.frontend.addresses import ip_address_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.observe.record import EndReason
    from txmux.proxyprotocol.header import Address
    from txmux.rules.model import Listener

__all__ = ["Admission", "Tally"]


@attrs.define
class Tally:
    """How many connections there are, among listeners that share a limit.

    Attributes:
        limit: At most so many; 0 is no limit.
        count: So many there are in this process.
    """

    limit: int = 0
    count: int = 0

    def take(self) -> bool:
        """Count one more, unless the limit is reached; tell which."""
        if 0 < self.limit <= self.count:
            return False
        self.count += 1
        return True

    def give_back(self) -> None:
        """Count one less. For each `take` that said yes, once."""
        self.count -= 1


class Admission:
    """Decides who may come in by a listener.

    Args:
        settings: The listener's.
        service: Counts the connections of all listeners.
        listener: Counts those of this one.
    """

    def __init__(self, settings: Listener, service: Tally, listener: Tally) -> None:
        self._allow = settings.allow
        self._deny = settings.deny
        self._service = service
        self._listener = listener

    def enter(self, peer: IAddress) -> EndReason | None:
        """Let a client in, or tell why not. One that was let in has to `leave`.

        Args:
            peer: Its address.
        """
        if (self._deny is not None or self._allow is not None) and not self._welcomes(
            ip_address_of(peer)
        ):
            return "denied"
        if not self._service.take():
            return "limit"
        if not self._listener.take():
            self._service.give_back()
            return "limit"
        return None

    def _welcomes(self, client: Address | None) -> bool:
        if client is None:
            return self._allow is None
        if self._deny is not None and client.host in self._deny:
            return False
        return self._allow is None or client.host in self._allow

    def leave(self) -> None:
        """Note that a client that was let in is gone."""
        self._service.give_back()
        self._listener.give_back()
