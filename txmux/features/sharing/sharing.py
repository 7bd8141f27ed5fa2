"""Shares bans with other machines, while the rules name a Redis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from txmux.access.bans import ServiceBans
    from txmux.access.shared.bans import SharedBans
    from txmux.rules.model import Rules
    from txmux.rules.model.settings import Store
    from txmux.telemetry.sources import Source


class Sharing:
    """Owns the connection to the Redis of the rules."""

    def __init__(self, reactor: Any, bans: ServiceBans) -> None:
        self._reactor = reactor
        self._bans = bans
        self._store: Store | None = None
        self._shared: SharedBans | None = None

    @property
    def state(self) -> str | None:
        return None if self._shared is None else self._shared.state

    def troubles(self) -> list[str]:
        return [] if self._shared is None else self._shared.troubles()

    def sources(self) -> Iterable[Source]:
        return () if self._shared is None else (self._shared.source,)

    def commit(self, rules: Rules) -> None:
        store = rules.settings.shared_limits
        if store == self._store:
            return
        self.stop()
        self._store = store
        if store is not None:
            from txmux.access.shared.bans import SharedBans  # noqa: PLC0415 - few machines share

            self._shared = SharedBans(self._reactor, store, store.password, self._bans)
            self._bans.publish = self._shared.announce
            self._shared.start()

    def stop(self) -> Deferred[Any]:
        shared, self._shared, self._store = self._shared, None, None
        self._bans.publish = None
        if shared is None:
            return succeed(None)
        stopped: Deferred[Any] = shared.stop()
        return stopped
