"""Bans are shared with other machines, while the rules want that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from txmux.cluster.bans import SharedBans
    from txmux.live.banning import Banning
    from txmux.rules.model import Rules

__all__ = ["Sharing"]


class Sharing:
    """Has the connection to the Redis of the rules.

    Args:
        reactor: Connects, and tells the time.
        control: Has the bans.
    """

    def __init__(self, reactor: Any, control: Banning) -> None:
        self._reactor = reactor
        self._control = control
        self._place: object = None
        self._bans: SharedBans | None = None

    @property
    def state(self) -> str | None:
        """How far all bans of other machines are known: see `SharedBans.state`; ``None`` if there are no others."""
        return None if self._bans is None else self._bans.state

    @property
    def problems(self) -> list[str]:
        """What needs a person, a sentence each."""
        return [] if self._bans is None else self._bans.problems

    def use(self, rules: Rules) -> None:
        """Share by the Redis of these rules."""
        settings = rules.settings
        place = (settings.shared_limits, settings.shared_limits_password)
        if place == self._place:
            return
        self.stop()
        self._place = place
        if settings.shared_limits is not None:
            from txmux.cluster.bans import SharedBans  # noqa: PLC0415 - few machines share

            store, password = settings.shared_limits, settings.shared_limits_password
            self._bans = SharedBans(self._reactor, store, password, self._control)
            self._control.tell_others = self._bans.tell
            self._bans.start()

    def stop(self) -> Deferred[Any]:
        """Share no more."""
        bans, self._bans, self._place = self._bans, None, None
        self._control.tell_others = None
        if bans is None:
            return succeed(None)
        stopped: Deferred[Any] = bans.stop()
        return stopped
