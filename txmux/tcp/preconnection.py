"""A connection to the server of silent clients, made before it is certain that the client is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.connect.connector import BackendConnector
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.net.relay.ends import EndReceiver
    from txmux.telemetry.reasons import ConnectFailure


@attrs.define(eq=False)
class HeldBytes:
    """Buffers what a server sends before its client is known, and stops reading after `most` bytes."""

    _server: ProxyClient
    _most: int
    _on_lost: Callable[[], None]
    _received: bytes = attrs.field(default=b"", init=False)
    _finished: bool = attrs.field(default=False, init=False)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) >= self._most:
            self._server.transport.pauseProducing()

    def peer_finished(self) -> None:
        self._finished = True

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002
        self._on_lost()

    def pass_to(self, receiver: EndReceiver) -> None:
        if self._received:
            receiver.data_received(self._received)
        if self._finished and self._server.receiver is receiver:  # or the bytes have ended all
            receiver.peer_finished()


@attrs.define(eq=False)
class Preconnection:
    """A connection to a server that may turn out not to be needed.

    If it is dropped, nothing is logged or counted. If it fails, or the server has closed it, it is as if it had not been tried:
    `Connecting` then connects as usual.
    """

    _upstream: Upstream
    _most: int
    connector: BackendConnector | None = attrs.field(default=None, init=False)
    _won: tuple[ProxyClient, Member] | None = attrs.field(default=None, init=False)
    _held: HeldBytes | None = attrs.field(default=None, init=False)

    def connected(self, server: ProxyClient, member: Member) -> None:
        self._won = server, member
        self._held = server.receiver = HeldBytes(server, self._most, self._server_lost)

    def failed(self, cause: ConnectFailure) -> None:  # noqa: ARG002
        self.connector = None

    def _server_lost(self) -> None:
        assert self._won is not None  # noqa: S101 - it was there
        _, member = self._won
        self._won = self._held = self.connector = None
        self._upstream.pool.released(member)

    def suits(self, other: BackendConnector) -> bool:
        """Return whether the connection is there, or being made, and is the one that a connector would make."""
        return self.connector is not None and self.connector.is_like(other)

    def hand_over(
        self,
        on_connected: Callable[[ProxyClient, Member], None],
        on_failed: Callable[[ConnectFailure], None],
    ) -> None:
        """Report to these callables as a connector does, at once if the connection is there; it `suits`."""
        connector, won = self.connector, self._won
        self.connector = self._won = None
        if won is not None:
            on_connected(*won)
        elif connector is not None:
            connector.on_connected, connector.on_failed = on_connected, on_failed

    def take_held(self) -> HeldBytes | None:
        held, self._held = self._held, None
        return held

    def drop(self) -> None:
        """Close the connection, or stop making it; the server does not count as failed."""
        won, connector = self._won, self.connector
        self._won = self._held = self.connector = None
        if won is not None:
            server, member = won
            server.close_unused()
            self._upstream.pool.released(member)
        elif connector is not None:
            connector.cancel()
