"""Who is let in: by network, and by how many there are already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.frontend.addresses import ip_address_of
from txmux.frontend.limits.per_source import PerSource, SourceLimits, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

    from txmux.frontend.limits.per_source import Permit
    from txmux.observe.reasons import EndReason
    from txmux.proxyprotocol.header import Address
    from txmux.rules.model import Listener

__all__ = ["Admission", "Counter", "Refused", "Tally"]


class Refused(Exception):  # noqa: N818 - it is not an error
    """A client is not let in.

    Attributes:
        reason: Why not.
    """

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason)
        self.reason: EndReason = reason


@attrs.define
class Counter:
    """The number of connections in this process, among listeners that share a limit."""

    count: int = 0


class Tally:
    """How many connections there are, among listeners that share a limit.

    Args:
        limit: The highest number; 0 is no limit.
        counter: Has the number; another one is made if not given.
    """

    def __init__(self, limit: int = 0, counter: Counter | None = None) -> None:
        self.limit = limit
        self._counter = counter or Counter()

    @property
    def count(self) -> int:
        """The number in this process."""
        return self._counter.count

    def take(self) -> bool:
        """Count one more, unless the limit is reached; tell which."""
        if 0 < self.limit <= self._counter.count:
            return False
        self._counter.count += 1
        return True

    def add(self) -> None:
        """Count one more, whatever the limit."""
        self._counter.count += 1

    def give_back(self) -> None:
        """Count one less. For each `add`, and each `take` that said yes, once."""
        self._counter.count -= 1


class Admission:
    """Decides who may come in by a listener.

    Args:
        settings: The listener's.
        seconds: Tells the time.
        service: Counts the connections of all listeners; there is no limit for them if it is not given.
        listener: Counts those of this one, where other processes count with it.
        per_source: Counts those of each source, where other processes count with it.
    """

    def __init__(
        self,
        settings: Listener,
        seconds: Callable[[], float],
        *,
        service: Tally | None = None,
        listener: Tally | None = None,
        per_source: PerSource | None = None,
    ) -> None:
        self._clients = settings.clients
        limits = SourceLimits.of(settings)
        if per_source is None and limits is not None:
            per_source = PerSource(limits, seconds)
        self._per_source = per_source
        # Without a limit, too: the next rules may have one.
        self._tallies = (service or Tally(), listener or Tally(settings.max_connections))
        self._asks_who = self._clients.limited or per_source is not None

    def enter(self, client: Address | None, peer: IAddress) -> Permit | None:
        """Let a client in. One that was let in has to `leave`.

        Args:
            client: Its real address, if somebody who is trusted has told it.
            peer: The address that its connection comes from.

        Returns:
            What counts it for its source, if that is counted; to be told when it has been recognised.

        Raises:
            Refused: It is not let in.
        """
        permit = None
        if self._asks_who:
            permit = self._check(client or ip_address_of(peer))
        for number, tally in enumerate(self._tallies):
            if not tally.take():
                for taken in self._tallies[:number]:
                    taken.give_back()
                if permit is not None:
                    permit.release()
                raise Refused("limit")
        return permit

    def _check(self, client: Address | None) -> Permit | None:
        if not self._clients.serves(None if client is None else client.host):
            raise Refused("denied")
        if client is None or self._per_source is None:
            return None
        permit = self._per_source.enter(source_of(client.host))
        if permit is None:
            raise Refused("limit")
        return permit

    def adopt(self, client: Address | None) -> Permit | None:
        """Count a client that another process has let in. It has to `leave`, too.

        Args:
            client: Its real address, if it has one.

        Returns:
            As `enter` does.
        """
        for tally in self._tallies:
            tally.add()
        if client is None or self._per_source is None:
            return None
        return self._per_source.adopt(source_of(client.host))

    def leave(self, permit: Permit | None) -> None:
        """Note that a client that was let in is gone.

        Args:
            permit: What `enter` gave.
        """
        if permit is not None:
            permit.release()
        for tally in self._tallies:
            tally.give_back()
