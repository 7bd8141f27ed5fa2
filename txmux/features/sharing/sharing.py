"""Shares bans with other machines, while the rules name a Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from txmux.client.parts import ServicePart
from txmux.control.attention import problems
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.rows import BANS_WITHOUT_ROOM
from txmux.features.sharing.store import Store, is_shared, store_of

if TYPE_CHECKING:
    from txmux.access.bans import ServiceBans
    from txmux.rules.model import Rules
    from txmux.telemetry.attention import AttentionItem
    from txmux.telemetry.sources import Source, SourceState


class Sharing(ServicePart):
    """Owns the connection to the Redis of the rules."""

    def __init__(self, reactor: Any, bans: ServiceBans) -> None:
        self._reactor = reactor
        self._bans = bans
        self._store: Store | None = None
        self._shared: SharedBans | None = None

    def shared_bans(self, sources: Sequence[SourceState]) -> str | None:
        state = None if self._shared is None else self._shared.state
        return "lost" if state == "complete" and not is_shared(sources) else state

    def troubles(self) -> Iterator[AttentionItem]:
        if self._shared is not None:
            yield from problems(BANS_WITHOUT_ROOM, self._shared.troubles())

    def sources(self) -> Iterable[Source]:
        return () if self._shared is None else (self._shared.source,)

    def commit(self, rules: Rules) -> None:
        store = store_of(rules.settings)
        if store == self._store:
            return
        self.stop_following()
        self._store = store
        if store is not None:
            self._shared = SharedBans(self._reactor, store, self._bans)
            self._bans.publish = self._shared.announce
            self._shared.start()

    def stop_following(self) -> Deferred[Any]:
        shared, self._shared, self._store = self._shared, None, None
        self._bans.publish = None
        if shared is None:
            return succeed(None)
        stopped: Deferred[Any] = shared.stop()
        return stopped
