"""Admits clients, by their networks and by the numbers of connections."""

from collections.abc import Callable

from txmux.access.bans import Banned
from txmux.access.per_source import Permit, PerSource, SourceLimits, source_of
from txmux.classes import define
from txmux.rules.model import Listener
from txmux.telemetry.reasons import EndReason, LimitName
from txmux.wire.proxyprotocol.header import Address

__all__ = ["Admission", "Counter", "Refused", "Tally"]

_NOBODY = Banned()
_TALLIES: tuple[LimitName, ...] = ("txmux.max_connections", "max_connections")


class Refused(Exception):  # noqa: N818 - it is not an error
    """A client is refused; `limit` is ``None`` if no limit was the reason."""

    def __init__(self, reason: EndReason, limit: LimitName | None = None) -> None:
        super().__init__(reason)
        self.reason: EndReason = reason
        self.limit = limit


@define
class Counter:
    """The number of connections in this process, among listeners that share a limit."""

    count: int = 0


class Tally:
    """How many connections there are, among listeners that share a limit.

    Args:
        limit: The highest number; 0 means no limit.
        counter: Has the number; another one is made if not given.
    """

    def __init__(self, limit: int = 0, counter: Counter | None = None) -> None:
        self.limit = limit
        self._counter = counter or Counter()

    @property
    def count(self) -> int:
        return self._counter.count

    def take(self) -> bool:
        """Count one more, unless the limit is reached; returns whether it was counted."""
        if 0 < self.limit <= self._counter.count:
            return False
        self._counter.count += 1
        return True

    def add(self) -> None:
        self._counter.count += 1

    def adopt(self) -> None:
        self.add()

    def move_away(self) -> None:
        self.give_back()  # another process adopts it next

    def give_back(self) -> None:
        self._counter.count -= 1  # once for each `add`, `adopt`, and successful `take`


class Admission:
    """Decides which clients a listener accepts.

    Args:
        settings: The listener's.
        seconds: Returns the time.
        service: Counts the connections of all listeners; there is no limit for them if it is not given.
        listener: Counts those of this one, where other processes count with it.
        per_source: Counts those of each source, where other processes count with it.

    Attributes:
        per_source: What counts those of each source; ``None`` if there is no limit for them.
        banned: Networks that are refused, whatever the settings.
    """

    banned: Banned = _NOBODY

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
        limits = SourceLimits.for_listener(settings)
        if per_source is None and limits is not None:
            per_source = PerSource(limits, seconds)
        self.per_source = per_source
        # Also without a limit, since the next rules may have one.
        self.tallies = (service or Tally(), listener or Tally(settings.max_connections))
        self._needs_address = self._clients.limited or per_source is not None

    @property
    def needs_address(self) -> bool:
        return self._needs_address or self.banned.any

    def enter(self, client: Address | None) -> Permit | None:
        """Admit a client. Call `leave` when it ends.

        Args:
            client: Its real address; ``None`` if it has none, or if nothing `needs_address` it is.

        Returns:
            What counts it for its source, if that is counted; to `mark_decided` when it has been recognised.

        Raises:
            Refused: It may not connect.
        """
        host = None
        if self._needs_address or self.banned.any:
            host = None if client is None else client.host
            if not self._clients.serves(host) or (host is not None and host in self.banned):
                raise Refused("denied")
        for number, tally in enumerate(self.tallies):
            if not tally.take():
                for taken in self.tallies[:number]:
                    taken.give_back()
                raise Refused("limit", _TALLIES[number])
        if host is None or self.per_source is None:
            return None
        # Last, so that no refused client uses what its source may have.
        permit = self.per_source.enter(source_of(host))
        if permit is None:
            for tally in self.tallies:
                tally.give_back()
            raise Refused("limit", self.per_source.reached)
        return permit

    def serves(self, client: Address) -> bool:
        return self._clients.serves(client.host) and client.host not in self.banned

    def adopt(self, client: Address | None, *, has_moved: bool = True) -> Permit | None:
        """Count a client admitted elsewhere, with its real address if it has one; call `leave` when it ends.

        Args:
            client: As for `enter`.
            has_moved: Whether the other process has called `move_away`.
        """
        for tally in self.tallies:
            if has_moved:
                tally.adopt()
            else:
                tally.add()
        if client is None or self.per_source is None:
            return None
        return self.per_source.adopt(source_of(client.host), has_moved=has_moved)

    def move(
        self, permit: Permit | None, before: Address, after: Address, *, is_known: bool = False
    ) -> Permit | None:
        """Return what counts a client at its new address: `permit` for the same source, else another one in place of it.

        The caller releases the one that is replaced. The limits raise `Refused`, unless the client `is_known` there from before.
        """
        source = source_of(after.host)
        if self.per_source is None or (permit is not None and source == source_of(before.host)):
            return permit
        its = self.per_source
        moved = its.adopt(source, has_moved=False) if is_known else its.enter(source)
        if moved is None:
            raise Refused("limit", self.per_source.reached)
        moved.mark_decided()
        return moved

    def leave(self, permit: Permit | None) -> None:
        """Record that an admitted client has left, with what `enter` gave."""
        if permit is not None:
            permit.release()
        for tally in self.tallies:
            tally.give_back()

    def move_away(self, permit: Permit | None) -> None:
        """Record, instead of `leave`, that another process is about to `adopt` a client. Until then it still counts."""
        if permit is not None and self.per_source is not None:
            self.per_source.move_away(permit)
        for tally in self.tallies:  # last: they show that something has moved
            tally.move_away()
