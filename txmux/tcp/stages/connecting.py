"""A stage: a server is being connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from typing_extensions import override

from txmux.net.addresses import text_of
from txmux.rules.model import Refusal
from txmux.tcp.dialling import connector_for
from txmux.tcp.stage import Stage

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.connect.connector import BackendConnector
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.net.relay.ends import IRelayTransport
    from txmux.tcp.preconnection import Preconnection
    from txmux.telemetry.reasons import ConnectFailure
    from txmux.telemetry.states import ConnectionState

_WITH_PORT = IPv4Address, IPv6Address


@attrs.define(eq=False, slots=False)
class Connecting(Stage):
    """Waits for a server. What the client sends meanwhile is kept, up to the peek limit.

    Args:
        upstream: Whose servers are tried.
        race: A connection that was begun before it was known where the client belongs; maybe to elsewhere.
    """

    state: ClassVar[ConnectionState] = "connecting"

    _upstream: Upstream
    _race: Preconnection | None = None
    _connector: BackendConnector | None = attrs.field(default=None, init=False)
    _paused = False

    @override
    def begin(self) -> None:
        client, upstream = self._client, self._upstream
        connector = connector_for(client, upstream, self._connected, self._failed)
        if len(client.received) >= client.configuration.settings.peek_limit:
            self.on_data()
        if client.has_finished:
            self.on_finished()
        race = self._race
        if race is not None and race.suits(connector):
            self._connector = race.connector
            race.hand_over(self._connected, self._failed)
            return
        if race is not None:
            race.drop()
        self._connector = connector
        connector.start()

    @override
    def leave(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None  # it knows this stage, too
        if self._paused and not self._client.has_finished:
            # Where the connection goes from here, nobody knows that it was stopped.
            self._client.transport.resumeProducing()

    @override
    def on_data(self) -> None:
        client = self._client
        if len(client.received) >= client.configuration.settings.peek_limit:
            self._paused = True
            if not self._stand_by():
                client.transport.pauseProducing()

    @override
    def on_finished(self) -> None:
        self._stand_by()

    def _stand_by(self) -> bool:
        """Read no more, but hear of it if the client is gone, since it may wait for long; tell whether the transport can do that."""
        stand_by = getattr(self._client.transport, "stand_by", None)
        if stand_by is not None:
            stand_by()
        return stand_by is not None

    def _connected(self, server: ProxyClient, member: Member) -> None:
        client = self._client
        record = client.record
        assert self._connector is not None  # noqa: S101 - it has connected
        record.server = member.target_for(self._connector.local).text
        record.server_local = _local_end(server.transport)
        record.connect_ms = client.elapsed_ms() - (record.detect_ms or 0.0)
        self._upstream.counts.connected(record.connect_ms)
        self._done()
        held = self._race.take_held() if self._race is not None else None
        client.relay(self._upstream, member, server, held)

    def _failed(self, cause: ConnectFailure) -> None:
        tried = self._done()
        if tried and isinstance(self._upstream.fallback, Refusal):
            self._client.record.server = tried[-1]
        self._client.fall_back(self._upstream, cause)

    def _done(self) -> list[str]:
        """Let go of the connector; note the servers that could not be reached, and give them."""
        connector, self._connector = self._connector, None
        if connector is None or not connector.tried:
            return []
        facts = self._client.record.facts
        before = [facts["tried"]] if "tried" in facts else []
        tried = {
            member.target_for(connector.local).text: cause
            for member, cause in connector.tried.items()
        }
        attempts = [f"{server} {cause}" for server, cause in tried.items()]
        facts["tried"] = ", ".join(before + attempts)
        return [*tried]


def _local_end(server: IRelayTransport) -> str | None:
    """Return the address that a server sees."""
    host = server.getHost()
    return text_of(host) if isinstance(host, _WITH_PORT) else None
